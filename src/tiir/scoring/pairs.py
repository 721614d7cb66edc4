"""Where scores come from: the exact score of any pair, and tiles of scores with a bound on their error.

A score matrix is exact as it stands. From embeddings the score of a pair is *defined* as the float64 dot product
of its two vectors, summed by one function that sees nothing but those two vectors. A matrix product is only an
approximation of it: its rounding depends on the tile's shape, the BLAS and the number of threads, so a positive
could lose to its own copy. Callers use a tile to rule out what lies further than `error` from a threshold, and
ask `exact` for the rest.
"""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from tiir.errors import RanksError
from tiir.io import load_npy
from tiir.scoring.shards import ROWS, Shards

if TYPE_CHECKING:
    from tiir.data.protocols import Gallery
    from tiir.scoring.run import Run

__all__ = ["Embeddings", "Matrix", "Pairs", "Vectors", "pairs_of"]

Floats: TypeAlias = npt.NDArray[Any]
Vectors: TypeAlias = "Floats | Shards"
IntArray: TypeAlias = npt.NDArray[np.int64]
Index: TypeAlias = "slice | IntArray"

CHUNK = 1 << 18  # numbers gathered at a time by `exact`: 2 MB in float64
MANY = 1 << 16  # so many pairs at once are worth a look for equal vectors


