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
QUERIES, WIDTH = 1024, 1 << 16  # sides of a tile: the gallery is read once for so many queries
FEW = 1 << 14  # pairs scored exactly at a time
NOTHING = np.empty(0, np.int64), np.empty(0)


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
    depths = np.minimum(np.broadcast_to(depth, len(queries)), pairs.shape[1]).astype(np.int64)
    for start, stop in _blocks(depths):
        rows, wanted = queries[start:stop], depths[start:stop]
        firsts = [
            _sorted(*listed.of(query), _relevant(positives, query), favour) if listed is not None else NOTHING
            for query in rows
        ]
        near = _Near(
            pairs, rows, np.maximum(0, wanted - [len(found) for found, _ in firsts]), positives, favour
        )
        near.search([found for found, _ in firsts])
        for i, ((found, scores), k) in enumerate(zip(firsts, wanted, strict=True)):
            close, exact = near.of(i)
            if len(found) and len(close):
                exact = exact - exact[0] + (scores[-1] - 1)
            found, scores = np.concatenate([found, close]), np.concatenate([scores, exact])
            yield found[:k], scores[:k].astype(np.float64)


class _Near:
    """The best `wanted` candidates of each of some queries, the gallery read once, in slices of its width.

    What a tile's error allows to be among them is kept, and scored exactly at the end.
    """

    def __init__(
        self, pairs: Pairs, rows: IntArray, wanted: IntArray, positives: Positives | None, favour: bool
    ) -> None:
        self.pairs, self.rows, self.wanted = pairs, rows, wanted
        self.relevant = [_relevant(positives, query) for query in rows]
        self.favour = favour
        # A bound on each query's last one: the score that so many candidates reach, up to the error.
        self.last = np.where(wanted > 0, -np.inf, np.inf)
        self.error = np.zeros(len(rows))
        # Of each kept candidate: whose, which, and its score (approximate, or exact).
        self.query, self.candidate, self.score = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)

    def search(self, taken: list[IntArray]) -> None:
        """Go through the gallery; `taken` are candidates of each query that do not count."""
        pairs, n = self.pairs, self.pairs.shape[1]
        whose = np.repeat(np.arange(len(taken)), [len(some) for some in taken])
        which = np.concatenate(taken) if taken else np.empty(0, np.int64)
        width = min(n, WIDTH, max(1, TILE // len(self.rows)))
        buffer = np.empty(len(self.rows) * width, pairs.dtype)
        limit = 0
        for left in range(0, n, width):
            across = slice(left, min(left + width, n))
            out = buffer[: len(self.rows) * (across.stop - left)].reshape(len(self.rows), -1)
            tile = pairs.tile(self.rows, across, pairs.dtype, out)
            self._check(tile, left)
            self.error = np.maximum(self.error, pairs.error(self.rows, across, pairs.dtype)[0])
            here = (which >= left) & (which < across.stop)
            tile[whose[here], which[here] - left] = -np.inf
            self._keep(tile, left)
            if len(self.query) > limit:
                self._prune()
                limit = 2 * len(self.query) + FEW
        self._prune()
        # In the gallery's order, for the sake of files; a few at a time, so that no one looks for equal vectors.
        place = np.argsort(self.candidate, kind="stable")
        for start in range(0, len(place), FEW):
            some = place[start : start + FEW]
            self.score[some] = pairs.exact(self.rows[self.query[some]], self.candidate[some])
        self.starts = np.searchsorted(self.query, np.arange(len(self.rows) + 1))

    def of(self, i: int) -> tuple[IntArray, Floats]:
        """What was found for a query, in order, (at least as many as are wanted,), and the exact scores."""
        mine = slice(self.starts[i], self.starts[i + 1])
        return _sorted(self.candidate[mine], self.score[mine], self.relevant[i], self.favour)

    def _check(self, tile: Floats, left: int) -> None:
        if not np.isfinite(tile).all():
            i, j = np.argwhere(~np.isfinite(tile))[0]
            raise RanksError(
                f"query {self.rows[i]} has no score for candidate {left + j}: it is {tile[i, j]}",
                hint="NaN means not scored: score every pair of the protocol",
            )

    def _keep(self, tile: Floats, left: int) -> None:
        width = tile.shape[1]
        for i in np.flatnonzero(np.isneginf(self.last) & (self.wanted <= width)):
            place = width - self.wanted[i]
            self.last[i] = np.partition(tile[i], place)[place]
        floor = np.nextafter((self.last - 2 * self.error).astype(tile.dtype), tile.dtype.type(-np.inf))
        places = np.flatnonzero(tile >= floor[:, None])
        scores = tile.ravel()[places]
        whose, which = np.divmod(places[scores > -np.inf], width)
        self.query = np.concatenate([self.query, whose])
        self.candidate = np.concatenate([self.candidate, left + which])
        self.score = np.concatenate([self.score, scores[scores > -np.inf]])

    def _prune(self) -> None:
        # Sorts by query, best first. What is certainly behind `wanted` others goes.
        self._take(np.lexsort((-self.score, self.query)))
        starts = np.searchsorted(self.query, np.arange(len(self.rows) + 1))
        full = (np.diff(starts) >= self.wanted) & (self.wanted > 0)
        self.last[full] = self.score[starts[:-1][full] + self.wanted[full] - 1]
        self._take(np.flatnonzero(self.score >= (self.last - 2 * self.error)[self.query]))
        if len(self.query) > max(TILE, 2 * int(self.wanted.sum())):
            # Scores that float32 cannot tell apart, or that are equal: the exact order decides now.
            self.score = self.pairs.exact(self.rows[self.query], self.candidate).astype(np.float64)
            starts = np.searchsorted(self.query, np.arange(len(self.rows) + 1))
            best = [
                start + _order(self.candidate[start:stop], self.score[start:stop], relevant, self.favour)[:k]
                for start, stop, relevant, k in zip(
                    starts[:-1], starts[1:], self.relevant, self.wanted, strict=True
                )
            ]
            self._take(np.concatenate(best))

    def _take(self, places: IntArray) -> None:
        self.query, self.candidate = self.query[places], self.candidate[places]
        self.score = self.score[places]


def _blocks(depths: IntArray) -> Iterator[tuple[int, int]]:
    # Queries that are answered together: not too many, nor too many candidates to keep.
    start = total = 0
    for n, depth in enumerate(depths.tolist()):
        if n > start and (n - start == QUERIES or total + depth > TILE // 2):
            yield start, n
            start, total = n, 0
        total += depth
    if start < len(depths):
        yield start, len(depths)


def _sorted(
    candidates: IntArray, scores: Floats, relevant: IntArray | None, favour: bool
) -> tuple[IntArray, Floats]:
    order = _order(candidates, scores, relevant, favour)
    return candidates[order], scores[order]


def _order(candidates: IntArray, scores: Floats, relevant: IntArray | None, favour: bool) -> IntArray:
    hit = np.zeros(len(candidates), bool) if relevant is None else np.isin(candidates, relevant)
    order: IntArray = np.lexsort((candidates, ~hit if favour else hit, -scores))
    return order


def _relevant(positives: Positives | None, query: int) -> IntArray | None:
    if positives is None:
        return None
    first, stop = np.searchsorted(positives.image, [query, query + 1])
    return positives.caption[first:stop]
