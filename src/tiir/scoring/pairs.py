"""Where scores come from: the exact score of any pair, and tiles of scores with a bound on their error.

A score matrix is exact as it stands; of embeddings, `tiir.scoring.embeddings` says what is exact. Callers use a tile to
rule out what lies further than `error` from a threshold, and ask `exact` for the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tiir.errors import RanksError
from tiir.io import load_npy
from tiir.scoring.embeddings import Embeddings, Floats, Index, IntArray, Vectors, as_floats
from tiir.scoring.shards import Shards

if TYPE_CHECKING:
    from tiir.data.protocols import Gallery
    from tiir.scoring.run import Run

__all__ = ["Matrix", "Pairs", "pairs_of"]


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
        self.scores = as_floats(scores, "scores")
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


def _file_of(array: Floats) -> Path | None:
    shards = Shards.of(array)
    return shards.path if isinstance(shards, Shards) else None


def _as_slice(index: IntArray) -> Index:
    # Neighbouring positions as a slice: numpy then makes a view instead of a gather.
    if len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index
