"""Embeddings in files, read a few rows at a time: one .npy, or a folder of shards in the order of their names.

A file is mapped for each read, and the map goes with what was read: memory does not grow with the file. Pickled, they
are the names of their files, which every worker opens for itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from tiir.errors import RunError
from tiir.io import atomic_write, load_npy

__all__ = ["ROWS", "Placed", "Shard", "Shards", "write_rows"]

Floats: TypeAlias = npt.NDArray[Any]
IntArray: TypeAlias = npt.NDArray[np.int64]

SUFFIXES = (".npy", ".safetensors", ".parquet")
SAFETENSORS: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
GROUP = 1 << 28  # bytes: a row group is decoded as a whole
SAMPLE = 1 << 12  # bytes at the start, in the middle and at the end tell a file from another of its size
ROWS = 1 << 14  # copied at a time


class Shard(BaseModel):
    """What a Run keeps of a file that lies elsewhere, so that another one in its place is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    bytes: int
    rows: int
    sample: str


class Placed(BaseModel):
    """Where one side's embeddings lie, and what the files were when the Run was made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    shards: list[Shard]


@dataclass
class _Part:
    # Rows that are read together: a file, or one row group of a Parquet file.
    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    where: Any = None  # .safetensors: offset in the file; .parquet: column and row group


@dataclass(eq=False)
class Shards:
    """A matrix of embeddings in files: `shape`, `dtype`, `len`, and `[slice or positions]`, which reads rows.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for n, rows in enumerate([[[0, 1], [2, 3]], [[4, 5]]]):
        ...     np.save(folder / f"part-{n}.npy", np.array(rows, np.float16))
        >>> shards = Shards.open(folder)
        >>> shards.shape, str(shards.dtype), shards[1:].tolist(), shards[np.array([2, 0])].tolist()
        ((3, 2), 'float16', [[2.0, 3.0], [4.0, 5.0]], [[4.0, 5.0], [0.0, 1.0]])
    """

    path: Path
    parts: list[_Part]
    chosen: IntArray | None = None  # which rows, where not all
    _group: tuple[int, Floats] | None = field(default=None, repr=False)  # decoded last

    ndim = 2

    def __post_init__(self) -> None:
        self.ends = np.cumsum([part.shape[0] for part in self.parts])
        n = int(self.ends[-1]) if self.chosen is None else len(self.chosen)
        self.shape, self.dtype = (n, self.parts[0].shape[1]), self.parts[0].dtype

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_group": None}

    @classmethod
    def open(cls, path: Path | str) -> Shards:
        """A .npy, .safetensors or .parquet file, or a folder of them.

        A .safetensors file holds one matrix, or one named `embeddings`; a .parquet file one column of lists of floats.

        Raises:
            RunError: nothing to read, a damaged file, widths or types that differ, names whose order is not that of
                their numbers.
        """
        path = Path(path).resolve()
        files = _files(path)
        parts = [part for file in files for part in _parts(file)]
        first = parts[0]
        for part in parts:
            if part.shape[1] != first.shape[1] or part.dtype != first.dtype:
                raise RunError(
                    f"{part.path} holds {part.dtype} vectors of width {part.shape[1]}, {first.path.name} "
                    f"{first.dtype} of width {first.shape[1]}",
                    hint="all shards must come from the same model",
                )
        return cls(path, parts)

    @classmethod
    def of(cls, array: Floats | Shards) -> Floats | Shards:
        """The file behind a memory map of a whole .npy; anything else as it is."""
        if not isinstance(array, np.memmap) or not isinstance(array.base, mmap.mmap) or array.mode != "r":
            return array
        path = Path(str(array.filename))
        if path.suffix != ".npy" or array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
            return array
        return cls(path, [_Part(path, (int(array.shape[0]), int(array.shape[1])), array.dtype)])

    @classmethod
    def placed(cls, placed: Placed) -> Shards:
        """The files that a Run names, if they are still those it was made of.

        Raises:
            RunError: a file has changed, went, or was added.
        """
        path = Path(placed.path)
        hint = "put it back, or import the embeddings again"
        if not path.exists():
            raise RunError(f"{path} is not there any more", hint=hint)
        then = {shard.name: shard for shard in placed.shards}
        files = {file.name: file for file in _files(path)}
        for name in sorted(then.keys() | files.keys()):
            if name not in files:
                raise RunError(f"{path / name} is not there any more", hint=hint)
            if name not in then:
                raise RunError(f"{files[name]} has come since the Run was made", hint="import again")
            if (_size(files[name]), _sample(files[name])) != (then[name].bytes, then[name].sample):
                raise RunError(f"{files[name]} has changed since the Run was made", hint=hint)
        return cls.open(path)

    def place(self) -> Placed:
        """What a Run keeps of these files."""
        rows: dict[Path, int] = {}
        for part in self.parts:
            rows[part.path] = rows.get(part.path, 0) + part.shape[0]
        shards = [
            Shard(name=file.name, bytes=_size(file), rows=n, sample=_sample(file)) for file, n in rows.items()
        ]
        return Placed(path=str(self.path), shards=shards)

    def select(self, rows: IntArray) -> Shards:
        """Some rows, in this order; nothing is read."""
        return Shards(self.path, self.parts, rows if self.chosen is None else self.chosen[rows])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | npt.ArrayLike) -> Floats:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1 and self.chosen is None:
                return self._span(start, max(start, stop))
            key = np.arange(start, stop, step)
        index = np.asarray(key)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        elif index.dtype.kind not in "iu" and index.size:
            raise IndexError(f"rows are read by slice or positions, not by {index.dtype}")
        if index.ndim == 0:
            row: Floats = self[index[None]][0]
            return row
        index = np.where(index < 0, index + len(self), index).astype(np.int64)
        if len(index) and not 0 <= index.min() <= index.max() < len(self):
            raise IndexError(f"a row outside the {len(self)} there are")
        return self._gather(index if self.chosen is None else self.chosen[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        return np.asarray(self[:], dtype)

    def _span(self, start: int, stop: int) -> Floats:
        found = []
        first, last = np.searchsorted(self.ends, [start, stop - 1], side="right")
        for n in range(first, last + 1):
            before = int(self.ends[n]) - self.parts[n].shape[0]
            found.append(self._read(n)[max(0, start - before) : stop - before])
        if not found:
            return np.empty((0, self.shape[1]), self.dtype)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _gather(self, index: IntArray) -> Floats:
        out = np.empty((len(index), self.shape[1]), self.dtype)
        number = np.searchsorted(self.ends, index, side="right")
        for n in np.unique(number):
            here = number == n
            out[here] = self._read(n)[index[here] - (self.ends[n] - self.parts[n].shape[0])]
        return out

    def _read(self, n: int) -> Floats:
        part = self.parts[n]
        if part.path.suffix == ".parquet":
            if self._group is None or self._group[0] != n:
                self._group = None  # gone before the next one comes
                self._group = n, _read_group(part)
            return self._group[1]
        if part.path.suffix == ".npy":
            array = np.asarray(load_npy(part.path, mmap=True, error=RunError))
        else:
            if _size(part.path) < part.where + math.prod(part.shape) * part.dtype.itemsize:
                raise RunError(f"{part.path} was cut off while it was read")
            array = np.asarray(np.memmap(part.path, part.dtype, "r", part.where, part.shape))
        if array.shape != part.shape or array.dtype != part.dtype:
            raise RunError(f"{part.path} was changed while it was read", hint="start again")
        return array


def write_rows(path: Path, array: Floats | Shards, dtype: npt.DTypeLike) -> None:
    """Write a matrix as one .npy, atomically, a block of rows at a time."""
    dtype = np.dtype(dtype)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": array.shape}
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(array), ROWS):
            file.write(np.ascontiguousarray(array[start : start + ROWS], dtype).data)


def _files(path: Path) -> list[Path]:
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


def _parts(path: Path) -> list[_Part]:
    if path.suffix == ".npy":
        array = load_npy(path, mmap=True, error=RunError)
        if array.ndim != 2 or array.dtype.kind != "f":
            raise RunError(f"{path} holds {array.dtype} {array.shape}, expected a float matrix")
        found = [_Part(path, (int(array.shape[0]), int(array.shape[1])), array.dtype)]
    else:
        found = list(_safetensors(path) if path.suffix == ".safetensors" else _row_groups(path))
    if not found or any(0 in part.shape for part in found):
        raise RunError(f"{path} holds no vectors")
    return found


def _safetensors(path: Path) -> Iterator[_Part]:
    # The header is JSON behind its own length, 8 bytes; offsets count from its end.
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(_size(path) - 8, 1 << 27):
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
        if begin < 0 or end - begin != rows * width * dtype.itemsize or 8 + length + end > _size(path):
            raise ValueError("its tensor does not fit the file")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as problem:
        raise RunError(
            f"{path} is not a readable .safetensors file: {problem}", hint="it may be cut off: write it again"
        ) from None
    yield _Part(path, (rows, width), dtype, 8 + length + begin)


def _row_groups(path: Path) -> Iterator[_Part]:
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
                yield _Part(path, (rows, width), dtype, (name, group))
    except (pa.ArrowException, OSError) as problem:
        raise RunError(
            f"{path} is not a readable .parquet file: {problem}", hint="it may be cut off: write it again"
        ) from None


def _read_group(part: _Part) -> Floats:
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


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as problem:
        raise RunError(f"cannot read {path}: {problem.strerror}") from None


def _sample(path: Path) -> str:
    size, digest = _size(path), hashlib.sha256()
    with open(path, "rb") as file:
        for start in (0, size // 2, max(0, size - SAMPLE)):
            file.seek(start)
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:16]
