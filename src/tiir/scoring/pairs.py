"""Where scores come from: the exact score of any pair, and tiles of scores with a bound on their error.

A score matrix is exact as it stands. From embeddings the score of a pair is *defined* as the float64 dot product
of its two vectors, summed by one function that sees nothing but those two vectors. A matrix product is only an
approximation of it: its rounding depends on the tile's shape, the BLAS and the number of threads, so a positive
could lose to its own copy. Callers use a tile to rule out what lies further than `error` from a threshold, and
ask `exact` for the rest.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from tiir.errors import RanksError

if TYPE_CHECKING:
    from tiir.data.protocols import Gallery
    from tiir.scoring.run import Run

__all__ = ["Embeddings", "Matrix", "Pairs", "pairs_of"]

Floats: TypeAlias = npt.NDArray[Any]
IntArray: TypeAlias = npt.NDArray[np.int64]
Index: TypeAlias = "slice | IntArray"

CHUNK = 1 << 18  # numbers gathered at a time by `exact`: 2 MB in float64
MANY = 1 << 16  # so many pairs at once are worth a look for equal vectors


class Pairs(Protocol):
    """Scores of all (row, column) pairs, read piece by piece."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    is_exact: bool

    def tile(self, rows: Index, columns: Index, dtype: np.dtype[Any], out: Floats) -> Floats:
        """Scores of some rows against some columns, written over `out` (n_rows, n_columns)."""

    def error(self, rows: Index, columns: Index, dtype: np.dtype[Any]) -> tuple[Floats, Floats]:
        """Bounds on |tile - exact|: one for each row and one for each column of that tile."""

    def exact(self, rows: IntArray, columns: IntArray) -> Floats:
        """Scores of single pairs, (n_pairs,)."""

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

    @property
    def T(self) -> Matrix:
        """A view with rows and columns exchanged."""
        return Matrix(self.scores.T, self.columns, self.rows)


class Embeddings:
    """Dot products of two sets of vectors; the matrix of all of them never exists.

    Args:
        rows: float16, float32 or float64, (n_rows, d); may be memory-mapped.
        columns: the other side, (n_columns, d).
        names: what to call the two sides in errors.

    Raises:
        RanksError: not float matrices of one width, or a value that is NaN or infinite.
    """

    is_exact = False

    def __init__(
        self, rows: Floats, columns: Floats, names: tuple[str, str] = ("image_embeds", "text_embeds")
    ) -> None:
        self.names = names
        self.rows, self.columns = _floats(rows, names[0]), _floats(columns, names[1])
        if rows.shape[1] != columns.shape[1]:
            raise RanksError(
                f"{names[0]} have width {rows.shape[1]}, {names[1]} {columns.shape[1]}",
                hint="both must come from the same model",
            )
        self.shape = (len(rows), len(columns))
        self.norms = _norms(self.rows, names[0]), _norms(self.columns, names[1])
        norm = float(self.norms[0].max()), float(self.norms[1].max())
        if max(norm) > 1e150:
            raise RanksError(f"{names[0]} and {names[1]} are too long: up to {norm}", hint="normalise them")
        # Where float32 could overflow, tiles are float64.
        self.dtype = np.dtype(np.float64 if max(*norm, norm[0] * norm[1]) > 1e37 else np.float32)

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
            product *= self.columns[columns[part]]
            product.sum(axis=1, out=values[part])
        return values

    @cached_property
    def groups(self) -> tuple[IntArray, IntArray]:
        """For each row and each column, the first one that holds the same vector."""
        return _groups(self.rows), _groups(self.columns)

    @property
    def T(self) -> Embeddings:
        """The same pairs with the other side as rows."""
        return Embeddings(self.columns, self.rows, self.names[::-1])


def pairs_of(run: Run, gallery: Gallery | None = None) -> Pairs:
    """The scores of a Run, within a gallery or of the whole data set; of a cascade, those of its first stage."""
    images = np.arange(run.info.images) if gallery is None else gallery.images
    captions = np.arange(run.info.captions) if gallery is None else gallery.captions
    if run.scores is not None:
        return Matrix(run.scores, images, captions)
    assert run.image_embeds is not None
    assert run.text_embeds is not None
    return Embeddings(_take(run.image_embeds, images), _take(run.text_embeds, captions))


def _take(array: Floats, index: IntArray) -> Floats:
    return array if np.array_equal(index, np.arange(len(array))) else array[index]


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


def _norms(vectors: Floats, name: str) -> Floats:
    norms = np.empty(len(vectors))
    step = max(1, CHUNK // vectors.shape[1])
    for start in range(0, len(vectors), step):
        part = np.asarray(vectors[start : start + step])
        finite = np.isfinite(part)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise RanksError(
                f"{name}[{start + row}, {column}] is {part[row, column]}",
                hint="a model in half precision may have overflowed: score again in float32",
            )
        with np.errstate(over="ignore"):  # refused by the caller, as too long
            norms[start : start + step] = np.sqrt(np.square(part, dtype=np.float64).sum(axis=1))
    return norms


def _groups(vectors: Floats) -> IntArray:
    first: dict[bytes, int] = {}
    return np.fromiter((first.setdefault(v.tobytes(), i) for i, v in enumerate(vectors)), np.int64)


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
