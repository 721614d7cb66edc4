"""The candidates a query retrieves, best first, in the order its rank was counted by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tiir.data.protocols import Gallery
from tiir.scoring.order import best
from tiir.scoring.pairs import pairs_of
from tiir.scoring.shortlist import Direction

if TYPE_CHECKING:
    from tiir.scoring.run import Run

__all__ = ["Direction", "retrieve"]


def retrieve(
    run: Run, gallery: Gallery, direction: Direction, queries: npt.NDArray[np.int64], *, depth: int = 10
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """The best `depth` candidates of some queries.

    Among equal scores negatives come first, as the pessimistic rank counts them, then the lower position: the
    first positive stands at its query's pessimistic rank.

    Args:
        run: the scores. Of a cascade, candidates off the shortlist follow it in the first stage's order, with
            the first stage's scores moved down so that they stay below the shortlist's.
        gallery: what is searched.
        direction: "i2t" (queries are images) or "t2i" (queries are captions).
        queries: positions of the queries in the gallery, (n_queries,).
        depth: candidates a query; all of them where the gallery has fewer.

    Returns:
        Positions in the gallery and scores, both (n_queries, depth).

    Raises:
        RanksError: a score is NaN or infinite.
    """
    pairs, positives = pairs_of(run, gallery), gallery.i2t
    if direction == "t2i":
        pairs, positives = pairs.T, gallery.t2i.T
    listed = None if run.shortlist is None else run.shortlist.listed(direction, gallery)
    depth = min(depth, pairs.shape[1])
    found, scores = np.empty((len(queries), depth), np.int64), np.empty((len(queries), depth))
    for n, answer in enumerate(best(pairs, queries, depth, positives=positives, listed=listed)):
        found[n], scores[n] = answer
    return found, scores
