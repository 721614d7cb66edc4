"""The best candidates of queries, in the one order that ranks are counted by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.data.positives import Positives
from tiir.errors import RanksError
from tiir.scoring.pairs import Pairs
from tiir.scoring.shortlist import Listed

__all__ = ["best"]

IntArray = npt.NDArray[np.int64]
Floats = npt.NDArray[Any]
TILE = 1 << 22  # scores held at a time: 16 MB in float32


def best(
    pairs: Pairs,
    queries: IntArray,
    depth: int | IntArray,
    *,
    positives: Positives | None = None,
    favour: bool = False,
    listed: Listed | None = None,
) -> Iterator[tuple[IntArray, npt.NDArray[np.float64]]]:
    """The first `depth` candidates of each query (a row of `pairs`), best first, and their scores.

    Candidates on a query's shortlist come first, by its scores; the rest follow in the order of `pairs`, their
    scores moved down so that they stay below. Among equal scores positives come last (first with `favour`), then
    the lower position counts.

    Args:
        pairs: scores, rows are queries.
        queries: rows to answer, (n_queries,).
        depth: candidates a query, at most as many as there are; one number or (n_queries,).
        positives: pairs whose ties are decided by `favour`; where None, by position alone.
        favour: positives win their ties.
        listed: shortlists of a cascade.

    Raises:
        RanksError: a score of a query is NaN or infinite.

    Example:
        >>> from tiir.scoring.pairs import Matrix
        >>> scores = Matrix(np.array([[0.5, 0.9, 0.7]]))
        >>> [(found.tolist(), score.tolist()) for found, score in best(scores, np.array([0]), 2)]
        [([1, 2], [0.9, 0.7])]
    """
    n_candidates = pairs.shape[1]
    depths = np.minimum(np.broadcast_to(depth, len(queries)), n_candidates)
    everything, step = slice(0, n_candidates), max(1, TILE // n_candidates)
    buffer = np.empty((min(step, len(queries)), n_candidates), pairs.dtype)
    for start in range(0, len(queries), step):
        rows = queries[start : start + step]
        tile = pairs.tile(rows, everything, pairs.dtype, buffer[: len(rows)])
        if not np.isfinite(tile).all():
            i, j = np.argwhere(~np.isfinite(tile))[0]
            raise RanksError(
                f"query {rows[i]} has no score for candidate {j}: it is {tile[i, j]}",
                hint="NaN means not scored: score every pair of the protocol",
            )
        errors = np.broadcast_to(pairs.error(rows, everything, pairs.dtype)[0], len(rows))
        for query, row, error, k in zip(rows, tile, errors, depths[start : start + step], strict=True):
            relevant = _relevant(positives, query)
            found, scores = np.empty(0, np.int64), np.empty(0)
            if listed is not None:
                found, scores = listed.of(query)
                row[found] = -np.inf  # they do not come again
                found, scores = _sorted(found, scores, relevant, favour)
            rest = int(k) - len(found)
            if rest > 0:
                # Whatever could be among the best, by the tile's error on both sides, is scored exactly.
                last = np.partition(row, n_candidates - rest)[n_candidates - rest]
                close = np.flatnonzero(row >= last - 2 * error)
                exact = pairs.exact(np.full(len(close), query), close)
                close, exact = _sorted(close, exact, relevant, favour)
                if len(found):
                    exact = exact.astype(np.float64)
                    exact = exact - exact[0] + (scores[-1] - 1)
                found, scores = np.concatenate([found, close]), np.concatenate([scores, exact])
            yield found[:k], scores[:k].astype(np.float64)


def _sorted(
    candidates: IntArray, scores: Floats, relevant: IntArray | None, favour: bool
) -> tuple[IntArray, Floats]:
    hit = np.zeros(len(candidates), bool) if relevant is None else np.isin(candidates, relevant)
    order = np.lexsort((candidates, ~hit if favour else hit, -scores))
    return candidates[order], scores[order]


def _relevant(positives: Positives | None, query: int) -> IntArray | None:
    if positives is None:
        return None
    first, stop = np.searchsorted(positives.image, [query, query + 1])
    return positives.caption[first:stop]
