"""Counting in one piece of a tile of scores: the fast product where it decides, exact scores where it leaves a doubt."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.scoring.pairs import Pairs

__all__ = ["COLUMNS", "ROWS", "count_piece"]

ROWS, COLUMNS = 240, 2040
"""Of a piece at most: it fits the cache, and no 8-bit counter passes 255."""

Floats = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Two = tuple[IntArray, IntArray]


def count_piece(
    pairs: Pairs,
    best_row: Floats,
    best_column: Floats,
    scores: Floats,
    rows: slice,
    columns: slice,
    mask: npt.NDArray[np.bool_],
) -> Two:
    """(better, tied) of the rows, (2, n_rows), and of the columns, (2, n_columns), of one piece.

    Args:
        pairs: gives exact scores, and the error of those given.
        best_row, best_column: of the best positives of all rows and columns of `pairs`; inf where it is no query.
        scores: of the piece; -inf where a positive does not compete.
        rows, columns: of `pairs`, that the piece holds.
        mask: memory to work in, (ROWS, COLUMNS).
    """
    best_r, best_c = best_row[rows], best_column[columns]
    asked = np.flatnonzero(best_r < np.inf)  # most rows of a large gallery own no caption
    some = scores if len(asked) == len(best_r) else scores[asked]
    error_r, error_c = pairs.error(rows, columns, scores.dtype)
    low_r, high_r = _window(best_r, error_r, scores.dtype)
    low_c, high_c = _window(best_c, error_c, scores.dtype)
    by_row = np.zeros((2, len(best_r)), np.int64)
    above_r = _count_rows(some, np.greater, high_r[asked, None], mask)
    above_c = _count_columns(scores, np.greater, high_c, mask)
    near_r = _count_rows(some, np.greater_equal, low_r[asked, None], mask) - above_r
    near_c = _count_columns(scores, np.greater_equal, low_c, mask) - above_c
    if pairs.is_exact:
        by_row[:, asked] = above_r, near_r
        return by_row, np.stack([above_c, near_c])
    if scores.dtype == np.float32 and near_r.sum() + near_c.sum() > scores.size // 16:
        # float32 cannot tell these scores apart (a collapsed model, say): the same with finer windows.
        fine = np.empty(scores.shape)
        pairs.tile(rows, columns, fine.dtype, fine)
        fine[np.isneginf(scores)] = -np.inf
        return count_piece(pairs, best_row, best_column, fine, rows, columns, mask)
    i, j = _undecided(some, near_r, low_r[asked], high_r[asked])
    i = asked[i]
    by_row[:] = _decide(i, pairs.exact(rows.start + i, columns.start + j), best_r)
    j, i = _undecided(scores.T, near_c, low_c, high_c)
    by_column = _decide(j, pairs.exact(rows.start + i, columns.start + j), best_c)
    by_row[0, asked] += above_r
    by_column[0] += above_c
    return by_row, by_column


def _window(best: Floats, error: Floats, dtype: np.dtype[Any]) -> tuple[Floats, Floats]:
    # Below low a score surely loses, above high it surely wins. With no error both are the best itself.
    if not error.any():
        return best, best
    low, high = (best - error).astype(dtype), (best + error).astype(dtype)
    return np.nextafter(low, dtype.type(-np.inf)), np.nextafter(high, dtype.type(np.inf))


def _undecided(scores: Floats, near: IntArray, low: Floats, high: Floats) -> tuple[IntArray, IntArray]:
    # Places of the scores within their row's window.
    some = np.flatnonzero(near)
    part = scores[some]
    i, j = np.nonzero((part >= low[some, None]) & (part <= high[some, None]))
    return some[i], j


def _decide(query: IntArray, score: Floats, best: Floats) -> IntArray:
    n, own = len(best), best[query]
    return np.stack(
        [
            np.bincount(query[score > own], minlength=n),
            np.bincount(query[score == own], minlength=n),
        ]
    )


def _count_rows(scores: Floats, compare: np.ufunc, limit: Floats, mask: npt.NDArray[np.bool_]) -> IntArray:
    # True entries of each row: eight 8-bit counters side by side in one 64-bit sum.
    height, width = scores.shape
    if not height:
        return np.zeros(0, np.int64)
    mask = mask[:height, : -(-width // 8) * 8]
    mask[:, width:] = False
    compare(scores, limit, out=mask[:, :width])
    lanes = np.ascontiguousarray(mask).view(np.uint64).sum(axis=1)
    counts: IntArray = lanes.view(np.uint8).reshape(height, 8).sum(axis=1, dtype=np.int64)
    return counts


def _count_columns(scores: Floats, compare: np.ufunc, limit: Floats, mask: npt.NDArray[np.bool_]) -> IntArray:
    height, width = scores.shape
    mask = mask[:height, :width]
    compare(scores, limit, out=mask)
    counts: IntArray = np.add.reduce(mask.view(np.uint8), axis=0, dtype=np.uint8).astype(np.int64)
    return counts
