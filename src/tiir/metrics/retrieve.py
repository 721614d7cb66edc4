"""The candidates a query retrieves, best first, in the order its rank was counted by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from tiir.data.protocols import Gallery
from tiir.errors import RanksError
from tiir.metrics.ranks import pairs_of

if TYPE_CHECKING:
    from tiir.scoring.run import Run

__all__ = ["Direction", "retrieve"]

Direction = Literal["i2t", "t2i"]
TILE = 1 << 22  # scores held at a time: 16 MB in float32


def retrieve(
    run: Run, gallery: Gallery, direction: Direction, queries: npt.NDArray[np.int64], *, depth: int = 10
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """The best `depth` candidates of some queries.

    Among equal scores negatives come first, as the pessimistic rank counts them, then the lower position: the
    first positive stands at its query's pessimistic rank.

    Args:
        run: the scores.
        gallery: what is searched.
        direction: "i2t" (queries are images) or "t2i" (queries are captions).
        queries: positions of the queries in the gallery, (n_queries,).
        depth: candidates a query; all of them where the gallery has fewer.

    Returns:
        Positions in the gallery and scores, both (n_queries, depth).

    Raises:
        RanksError: a score is NaN.
    """
    pairs, positives = pairs_of(run, gallery), gallery.i2t
    if direction == "t2i":
        pairs, positives = pairs.T, gallery.t2i.T
    n_candidates = pairs.shape[1]
    depth = min(depth, n_candidates)
    found = np.empty((len(queries), depth), np.int64)
    scores = np.empty((len(queries), depth), np.float64)
    everything, step = slice(0, n_candidates), max(1, TILE // n_candidates)
    for start in range(0, len(queries), step):
        rows = queries[start : start + step]
        tile = pairs.tile(rows, everything, pairs.dtype, np.empty((len(rows), n_candidates), pairs.dtype))
        if np.isnan(tile).any():
            row, column = np.argwhere(np.isnan(tile))[0]
            raise RanksError(
                f"{direction} query {rows[row]} has no score for candidate {column} (NaN)",
                hint="the Run scored only a part of the pairs: score all of them",
            )
        error = np.broadcast_to(pairs.error(rows, everything, pairs.dtype)[0], len(rows))
        for n, (query, row) in enumerate(zip(rows, tile, strict=True), start=start):
            # Whatever could be among the best, by the tile's error on both sides, is scored exactly.
            last = np.partition(row, n_candidates - depth)[n_candidates - depth]
            close = np.flatnonzero(row >= last - 2 * error[n - start])
            exact = pairs.exact(np.full(len(close), query), close)
            first, stop = np.searchsorted(positives.image, [query, query + 1])
            hit = np.isin(close, positives.caption[first:stop])
            order = np.lexsort((close, hit, -exact))[:depth]
            found[n], scores[n] = close[order], exact[order]
    return found, scores
