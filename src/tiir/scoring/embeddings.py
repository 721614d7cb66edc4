"""Scores of embeddings: dot products, exact for any pair, and within a known error for a tile of them.

The score of a pair is *defined* as the float64 dot product of its two vectors, summed by one function that sees nothing
but those two vectors. A matrix product is only an approximation of it: its rounding depends on the tile's shape, the
BLAS and the number of threads, so a positive could lose to its own copy.
"""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tiir.errors import RanksError
from tiir.scoring.shards import ROWS, Shards

__all__ = ["Embeddings", "Floats", "Index", "IntArray", "Vectors", "as_floats"]

Floats: TypeAlias = npt.NDArray[Any]
Vectors: TypeAlias = "Floats | Shards"
IntArray: TypeAlias = npt.NDArray[np.int64]
Index: TypeAlias = "slice | IntArray"

CHUNK = 1 << 18  # numbers gathered at a time by `exact`: 2 MB in float64
MANY = 1 << 16  # so many pairs at once are worth a look for equal vectors


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


def _vectors(array: Vectors, name: str) -> Vectors:
    if not isinstance(array, Shards):
        return Shards.of(as_floats(array, name))
    return array


def as_floats(array: Floats, name: str) -> Floats:
    """The matrix, once it is known to be one of floats and not empty.

    Raises:
        RanksError: it is not.
    """
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
