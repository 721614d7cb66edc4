"""Ranks of a cascade: shortlists in the cross encoder's order, then the rest in the first stage's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tiir.data.positives import Positives
from tiir.scoring.pairs import Pairs
from tiir.scoring.shortlist import Direction, Listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiir.data.protocols import Gallery
    from tiir.scoring.run import Run

__all__ = ["cross_facts", "recount"]

IntArray = npt.NDArray[np.int64]
Three = tuple[IntArray, IntArray, IntArray]


def recount(counts: Three, pairs: Pairs, positives: Positives, queries: IntArray, listed: Listed) -> Three:
    """From the counts of the first stage to those of the cascade.

    A query with a positive on its shortlist competes there alone. Any other loses to its whole shortlist, and to
    what the first stage puts above its best positive outside of it.

    Args:
        counts: (better, tied, tied_positives) by the first stage, (n_queries,) each.
        pairs: scores of the first stage, rows are queries.
        positives: relevant pairs, rows are queries.
        queries: rows that were counted.
        listed: the shortlists.
    """
    n, width = pairs.shape
    slot = np.full(n, -1, np.int64)
    slot[queries] = np.arange(len(queries))
    asked = slot[listed.query] >= 0
    query, candidate, score = slot[listed.query[asked]], listed.candidate[asked], listed.score[asked]
    hit = np.isin(queries[query] * width + candidate, positives.image * width + positives.caption)
    best = np.full(len(queries), -np.inf)
    np.maximum.at(best, query[hit], score[hit])
    inside = best > -np.inf

    def number(mask: npt.NDArray[np.bool_]) -> IntArray:
        return np.bincount(query[mask], minlength=len(queries))

    in_better, in_tied = number(~hit & (score > best[query])), number(~hit & (score == best[query]))
    in_hits = number(hit & (score == best[query]))
    # Of the others: negatives on the shortlist were counted by their first score, and now all stand above.
    other = np.flatnonzero(~inside[query])
    first = pairs.exact(queries[query[other]], candidate[other])
    reference = _best_positive(pairs, positives, queries[~inside])
    limit = np.full(len(queries), np.nan)
    limit[~inside] = reference
    n_listed = np.bincount(query[other], minlength=len(queries))
    above = np.bincount(query[other[first > limit[query[other]]]], minlength=len(queries))
    equal = np.bincount(query[other[first == limit[query[other]]]], minlength=len(queries))
    return (
        np.where(inside, in_better, counts[0] + n_listed - above),
        np.where(inside, in_tied, counts[1] - equal),
        np.where(inside, in_hits, counts[2]),
    )


def _best_positive(pairs: Pairs, positives: Positives, queries: IntArray) -> npt.NDArray[Any]:
    # The first stage's score of the best positive of each query.
    slot = np.full(pairs.shape[0], -1, np.int64)
    slot[queries] = np.arange(len(queries))
    keep = slot[positives.image] >= 0
    scores = pairs.exact(positives.image[keep], positives.caption[keep])
    best = np.full(len(queries), -np.inf)
    np.maximum.at(best, slot[positives.image[keep]], scores)
    return best


def cross_facts(run: Run, galleries: Sequence[Gallery]) -> dict[str, Any] | None:
    """What a cross encoder scored, and what a cascade could find; None where there was none.

    Returns:
        `pairs` scored (of the whole data set, equal captions once), `share` of all pairs in percent, and for a
        cascade `depth`, `mix`, and by direction `listed`: the percent of queries with a positive on their shortlist.
        No recall@k passes it while the shortlists hold k candidates of the gallery or more.
    """
    notes: dict[str, Any] = run.info.notes
    facts = {str(key): notes[key] for key in ("pairs", "share", "depth") if key in notes}
    if run.shortlist is None:
        return facts if {"pairs", "share"} <= facts.keys() else None
    facts.setdefault("pairs", len(run.shortlist))  # made without tiir's notes
    facts.setdefault("share", 100 * facts["pairs"] / (run.info.images * run.info.captions))
    facts["mix"] = run.shortlist.mix
    reached, asked = {"i2t": 0, "t2i": 0}, {"i2t": 0, "t2i": 0}
    for gallery in galleries:
        sides: tuple[tuple[Direction, Positives, IntArray], ...] = (
            ("i2t", gallery.i2t, gallery.image_queries),
            ("t2i", gallery.t2i.T, gallery.caption_queries),
        )
        for side, positives, queries in sides:
            listed, width = run.shortlist.listed(side, gallery), positives.shape[1]
            hit = np.isin(
                listed.query * width + listed.candidate, positives.image * width + positives.caption
            )
            queries = queries[positives.per_image[queries] > 0]
            reached[side] += int(np.isin(queries, listed.query[hit]).sum())
            asked[side] += len(queries)
    return facts | {"listed": {side: 100 * reached[side] / asked[side] for side in asked}}
