"""One exception family: every error a user can cause says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import os
from itertools import islice
from pathlib import Path

__all__ = [
    "ConfigError",
    "DataError",
    "ImageError",
    "MissingExtraError",
    "ModelError",
    "ProtocolError",
    "RanksError",
    "RunError",
    "TiirError",
    "UnsafePathError",
]

MOST = 1000  # names in a folder that are compared; more take seconds, for each file that is missing
MARKS = {  # the file that makes a directory what it is
    "dataset.json": "a data set",
    "run.json": "a Run",
    "site.json": "a report",
    "config.json": "a model",
}


class TiirError(Exception):
    """Base of all errors that tiir raises on purpose.

    Args:
        message: what is wrong and where (name the file, id or argument, and what was given).
        hint: what the user can do about it.

    Example:
        >>> print(TiirError("split 'dev' is not in dataset.json", hint="it has: train, val, test"))
        split 'dev' is not in dataset.json
          -> it has: train, val, test
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.hint}" if self.hint else self.message


class DataError(TiirError):
    """A source or a data set on disk is missing, damaged or inconsistent."""


class ImageError(TiirError):
    """An image cannot be opened, or breaks the image contract (RGB uint8, upright)."""


class ModelError(TiirError):
    """A model cannot be loaded or does not do what was asked of it."""


class RunError(TiirError):
    """A Run is damaged, incomplete, or belongs to another data set."""


class RanksError(TiirError):
    """Scores or positives from which no honest rank can be computed."""


class ProtocolError(TiirError):
    """A protocol does not fit the data set it was asked for."""


class ConfigError(TiirError):
    """A configuration file or option has a wrong key or value."""


class UnsafePathError(TiirError):
    """A path leads out of the directory that the user gave."""


class MissingExtraError(TiirError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package '{package}'", hint=f"pip install 'tiir[{extra}]'")


def several(n: int, noun: str, plural: str | None = None) -> str:
    """A number and what it counts, for messages.

    Args:
        n: how many.
        noun: of one of them.
        plural: where it is not the noun and an s.

    Example:
        >>> several(1, "image"), several(1200, "query", "queries")
        ('1 image', '1,200 queries')
    """
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def similar(path: Path | str) -> str:
    """The end of a message about a path that is not there: what lies beside it under nearly its name, if anything.

    Of a file where a directory was asked for, that it is one; the other way round, too.

    Example:
        >>> similar("no/such/place")
        ''
    """
    if os.path.exists(path):
        return f" (it is a {'file' if os.path.isfile(path) else 'directory'})"
    missing = Path(os.path.expanduser(path))
    try:
        beside = list(islice(missing.parent.iterdir(), MOST + 1))
    except OSError:  # no such folder, or none that may be read
        return ""
    names = {path.name.lower(): path for path in beside}
    near = difflib.get_close_matches(missing.name.lower(), names, n=1) if len(beside) <= MOST else ()
    return f" (did you mean {names[near[0]]}?)" if near else ""


def not_that(directory: Path, mark: str) -> str:
    """Why a directory is not what its file `mark` would make it: not there, another thing, or unfinished.

    Example:
        >>> not_that(Path("no/such/run"), "run.json")
        'no such directory'
    """
    if not os.path.isdir(directory):
        return f"no such directory{similar(directory)}"
    for name, kind in MARKS.items():
        if (directory / name).is_file():
            return f"it is {kind}"
    below = next(directory.glob(f"*/{mark}"), None)
    return f"it has no {mark}" + (f" (did you mean {below.parent}?)" if below else "")
