"""Where output goes: never over files that are not tiir's, nor among them.

A directory is tiir's while the file is there that finishes it, such as `run.json`. While it is written, and after a kill,
that file has another, hidden name: the directory is recognised, and nothing takes it for a finished one.
"""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path
from typing import Any

from tiir.errors import MARKS, ConfigError, TiirError
from tiir.io import sync_directory, write_json

__all__ = ["begin", "check_file", "check_out", "finish", "is_begun"]


def check_out(
    out: Path,
    what: str,
    *,
    finished: bool = False,
    begun: bool = False,
    overwrite: bool = False,
    beside: Container[str] = (),
    error: type[TiirError] = ConfigError,
) -> None:
    """Refuse a directory that is taken: before the long work, not after it.

    Args:
        out: the directory to write; it may be missing. Hidden files in it do not count.
        what: is written there.
        finished: one is there.
        begun: one that is not finished is there.
        overwrite: it may be replaced.
        beside: names of what else tiir may have put there.
        error: to raise.

    Raises:
        error: it is finished, it is a file or lies below one, or it holds other files.

    Example:
        >>> import tempfile
        >>> photos = Path(tempfile.mkdtemp())
        >>> check_out(photos, "a Run")
        >>> (photos / "cat.jpg").touch()
        >>> check_out(photos, "a Run", overwrite=True)
        Traceback (most recent call last):
        ...
        tiir.errors.ConfigError: ... already holds files that are not part of a Run, such as cat.jpg
        ...
    """
    _check_directory(out, error)
    if finished and not overwrite:
        raise error(f"{out} already holds {what}", hint="choose another --out, or --overwrite")
    if finished or begun or not out.is_dir():
        return
    others = sorted(
        path.name for path in out.iterdir() if not path.name.startswith(".") and path.name not in beside
    )
    if others:
        such = next((name for name in others if name in MARKS), others[0])
        raise error(
            f"{out} already holds files that are not part of {what}, such as {such}",
            hint="choose a new or an empty directory; nothing was changed",
        )


def check_file(path: Path, *, overwrite: bool = False, error: type[TiirError] = ConfigError) -> None:
    """Refuse a file that is taken: before the long work, not after it.

    Raises:
        error: it is there and `overwrite` is False, it is a directory, or it lies below a file.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> check_file(folder / "ranks.csv")
        >>> check_file(folder)
        Traceback (most recent call last):
        ...
        tiir.errors.ConfigError: ... is a directory
          -> name a file
    """
    if path.is_dir():
        raise error(f"{path} is a directory", hint="name a file")
    if path.exists() and not overwrite:
        raise error(f"{path} is there already", hint="choose another --out, or --overwrite")
    _check_directory(path.parent, error)


def begin(header: Path) -> None:
    """Mark the directory of a file, which is to be written last, as begun; the file that is there counts no longer."""
    header.parent.mkdir(parents=True, exist_ok=True)
    if header.exists():
        os.replace(header, _hidden(header))  # in one step: at every moment it is one or the other
    else:
        _hidden(header).touch()


def is_begun(header: Path) -> bool:
    """Whether `begin` marked the directory of this file, and `finish` has not come.

    Example:
        >>> import tempfile
        >>> header = Path(tempfile.mkdtemp()) / "run.json"
        >>> begin(header)
        >>> is_begun(header), header.exists()
        (True, False)
        >>> finish(header, {"model": "m"})
        >>> is_begun(header), header.exists()
        (False, True)
    """
    return _hidden(header).exists()


def finish(header: Path, value: Any) -> None:
    """Write the file that makes its directory finished, as JSON, whole or not at all."""
    write_json(_hidden(header), value)
    os.replace(_hidden(header), header)
    sync_directory(header.parent)


def _hidden(header: Path) -> Path:
    return header.with_name(f".{header.name}.unfinished")


def _check_directory(path: Path, error: type[TiirError]) -> None:
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise error(f"{there} is a file", hint="name a directory")
