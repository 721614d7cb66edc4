"""Files: atomic writes, JSON that explains itself when broken, checksums, paths that stay inside."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.errors import DataError, TiirError, UnsafePathError, similar

__all__ = [
    "atomic_write",
    "inside",
    "load_npy",
    "load_npz",
    "read_ids",
    "read_json",
    "read_text",
    "read_yaml",
    "remove_leftovers",
    "sha256_file",
    "sync_directory",
    "write_json",
    "write_npy",
]

MOST_NODES = 100_000  # of a YAML file


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success flush it to disk and rename it into place.

    A reader, or a run resumed after a kill, sees the old file or the whole new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(directory: Path, name: str = "") -> None:
    """Remove the temporary files that `atomic_write` had begun in a process that was killed.

    Nobody else may be writing them now: hold the lock of what they belong to.

    Args:
        directory: where they lie; it may be missing.
        name: of the files that were to be written, or how their names begin.
    """
    for path in directory.glob(".*.tmp"):
        if re.fullmatch(rf"\.{re.escape(name)}.*\.[0-9a-f]{{8}}\.tmp", path.name):
            path.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries, so that a new or renamed file survives a power cut."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: Path, *, encoding: str = "utf-8", error: type[TiirError] = DataError) -> str:
    """Read a text file, its line ends as they are; a byte order mark is dropped.

    Raises:
        error: the file is missing, or not in this encoding (with the byte and line where it breaks).
    """
    try:
        raw = path.read_bytes()
        return raw.decode(encoding).removeprefix("\ufeff")
    except FileNotFoundError:
        raise error(f"no such file: {path}{similar(path)}") from None
    except OSError as problem:
        raise error(f"cannot read {path}: {problem.strerror}") from None
    except LookupError:
        raise error(f"{encoding!r} is not a text encoding", hint="such as utf-8, latin-1, utf-16") from None
    except UnicodeError as problem:
        start = getattr(problem, "start", 0)
        line = raw.count(b"\n", 0, start) + 1
        if raw.startswith(b"PK\x03\x04"):
            raise error(
                f"{path} is a spreadsheet or another zip file, not text", hint="save it as CSV, in UTF-8"
            ) from None
        guess = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "cp1252"
        raise error(
            f"{path} is not {encoding} text: byte {start} (0x{raw[start : start + 1].hex()}), line {line}",
            hint=f"save it as UTF-8 (perhaps it is {guess}: captions are read so with --encoding {guess})",
        ) from None


def read_ids(path: Path, *, error: type[TiirError] = DataError) -> list[str]:
    """Read a text file of ids, one a line; blank lines at the end do not count.

    Raises:
        error: the file is missing or not UTF-8.
    """
    lines = [line.removesuffix("\r") for line in read_text(path, error=error).split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def read_json(path: Path, *, error: type[TiirError] = DataError) -> Any:
    """Read a JSON file.

    Raises:
        error: the file is missing, not UTF-8, or not JSON (with the line where it breaks).
    """
    text = read_text(path, error=error)
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise error(
            f"{path} is not valid JSON: {problem.msg} at line {problem.lineno}, column {problem.colno}",
            hint="the file may be cut off or damaged: download or write it again",
        ) from None
    except (RecursionError, ValueError) as problem:
        raise error(f"{path} cannot be read as JSON: {problem}") from None


def read_yaml(path: Path, *, error: type[TiirError] = DataError) -> Any:
    """Read a YAML (or JSON) file: plain values only, never Python objects.

    Raises:
        error: the file is missing, not UTF-8, not YAML (with the line), or unfolds to too much.
    """
    import yaml

    text = read_text(path, error=error)
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            _unfolded(root, {})
            return None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(problem, "problem", None) or _first_line(problem)
        raise error(f"{path} cannot be read as YAML: {what}{where}") from None
    except (
        RecursionError,
        ValueError,
        OverflowError,
    ) as problem:  # too deep; dates and numbers that are none
        raise error(f"{path} cannot be read as YAML: {_first_line(problem)}") from None


def _unfolded(node: Any, known: dict[int, int]) -> int:
    # Nodes of a YAML tree with every alias written out: a few lines of aliases of aliases are billions.
    if id(node) not in known:
        known[id(node)] = MOST_NODES  # found again below itself: without end
        inner = getattr(node, "value", ())
        parts = (
            [part for pair in inner for part in (pair if isinstance(pair, tuple) else (pair,))]
            if isinstance(inner, list)
            else []
        )
        known[id(node)] = 1 + sum(_unfolded(part, known) for part in parts)
    if known[id(node)] >= MOST_NODES:
        raise ValueError(f"its aliases unfold to more than {MOST_NODES:,} values")
    return known[id(node)]


def write_npy(path: Path, array: npt.NDArray[Any]) -> None:
    """Write one array as .npy, atomically."""
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def load_npy(path: Path, *, mmap: bool = False, error: type[TiirError] = DataError) -> npt.NDArray[Any]:
    """Read one .npy array; object arrays (pickles) are refused.

    Raises:
        error: the file is missing, damaged, cut off, or holds Python objects.
    """
    try:
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except FileNotFoundError:
        raise error(f"no such file: {path}{similar(path)}") from None
    except Exception as problem:  # NumPy parses headers as Python: nearly every type, and MemoryError
        raise error(
            f"{path} is not a readable .npy array: {_first_line(problem)}",
            hint="it may be cut off, or hold Python objects: write it again",
        ) from None
    if not isinstance(array, np.ndarray):
        raise error(f"{path} is an archive of several arrays, not one .npy array")
    return array


def load_npz(
    path: Path, names: Iterable[str], *, most: int, error: type[TiirError] = DataError
) -> dict[str, npt.NDArray[Any]]:
    """Read arrays of an .npz; object arrays (pickles) are refused, and so is one that unpacks to too much.

    Args:
        path: the file.
        names: of the arrays to read.
        most: bytes that they may have together, unpacked: a small file can hold a thousand times its size.
        error: to raise.

    Raises:
        error: the file is missing, damaged or too large, lacks an array, or holds Python objects.
    """
    names = list(names)
    members = [f"{name}.npy" for name in names]
    try:
        with zipfile.ZipFile(path) as archive:
            there = [member.removesuffix(".npy") for member in archive.namelist()]
            for name in names:
                if name not in there:
                    raise error(f"{path} has no {name!r}", hint=f"it holds: {', '.join(there)}")
            if (size := sum(archive.getinfo(member).file_size for member in members)) > most:
                raise ValueError(f"it would unpack to {size:,} bytes, {most:,} are the most there can be")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except TiirError:
        raise
    except FileNotFoundError:
        raise error(f"no such file: {path}{similar(path)}") from None
    except Exception as problem:  # of zip, zlib and NumPy: nearly every type
        raise error(
            f"{path} is not a readable .npz: {_first_line(problem)}",
            hint="it may be cut off, or hold Python objects: write it again",
        ) from None


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().strip('"').splitlines() or [type(problem).__name__])[0][:200]


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def inside(root: Path, relative: str) -> Path:
    """The path of `relative` under `root`, refused where it (or a link on its way) leads out of `root`.

    Args:
        root: a directory the user gave. It may itself be a link.
        relative: a path below it, from a file we did not write.

    Raises:
        UnsafePathError: absolute paths, "..", NUL bytes, links that leave `root`.

    Example:
        >>> inside(Path("photos"), "../secret.jpg")
        Traceback (most recent call last):
        ...
        tiir.errors.UnsafePathError: '../secret.jpg' leads out of photos
        ...
    """
    hint = "paths of images must stay below the image folder; copy the file there"
    if "\0" in relative or Path(relative).is_absolute():
        raise UnsafePathError(f"{relative!r} is not a path relative to {root}", hint=hint)
    real_root = os.path.realpath(root)
    real = os.path.realpath(os.path.join(real_root, relative))
    if real != real_root and not real.startswith(real_root.rstrip(os.sep) + os.sep):
        raise UnsafePathError(f"{relative!r} leads out of {root}", hint=hint)
    return Path(real)
