"""Counting, tile by tile, the candidates that beat or tie with the best positive of every row and column."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.data.positives import Positives
from tiir.errors import RanksError
from tiir.scoring.pairs import Pairs

__all__ = ["BLOCK", "count"]

BLOCK = 2040  # side of a tile of scores: 16 MB in float32
ROWS, COLUMNS = 240, 2040  # counted at a time: fits the cache, and no 8-bit counter passes 255

Floats = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Three = tuple[IntArray, IntArray, IntArray]


def count(
    pairs: Pairs, i2t: Positives, t2i: Positives, rows: IntArray, columns: IntArray, block: int = BLOCK
) -> tuple[Three, Three]:
    """Count for the queries `rows` (images; relevant: `i2t`) and `columns` (captions; relevant: `t2i`).

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
        by_row, by_column = _count(pairs, i2t, best_row, best_column, block)
    else:  # the directions disagree on what is relevant
        by_row, _ = _count(pairs, i2t, best_row, np.full_like(best_column, np.inf), block)
        _, by_column = _count(pairs, t2i, np.full_like(best_row, np.inf), best_column, block)
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
    scores = pairs.exact(row, column)
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise _not_finite(scores[bad[0]], row[bad[0]], column[bad[0]])
    best = np.where(asked, -np.inf, np.inf).astype(scores.dtype)
    np.maximum.at(best, side, scores)
    return best, np.bincount(side[scores == best[side]], minlength=n)


def _count(
    pairs: Pairs, positives: Positives, best_row: Floats, best_column: Floats, block: int
) -> tuple[IntArray, IntArray]:
    # (better, tied) of every row, (2, n_rows), and of every column, (2, n_columns).
    n_rows, n_columns = pairs.shape
    by_row, by_column = np.zeros((2, n_rows), np.int64), np.zeros((2, n_columns), np.int64)
    buffer = np.empty(min(block, n_rows) * min(block, n_columns), pairs.dtype)
    mask = np.empty((ROWS, COLUMNS), bool)
    for top in range(0, n_rows, block):
        height = min(block, n_rows - top)
        first, last = np.searchsorted(positives.image, [top, top + height])
        image, caption = positives.image[first:last] - top, positives.caption[first:last]
        for left in range(0, n_columns, block):
            width = min(block, n_columns - left)
            out = buffer[: height * width].reshape(height, width)
            tile = pairs.tile(slice(top, top + height), slice(left, left + width), pairs.dtype, out)
            if pairs.is_exact:
                _check(tile, best_row, best_column, top, left)
            inside = (caption >= left) & (caption < left + width)
            tile[image[inside], caption[inside] - left] = -np.inf  # positives do not compete
            for a in range(0, height, ROWS):
                for b in range(0, width, COLUMNS):
                    piece = tile[a : a + ROWS, b : b + COLUMNS]
                    rows = slice(top + a, top + a + len(piece))
                    columns = slice(left + b, left + b + piece.shape[1])
                    row, column = _piece(pairs, best_row, best_column, piece, rows, columns, mask)
                    by_row[:, rows] += row
                    by_column[:, columns] += column
    return by_row, by_column


def _piece(
    pairs: Pairs,
    best_row: Floats,
    best_column: Floats,
    scores: Floats,
    rows: slice,
    columns: slice,
    mask: npt.NDArray[np.bool_],
) -> tuple[IntArray, IntArray]:
    # (better, tied) of the rows and the columns of one piece of a tile.
    best_r, best_c = best_row[rows], best_column[columns]
    error_r, error_c = pairs.error(rows, columns, scores.dtype)
    low_r, high_r = _window(best_r, error_r, scores.dtype)
    low_c, high_c = _window(best_c, error_c, scores.dtype)
    above_r = _count_rows(scores, np.greater, high_r[:, None], mask)
    above_c = _count_columns(scores, np.greater, high_c, mask)
    near_r = _count_rows(scores, np.greater_equal, low_r[:, None], mask) - above_r
    near_c = _count_columns(scores, np.greater_equal, low_c, mask) - above_c
    if pairs.is_exact:
        return np.stack([above_r, near_r]), np.stack([above_c, near_c])
    if scores.dtype == np.float32 and near_r.sum() + near_c.sum() > scores.size // 16:
        # float32 cannot tell these scores apart (a collapsed model, say): the same with finer windows.
        fine = np.empty(scores.shape)
        pairs.tile(rows, columns, fine.dtype, fine)
        fine[np.isneginf(scores)] = -np.inf
        return _piece(pairs, best_row, best_column, fine, rows, columns, mask)
    i, j = _undecided(scores, near_r, low_r, high_r)
    by_row = _decide(i, pairs.exact(rows.start + i, columns.start + j), best_r)
    j, i = _undecided(scores.T, near_c, low_c, high_c)
    by_column = _decide(j, pairs.exact(rows.start + i, columns.start + j), best_c)
    by_row[0] += above_r
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


def _check(tile: Floats, best_row: Floats, best_column: Floats, top: int, left: int) -> None:
    finite = np.isfinite(tile)
    if finite.all():
        return
    height, width = tile.shape
    asked = np.isfinite(best_row[top : top + height, None]) | np.isfinite(best_column[left : left + width])
    bad = np.argwhere(~finite & asked)
    if len(bad):
        i, j = bad[0]
        raise _not_finite(tile[i, j], top + i, left + j)


def _not_finite(value: Any, row: int, column: int) -> RanksError:
    return RanksError(
        f"the score of image {row} and caption {column} is {value}, and a query needs it",
        hint="NaN means not scored: score every pair of the protocol; infinite scores have no rank",
    )
