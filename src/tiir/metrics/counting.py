"""Counting, tile by tile, the candidates that beat or tie with the best positive of every row and column.

The gallery is cut into bands of rows. What a band counts needs nothing of the others, and the counts add up: so the
bands are the pieces that an engine hands out, and a worker holds one band, one tile and the queries' thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.data.positives import Positives
from tiir.engine import Engine
from tiir.errors import RanksError
from tiir.metrics.pieces import COLUMNS, ROWS, count_piece
from tiir.scoring.pairs import Pairs

__all__ = ["BLOCK", "Bands", "count"]

BLOCK = 2040  # side of a tile of scores: 16 MB in float32
TALL, MANY = 8, 32  # tiles of a band, where there are many bands: a column is then read less often
FEW = 1 << 14  # positives scored at a time
PAIRS = 1 << 27  # a worker takes so many at a time: a second or so

Floats = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Three = tuple[IntArray, IntArray, IntArray]
Two = tuple[IntArray, IntArray]


def count(
    pairs: Pairs,
    i2t: Positives,
    t2i: Positives,
    rows: IntArray,
    columns: IntArray,
    block: int = BLOCK,
    engine: Engine | None = None,
) -> tuple[Three, Three]:
    """Count for the queries `rows` (images; relevant: `i2t`) and `columns` (captions; relevant: `t2i`).

    Args:
        engine: computes the bands; where None, this process does, one after another.

    Returns:
        For each direction (better, tied, tied_positives), int64, one entry a query: non-positives above its
        best positive, non-positives equal to it, positives equal to it (itself included).

    Raises:
        RanksError: a score that a query needs is NaN or infinite.
    """
    n_rows, n_columns = pairs.shape
    best_row, equal_row = _best(pairs, i2t, i2t.image, rows, n_rows)
    best_column, equal_column = _best(pairs, t2i, t2i.caption, columns, n_columns)
    if i2t is t2i:
        by_row, by_column = _count(pairs, i2t, best_row, best_column, block, engine)
    else:  # the directions disagree on what is relevant
        by_row, _ = _count(pairs, i2t, best_row, np.full_like(best_column, np.inf), block, engine)
        _, by_column = _count(pairs, t2i, np.full_like(best_row, np.inf), best_column, block, engine)
    return (
        (by_row[0][rows], by_row[1][rows], equal_row[rows]),
        (by_column[0][columns], by_column[1][columns], equal_column[columns]),
    )


def _best(
    pairs: Pairs, positives: Positives, side: IntArray, queries: IntArray, n: int
) -> tuple[Floats, IntArray]:
    # The score of each query's best positive (inf: not a query, nothing beats it), and how many reach it.
    asked = np.zeros(n, bool)
    asked[queries] = True
    keep = asked[side]
    side, row, column = side[keep], positives.image[keep], positives.caption[keep]
    # Not all at once: `exact` would look through both sides for equal vectors, which positives rarely have.
    parts = [slice(start, start + FEW) for start in range(0, max(1, len(row)), FEW)]
    scores = np.concatenate([pairs.exact(row[part], column[part]) for part in parts])
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise _not_finite(scores[bad[0]], row[bad[0]], column[bad[0]])
    best = np.where(asked, -np.inf, np.inf).astype(scores.dtype)
    np.maximum.at(best, side, scores)
    return best, np.bincount(side[scores == best[side]], minlength=n)


def _count(
    pairs: Pairs,
    positives: Positives,
    best_row: Floats,
    best_column: Floats,
    block: int,
    engine: Engine | None,
) -> Two:
    # (better, tied) of every row, (2, n_rows), and of every column, (2, n_columns).
    n_rows, n_columns = pairs.shape
    tall = min(TALL, max(1, n_rows // (MANY * block)))
    asked = np.flatnonzero(best_row < np.inf)
    job = Bands(pairs, positives, asked, best_row[asked], best_column, block, tall * block)
    found_row, by_column = np.zeros((2, len(asked)), np.int64), np.zeros((2, n_columns), np.int64)

    def put(n: int, counts: Two) -> None:
        found_row[:, job.queries(n)] += counts[0]
        np.add(by_column, counts[1], out=by_column)

    numbers = range(-(-n_rows // job.height))
    if engine is None:
        for n, counts in job.results(numbers):
            put(n, counts)
    else:
        weights = [min(job.height, n_rows - n * job.height) * n_columns for n in numbers]
        engine.run(job, numbers, put, weights=weights, unit="pairs", description="ranking")
        parts = engine.gathered((found_row, by_column))
        found_row, by_column = (sum(side[1:], start=side[0]) for side in zip(*parts, strict=True))
    by_row = np.zeros((2, n_rows), np.int64)
    by_row[:, asked] = found_row
    return by_row, by_column


@dataclass(eq=False)
class Bands:
    """The counts of one band of rows after another, each against all columns: a job for an engine.

    Args:
        pairs: all scores.
        positives: pairs that do not compete.
        rows: that are queries, ascending, (n_asked,).
        best_row: score of the best positive of each of them.
        best_column: the same of every column; inf where it is no query, (n_columns,).
        block: side of a tile.
        height: of a band.
    """

    pairs: Pairs
    positives: Positives
    rows: IntArray
    best_row: Floats
    best_column: Floats
    block: int
    height: int

    def __post_init__(self) -> None:
        self.chunk = max(1, PAIRS // (self.height * self.pairs.shape[1]))

    def queries(self, n: int) -> slice:
        """Which of `rows` lie in a band."""
        first, last = np.searchsorted(self.rows, [n * self.height, (n + 1) * self.height])
        return slice(int(first), int(last))

    def to(self, device: str) -> None:
        """Nothing: counting is done on the CPU."""

    def results(self, numbers: Sequence[int]) -> Iterator[tuple[int, Two]]:
        """(better, tied) of the queries among a band's rows, (2, n), and of all columns, (2, n_columns)."""
        for n in numbers:
            yield n, self._band(n)

    def _band(self, n: int) -> Two:
        n_rows, n_columns = self.pairs.shape
        top = n * self.height
        height = min(self.height, n_rows - top)
        first, last = np.searchsorted(self.positives.image, [top, top + height])
        image, caption = self.positives.image[first:last] - top, self.positives.caption[first:last]
        queries = self.queries(n)
        best_row = np.full(height, np.inf, self.best_row.dtype)
        best_row[self.rows[queries] - top] = self.best_row[queries]
        by_row, by_column = np.zeros((2, height), np.int64), np.zeros((2, n_columns), np.int64)
        band = self.pairs.part(rows=slice(top, top + height))
        for left in range(0, n_columns, self.block):
            width = min(self.block, n_columns - left)
            across = slice(left, left + width)
            part, best_column = band.part(columns=across), self.best_column[across]
            for low in range(0, height, self.block):
                down = slice(low, min(low + self.block, height))
                tile = self._tile(part, down, width)
                if part.is_exact:
                    _check(tile, best_row[down], best_column, top + low, left)
                inside = (caption >= left) & (caption < left + width) & (image >= low) & (image < down.stop)
                tile[image[inside] - low, caption[inside] - left] = -np.inf  # positives do not compete
                for a in range(0, len(tile), ROWS):
                    for b in range(0, width, COLUMNS):
                        piece = tile[a : a + ROWS, b : b + COLUMNS]
                        rows = slice(low + a, low + a + len(piece))
                        columns = slice(b, b + piece.shape[1])
                        row, column = count_piece(
                            part, best_row, best_column, piece, rows, columns, self._mask
                        )
                        by_row[:, rows] += row
                        by_column[:, left + columns.start : left + columns.stop] += column
        return by_row[:, self.rows[queries] - top], by_column

    def _tile(self, part: Pairs, rows: slice, width: int) -> Floats:
        height = rows.stop - rows.start
        out = self._buffer[: height * width * part.dtype.itemsize].view(part.dtype).reshape(height, width)
        return part.tile(rows, slice(0, width), part.dtype, out)

    @cached_property
    def _buffer(self) -> npt.NDArray[np.uint8]:
        # Of every tile; one in float64, which is rare, takes all of it.
        n_rows, n_columns = self.pairs.shape
        return np.empty(8 * min(self.block, n_rows) * min(self.block, n_columns), np.uint8)

    @cached_property
    def _mask(self) -> npt.NDArray[np.bool_]:
        return np.empty((ROWS, COLUMNS), bool)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}


def _check(tile: Floats, best_row: Floats, best_column: Floats, top: int, left: int) -> None:
    # `best_row` and `best_column` are those of the tile, which begins at (top, left).
    finite = np.isfinite(tile)
    if finite.all():
        return
    asked = np.isfinite(best_row[:, None]) | np.isfinite(best_column)
    bad = np.argwhere(~finite & asked)
    if len(bad):
        i, j = bad[0]
        raise _not_finite(tile[i, j], top + i, left + j)


def _not_finite(value: Any, row: int, column: int) -> RanksError:
    return RanksError(
        f"the score of image {row} and caption {column} is {value}, and a query needs it",
        hint="NaN means not scored: score every pair of the protocol; infinite scores have no rank",
    )