class Pairs(Protocol):
    """Scores of all (row, column) pairs, read piece by piece."""

    shape: tuple[int, int]
    is_exact: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of tiles."""

    def tile(self, rows: Index, columns: Index, dtype: np.dtype[Any], out: Floats) -> Floats:
        """Scores of some rows against some columns, written over `out` (n_rows, n_columns)."""

    def error(self, rows: Index, columns: Index, dtype: np.dtype[Any]) -> tuple[Floats, Floats]:
        """Bounds on |tile - exact|: one for each row and one for each column of that tile."""

    def exact(self, rows: IntArray, columns: IntArray) -> Floats:
        """Scores of single pairs, (n_pairs,)."""

    def part(self, rows: slice | None = None, columns: slice | None = None) -> Pairs:
        """The pairs of some rows and columns, with what they take in memory, numbered from 0."""

    @property
    def T(self) -> Pairs:
        """The same pairs, rows and columns exchanged."""


class Matrix:
    """A score matrix, or a part of it, compared exactly as given and never copied as a whole.

    Args:
        scores: float16, float32 or float64, (n_rows, n_columns); may be memory-mapped.
        rows, columns: positions of the part that counts, in its order; all where None.

    Raises:
        RanksError: not a matrix of floats.
    """

    is_exact = True

    def __init__(self, scores: Floats, rows: IntArray | None = None, columns: IntArray | None = None) -> None:
        self.scores = _floats(scores, "scores")
        self.rows = np.arange(scores.shape[0]) if rows is None else rows
        self.columns = np.arange(scores.shape[1]) if columns is None else columns
        self.shape = (len(self.rows), len(self.columns))
        # float16 is compared as float32: the same numbers, and numpy has no fast float16 loops.
        self.dtype = np.dtype(np.float64 if scores.dtype.itemsize == 8 else np.float32)

    def tile(self, rows: Index, columns: Index, dtype: np.dtype[Any], out: Floats) -> Floats:
        """Copy a part into `out`."""
        r, c = _as_slice(self.rows[rows]), _as_slice(self.columns[columns])
        if isinstance(c, slice):
            out[...] = self.scores[:, c][r]
        elif isinstance(r, slice):
            out[...] = self.scores[r][:, c]
        else:
            out[...] = self.scores[np.ix_(r, c)]
        return out

    def error(self, rows: Index, columns: Index, dtype: np.dtype[Any]) -> tuple[Floats, Floats]:
        """Nothing: the numbers are what they are."""
        return np.zeros(1), np.zeros(1)

    def exact(self, rows: IntArray, columns: IntArray) -> Floats:
        """The entries at these places."""
        values: Floats = np.asarray(self.scores[self.rows[rows], self.columns[columns]], self.dtype)
        return values

    def part(self, rows: slice | None = None, columns: slice | None = None) -> Matrix:
        """A view of a part; nothing is copied."""
        return Matrix(self.scores, self.rows[rows or slice(None)], self.columns[columns or slice(None)])

    @property
    def T(self) -> Matrix:
        """A view with rows and columns exchanged."""
        return Matrix(self.scores.T, self.columns, self.rows)

    def __getstate__(self) -> dict[str, Any]:
        # To another process goes the name of the file, where there is one.
        return self.__dict__ | {"scores": _file_of(self.scores) or self.scores}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if isinstance(self.scores, Path):
            self.scores = load_npy(self.scores, mmap=True, error=RanksError)


class Embeddings:
    """Dot products of two sets of vectors; the matrix of all of them never exists.

    Vectors are read where they are needed, and checked and measured as they are read.

    Args:
        rows: float16, float32 or float64, (n_rows, d); may lie in files.
        columns: the other side, (n_columns, d).
        names: what to call the two sides in errors.
        starts: positions of the first row and column in what the errors name.
        known: lengths of the rows and of the columns, float64, where they are known.

    Raises:
        RanksError: not float matrices of one width; as soon as they are read, a value that is NaN or infinite.
    """

    is_exact = False
    starts = (0, 0)
    known: tuple[Floats | None, Floats | None] = (None, None)

    def __init__(
        self,
        rows: Vectors,
        columns: Vectors,
        names: tuple[str, str] = ("image_embeds", "text_embeds"),
        starts: tuple[int, int] = (0, 0),
        known: tuple[Floats | None, Floats | None] = (None, None),
    ) -> None:
        self.names, self.starts, self.known = names, starts, known
        self.rows, self.columns = _vectors(rows, names[0]), _vectors(columns, names[1])
        if rows.shape[1] != columns.shape[1]:
            raise RanksError(
                f"{names[0]} have width {rows.shape[1]}, {names[1]} {columns.shape[1]}",
                hint="both must come from the same model",
            )
        self.shape = (len(rows), len(columns))

    @cached_property
    def norms(self) -> tuple[Floats, Floats]:
        """Lengths of the rows and of the columns, float64; all of them are read, unless they are known."""
        return self._lengths(0), self._column_lengths

    @cached_property
    def _column_lengths(self) -> Floats:
        return self._lengths(1)

    def _lengths(self, side: int) -> Floats:
        known = self.known[side]
        vectors = self.columns if side else self.rows
        return _norms(vectors, self.names[side], self.starts[side]) if known is None else known

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of tiles: float64 where float32 could overflow."""
        a, b = float(self.norms[0].max()), float(self.norms[1].max())
        return np.dtype(np.float64 if max(a, b, a * b) > 1e37 else np.float32)

    def tile(self, rows: Index, columns: Index, dtype: np.dtype[Any], out: Floats) -> Floats:
        """A matrix product in `dtype`."""
        a, b = np.asarray(self.rows[rows], dtype), np.asarray(self.columns[columns], dtype)
        return np.matmul(a, b.T, out=out)

    def error(self, rows: Index, columns: Index, dtype: np.dtype[Any]) -> tuple[Floats, Floats]:
        """The worst rounding of a d-term dot product, in any order of summation.

        Each of product, sum and conversion is off by at most eps / 2 of |a||b|, or by a flushed denormal
        (N. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); the margin is twofold.
        """
        a, b = self.norms[0][rows], self.norms[1][columns]
        terms, kind = self.rows.shape[1] + 8, np.finfo(dtype)

        def bound(x: Floats, y: Floats) -> Floats:
            worst: Floats = terms * (float(kind.eps) * x * y + float(kind.tiny) * (1 + x) * (1 + y))
            return worst

        return bound(a, b.max()), bound(b, a.max())

    def exact(self, rows: IntArray, columns: IntArray) -> Floats:
        """Float64 dot products, pair by pair; equal vectors give equal scores whatever surrounds them."""
        if len(rows) > MANY:
            (row, rows), (column, columns) = (
                _distinct(groups[index]) for groups, index in zip(self.groups, (rows, columns), strict=True)
            )
            if len(row) * len(column) <= MANY:
                grid = np.repeat(row, len(column)), np.tile(column, len(row))
                table: Floats = self.exact(*grid).reshape(len(row), len(column))
                return table[rows, columns]
            rows, columns = row[rows], column[columns]
        values = np.empty(len(rows))
        step = max(1, CHUNK // self.rows.shape[1])
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            product = self.rows[rows[part]].astype(np.float64)  # (step, d)
            with np.errstate(over="ignore", invalid="ignore"):
                product *= self.columns[columns[part]]
                product.sum(axis=1, out=values[part])
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            self._blame(int(rows[bad[0]]), int(columns[bad[0]]))
        return values

    @cached_property
    def groups(self) -> tuple[IntArray, IntArray]:
        """For each row and each column, the first one that holds the same vector."""
        return _groups(self.rows), _groups(self.columns)

    def part(self, rows: slice | None = None, columns: slice | None = None) -> Embeddings:
        """Some rows, or columns, their vectors in memory, checked and measured once.

        Where rows are asked for, all columns are measured, so that parts of the part need not be.
        """
        known = self.known if rows is None else (self.known[0], self._column_lengths)
        sides = [
            _held(vectors, name, start, lengths, place)
            for vectors, name, start, lengths, place in zip(
                (self.rows, self.columns), self.names, self.starts, known, (rows, columns), strict=True
            )
        ]
        (a, start_a, known_a), (b, start_b, known_b) = sides
        return Embeddings(a, b, self.names, (start_a, start_b), (known_a, known_b))

    @property
    def T(self) -> Embeddings:
        """The same pairs with the other side as rows."""
        known = self.__dict__.get("norms", self.known)
        return Embeddings(self.columns, self.rows, self.names[::-1], self.starts[::-1], known[::-1])

    def _blame(self, row: int, column: int) -> None:
        for vectors, name, start, n in zip(
            (self.rows, self.columns), self.names, self.starts, (row, column), strict=True
        ):
            _norms(vectors[n : n + 1], name, start + n)
        raise RanksError(
            f"the score of {self.names[0]}[{self.starts[0] + row}] and {self.names[1]}[{self.starts[1] + column}] "
            "is beyond float64",
            hint="normalise them",
        )


def pairs_of(run: Run, gallery: Gallery | None = None) -> Pairs:
    """The scores of a Run, within a gallery or of the whole data set; of a cascade, those of its first stage."""
    images = np.arange(run.info.images) if gallery is None else gallery.images
    captions = np.arange(run.info.captions) if gallery is None else gallery.captions
    if run.scores is not None:
        return Matrix(run.scores, images, captions)
    assert run.image_embeds is not None
    assert run.text_embeds is not None
    return Embeddings(_take(run.image_embeds, images), _take(run.text_embeds, captions))


def _take(array: Vectors, index: IntArray) -> Vectors:
    array = Shards.of(array)
    if len(index) == len(array) and np.array_equal(index, np.arange(len(array))):
        return array
    return array.select(index) if isinstance(array, Shards) else array[index]


def _held(
    vectors: Vectors, name: str, start: int, known: Floats | None, place: slice | None
) -> tuple[Vectors, int, Floats | None]:
    if place is None:
        return vectors, start, known
    held = vectors[place]
    # float16 loses nothing, and is converted once rather than for every tile.
    held = np.asarray(held, np.float32) if held.dtype.itemsize == 2 else np.asarray(held)
    start += place.start
    return held, start, _norms(held, name, start) if known is None else known[place]


def _file_of(array: Floats) -> Path | None:
    shards = Shards.of(array)
    return shards.path if isinstance(shards, Shards) else None


def _vectors(array: Vectors, name: str) -> Vectors:
    if not isinstance(array, Shards):
        return Shards.of(_floats(array, name))
    return array


def _floats(array: Floats, name: str) -> Floats:
    if not isinstance(array, np.ndarray) or array.ndim != 2:
        raise RanksError(f"{name} must be a 2-d numpy array, got {getattr(array, 'shape', type(array))}")
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise RanksError(
            f"{name} are {array.dtype}, expected float16, float32 or float64",
            hint="give the scores or embeddings themselves, not labels, ranks or hits",
        )
    if 0 in array.shape:
        raise RanksError(f"{name} are empty: {array.shape}")
    return array


def _norms(vectors: Vectors, name: str, first: int = 0) -> Floats:
    norms = np.empty(len(vectors))
    step = max(1, CHUNK // vectors.shape[1])
    for start in range(0, len(vectors), step):
        part = np.asarray(vectors[start : start + step])
        finite = np.isfinite(part)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise RanksError(
                f"{name}[{first + start + row}, {column}] is {part[row, column]}",
                hint="a model in half precision may have overflowed: score again in float32",
            )
        with np.errstate(over="ignore"):  # refused as too long
            norms[start : start + step] = np.sqrt(np.square(part, dtype=np.float64).sum(axis=1))
    longest = int(np.argmax(norms))
    if norms[longest] > 1e150:
        raise RanksError(
            f"{name} are too long: {name}[{first + longest}] has length {norms[longest]:.3g}",
            hint="normalise them",
        )
    return norms


def _groups(vectors: Vectors) -> IntArray:
    first: dict[bytes, int] = {}  # by digest: a dictionary of all vectors would hold them all
    found = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), ROWS):
        for i, vector in enumerate(vectors[start : start + ROWS], start):
            found[i] = first.setdefault(blake2b(vector.tobytes(), digest_size=16).digest(), i)
    return found


def _distinct(index: IntArray) -> tuple[IntArray, IntArray]:
    # As np.unique(index, return_inverse=True), for small non-negative integers, without sorting.
    values = np.flatnonzero(np.bincount(index))
    place = np.zeros(values[-1] + 1, np.int64)
    place[values] = np.arange(len(values))
    return values, place[index]


def _as_slice(index: IntArray) -> Index:
    # Neighbouring positions as a slice: numpy then makes a view instead of a gather.
    if len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index
