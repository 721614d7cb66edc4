"""Files that hold embeddings: which parts they have, and how a part is read. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.errors import RunError
from tiir.io import load_npy

__all__ = ["Part", "files_of", "parts_of", "read_part", "sample", "stamp"]

Floats = npt.NDArray[Any]

SUFFIXES = (".npy", ".safetensors", ".parquet")
SAFETENSORS: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
GROUP = 1 << 28  # bytes: a row group is decoded as a whole
SAMPLE = 1 << 12  # bytes at the start, in the middle and at the end tell a file from another of its size


@dataclass
class Part:
    """Rows that are read together: a file, or one row group of a Parquet file."""

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    where: Any = None  # .safetensors: offset in the file; .parquet: column and row group


def files_of(path: Path) -> list[Path]:
    """The file itself, or the shards of a folder by name.

    Raises:
        RunError: there are none, or names that sort otherwise than their numbers.
    """
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise RunError(f"{path} is none of {', '.join(SUFFIXES)}")
        return [path]
    if not path.is_dir():
        raise RunError(f"no such file or folder: {path}")
    files = sorted(
        (file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith(".")),
        key=lambda file: file.name,
    )
    if not files:
        raise RunError(f"{path} holds no embeddings", hint=f"shards are {', '.join(SUFFIXES)} files")
    for one, other in pairwise(files):
        if _numbers(one.name) > _numbers(other.name):
            raise RunError(
                f"{one} comes before {other.name} by name, but not by number",
                hint="pad the numbers with zeros, such as part-00002: the order of names is the order of rows",
            )
    return files


def _numbers(name: str) -> list[tuple[str, int]]:
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def parts_of(path: Path) -> list[Part]:
    """The parts of a file, in order.

    Raises:
        RunError: it is damaged, or holds no vectors.
    """
    if path.suffix == ".npy":
        array = load_npy(path, mmap=True, error=RunError)
        if array.ndim != 2 or array.dtype.kind != "f":
            raise RunError(f"{path} holds {array.dtype} {array.shape}, expected a float matrix")
        found = [Part(path, (int(array.shape[0]), int(array.shape[1])), array.dtype)]
    else:
        found = list(_safetensors(path) if path.suffix == ".safetensors" else _row_groups(path))
    if not found or any(0 in part.shape for part in found):
        raise RunError(f"{path} holds no vectors")
    return found


def _safetensors(path: Path) -> Iterator[Part]:
    # The header is JSON behind its own length, 8 bytes; offsets count from its end.
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(stamp(path)[1] - 8, 1 << 27):
                raise ValueError("the header is longer than the file")
            tensors = json.loads(file.read(length))
        tensors.pop("__metadata__", None)
        name = "embeddings" if "embeddings" in tensors or len(tensors) != 1 else next(iter(tensors))
        if name not in tensors:
            raise RunError(f"{path} holds {len(tensors)} tensors, none of them named 'embeddings'")
        kind, shape = tensors[name]["dtype"], tensors[name]["shape"]
        if len(shape) != 2 or kind not in SAFETENSORS:
            raise RunError(f"{path}: {name} is {kind} {shape}, expected a matrix of F16, F32 or F64")
        begin, end = tensors[name]["data_offsets"]
        rows, width = map(int, shape)
        dtype = SAFETENSORS[kind]
        if begin < 0 or end - begin != rows * width * dtype.itemsize or 8 + length + end > stamp(path)[1]:
            raise ValueError("its tensor does not fit the file")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as problem:
        raise RunError(
            f"{path} is not a readable .safetensors file: {problem}", hint="it may be cut off: write it again"
        ) from None
    yield Part(path, (rows, width), dtype, 8 + length + begin)


def _row_groups(path: Path) -> Iterator[Part]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            lists = [
                column
                for column in file.schema_arrow
                if isinstance(column.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType)
                and pa.types.is_floating(column.type.value_type)
            ]
            if len(lists) != 1:
                raise RunError(
                    f"{path} has {len(lists)} columns of lists of floats, expected one",
                    hint=f"its columns are: {', '.join(file.schema_arrow.names)}",
                )
            name, dtype = lists[0].name, np.dtype(lists[0].type.value_type.to_pandas_dtype())
            if isinstance(lists[0].type, pa.FixedSizeListType):
                width = lists[0].type.list_size
            else:
                first = next(file.iter_batches(1, columns=[name]), None)
                width = 0 if first is None else len(first.column(0).flatten())
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if rows * width * dtype.itemsize > GROUP:
                    raise RunError(
                        f"{path}: row group {group} has {rows:,} rows, which are decoded as a whole",
                        hint=f"write it with a row_group_size of at most {GROUP // (width * dtype.itemsize):,}",
                    )
                yield Part(path, (rows, width), dtype, (name, group))
    except (pa.ArrowException, OSError) as problem:
        raise RunError(
            f"{path} is not a readable .parquet file: {problem}", hint="it may be cut off: write it again"
        ) from None


def read_part(part: Part) -> Floats:
    """All rows of a part: a view of a new map, or what was decoded.

    Raises:
        RunError: it went, is damaged, or is not what it was when it was opened.
    """
    if part.path.suffix == ".parquet":
        return _read_group(part)
    if part.path.suffix == ".npy":
        array = np.asarray(load_npy(part.path, mmap=True, error=RunError))
    else:
        if stamp(part.path)[1] < part.where + math.prod(part.shape) * part.dtype.itemsize:
            raise RunError(f"{part.path} was cut off since it was opened", hint="start again")
        array = np.asarray(np.memmap(part.path, part.dtype, "r", part.where, part.shape))
    if array.shape != part.shape or array.dtype != part.dtype:
        raise RunError(f"{part.path} has changed since it was opened", hint="start again")
    return array


def _read_group(part: Part) -> Floats:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    name, group = part.where
    rows, width = part.shape
    try:
        with pq.ParquetFile(part.path, memory_map=True) as file:
            column = file.read_row_group(group, columns=[name]).column(0).combine_chunks()
    except (pa.ArrowException, OSError) as problem:
        raise RunError(f"{part.path}: row group {group} is damaged: {problem}") from None
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    values = column.flatten()
    if len(column) != rows or column.null_count or values.null_count or (lengths != width).any():
        raise RunError(f"{part.path}: row group {group} holds vectors of other lengths than {width}, or none")
    array: Floats = values.to_numpy(zero_copy_only=False).reshape(rows, width)
    return array


def stamp(path: Path) -> tuple[int, int, int]:
    """Inode, bytes and time of a file: it changes where the file does.

    Raises:
        RunError: it cannot be read.
    """
    try:
        found = path.stat()
    except OSError as problem:
        raise RunError(f"cannot read {path}: {problem.strerror}") from None
    return found.st_ino, found.st_size, found.st_mtime_ns


def sample(path: Path) -> str:
    """A hash of some of a file's bytes."""
    size, digest = stamp(path)[1], hashlib.sha256()
    with open(path, "rb") as file:
        for start in (0, size // 2, max(0, size - SAMPLE)):
            file.seek(start)
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:16]
