"""Embeddings in files, read a few rows at a time: one .npy, or a folder of shards in the order of their names.

A file is mapped for each read, and the map goes with what was read: memory does not grow with the file. Pickled, they
are the names of their files, which every worker opens for itself.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from tiir.errors import RunError
from tiir.io import atomic_write
from tiir.scoring.shard_files import Part, files_of, parts_of, read_part, sample, stamp

__all__ = ["ROWS", "Placed", "Shard", "Shards", "write_rows"]

Floats: TypeAlias = npt.NDArray[Any]
IntArray: TypeAlias = npt.NDArray[np.int64]

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
    parts: list[Part]
    chosen: IntArray | None = None  # which rows, where not all
    # The row group decoded last; what each file was when this process first read it.
    _group: tuple[int, Floats] | None = field(default=None, repr=False)
    _seen: dict[int, Any] = field(default_factory=dict, repr=False)

    ndim = 2

    def __post_init__(self) -> None:
        self.ends = np.cumsum([part.shape[0] for part in self.parts])
        n = int(self.ends[-1]) if self.chosen is None else len(self.chosen)
        self.shape, self.dtype = (n, self.parts[0].shape[1]), self.parts[0].dtype

    def __repr__(self) -> str:
        return f"Shards({self.path}: {self.shape[0]:,} x {self.shape[1]}, {self.dtype})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_group": None, "_seen": {}}

    @classmethod
    def open(cls, path: Path | str) -> Shards:
        """A .npy, .safetensors or .parquet file, or a folder of them.

        A .safetensors file holds one matrix, or one named `embeddings`; a .parquet file one column of lists of floats.

        Raises:
            RunError: nothing to read, a damaged file, widths or types that differ, names whose order is not that of
                their numbers.
        """
        path = Path(path).resolve()
        files = files_of(path)
        parts = [part for file in files for part in parts_of(file)]
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
        """The file behind a memory map of a whole .npy; anything else as it is, and a map whose file was replaced."""
        if not isinstance(array, np.memmap) or not isinstance(array.base, mmap.mmap) or array.mode != "r":
            return array
        path = Path(str(array.filename))
        if path.suffix != ".npy" or array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
            return array
        shards = cls(path, [Part(path, (int(array.shape[0]), int(array.shape[1])), array.dtype)])
        some = np.array([0, len(array) // 2, len(array) - 1])
        try:
            same = shards[some].tobytes() == array[some].tobytes()
        except RunError:
            return array
        return shards if same else array

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
        files = {file.name: file for file in files_of(path)}
        for name in sorted(then.keys() | files.keys()):
            if name not in files:
                raise RunError(f"{path / name} is not there any more", hint=hint)
            if name not in then:
                raise RunError(f"{files[name]} has come since the Run was made", hint="import again")
            if (stamp(files[name])[1], sample(files[name])) != (then[name].bytes, then[name].sample):
                raise RunError(f"{files[name]} has changed since the Run was made", hint=hint)
        return cls.open(path)

    def place(self) -> Placed:
        """What a Run keeps of these files."""
        rows: dict[Path, int] = {}
        for part in self.parts:
            rows[part.path] = rows.get(part.path, 0) + part.shape[0]
        shards = [
            Shard(name=file.name, bytes=stamp(file)[1], rows=n, sample=sample(file))
            for file, n in rows.items()
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
        now = stamp(part.path)
        if self._seen.setdefault(n, now) != now:
            raise RunError(f"{part.path} was changed while it was read", hint="start again")
        if part.path.suffix == ".parquet":
            if self._group is None or self._group[0] != n:
                self._group = None  # gone before the next one comes
                self._group = n, read_part(part)
            return self._group[1]
        return read_part(part)


def write_rows(path: Path, array: Floats | Shards, dtype: npt.DTypeLike) -> None:
    """Write a matrix as one .npy, atomically, a block of rows at a time."""
    dtype = np.dtype(dtype)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": array.shape}
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(array), ROWS):
            file.write(np.ascontiguousarray(array[start : start + ROWS], dtype).data)
