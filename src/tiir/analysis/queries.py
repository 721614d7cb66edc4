"""The query table: a row for every query of both directions, with what it retrieved and how hard it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiir.data.dataset import Dataset
from tiir.data.protocols import Gallery, default_protocol, resolve
from tiir.errors import ConfigError
from tiir.metrics.ranking import rank_run
from tiir.metrics.ranks import Counts, Empty
from tiir.scoring.order import best
from tiir.scoring.pairs import pairs_of
from tiir.scoring.run import Run
from tiir.scoring.shortlist import Direction

__all__ = ["difficulty_of", "galleries_of", "query_table"]

FOUND = ("best_positive", "best_positive_score", "best_negative_score", "top", "top_scores", "top_positive")
"""Columns that come from what a query retrieved."""


def query_table(
    run: Run,
    dataset: Dataset,
    protocol: str | Sequence[Gallery] | None = None,
    *,
    keys: Path | str | Sequence[str] | None = None,
    captions_per_image: int | None = None,
    depth: int = 10,
    hard_after: int = 10,
    easy_within: int = 1,
    empty: Empty = "error",
) -> pd.DataFrame:
    """What every query of a Run retrieved, and how hard it was.

    Args:
        run: the scores.
        dataset: its data set.
        protocol: a name (see `tiir.data.protocols`) or galleries; by the data set where None.
        keys: image ids of a subset, or a file of them (`coco-1k-subset`, `own`).
        captions_per_image: keep the first captions of each image only.
        depth: candidates a query that `top` lists.
        hard_after: a query is hard when no positive is among the first so many.
        easy_within: a query is easy when a positive is among the first so many.
        empty: what to do about queries without a positive: an error, or leave them out.

    Returns:
        A row a query, the image queries of all folds first:

        - direction ("i2t": the query is an image, "t2i": a caption), fold, query (its id), image (the id of
          the query's own image: what the bootstrap resamples), text (the caption of a t2i query, else ""),
          positives (how many the gallery holds),
        - rank (of the best positive: 1-based, ties pessimistic), best_positive (its id),
          best_positive_score, best_negative_score, margin (the first score less the second; below 0 where
          a wrong candidate wins). Of a cascade the scores are the order's: candidates off the shortlist stay
          below it,
        - top, top_scores, top_positive: lists of the first `depth` candidates' ids, scores, and whether each
          is a positive,
        - difficulty ("hard", "medium", "easy").

    Raises:
        RunError, ProtocolError, RanksError: as `rank_run` and `resolve`.
        ConfigError: thresholds that contradict each other.

    Example:
        >>> from tiir.scoring.run import RunInfo
        >>> data = Dataset("pets", "test", ["a", "b"], ["a0", "b0"], ["a cat", "a dog"], np.array([0, 1]))
        >>> run = Run(RunInfo.about(data, "pets", "by hand"),
        ...           scores=np.array([[0.9, 0.2], [0.8, 0.3]], np.float32))
        >>> table = query_table(run, data)
        >>> table[["direction", "query", "rank", "top", "difficulty"]]
          direction query  rank       top difficulty
        0       i2t     a     1  [a0, b0]       easy
        1       i2t     b     2  [a0, b0]     medium
        2       t2i    a0     1    [a, b]       easy
        3       t2i    b0     1    [b, a]       easy
    """
    if depth < 1:
        raise ConfigError(f"depth={depth} must be at least 1")
    if not 1 <= easy_within <= hard_after:
        raise ConfigError(
            f"easy within {easy_within} and hard after {hard_after} contradict each other",
            hint="1 <= easy_within <= hard_after",
        )
    galleries = galleries_of(dataset, protocol, keys=keys, captions_per_image=captions_per_image)
    ranks = rank_run(run, dataset, galleries, ties="pessimistic", empty=empty)
    sides: list[tuple[Direction, Counts]] = [("i2t", ranks.i2t_counts), ("t2i", ranks.t2i_counts)]
    parts = [
        _rows(run, dataset, gallery, fold, direction, counts, depth)
        for direction, counts in sides
        for fold, gallery in enumerate(galleries)
    ]
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    table["difficulty"] = difficulty_of(table["rank"], hard_after=hard_after, easy_within=easy_within)
    return table


def galleries_of(
    dataset: Dataset,
    protocol: str | Sequence[Gallery] | None,
    *,
    keys: Path | str | Sequence[str] | None = None,
    captions_per_image: int | None = None,
) -> tuple[Gallery, ...]:
    """The galleries that a protocol's name stands for; galleries are handed through.

    Args:
        dataset: that they are of.
        protocol: a name or galleries; by the data set where None.
        keys, captions_per_image: as `tiir.data.protocols.resolve` takes them.

    Raises:
        ProtocolError: as `tiir.data.protocols.resolve`.
    """
    if protocol is None or isinstance(protocol, str):
        name = protocol or default_protocol(dataset)
        return resolve(name, dataset, keys=keys, captions_per_image=captions_per_image)
    return tuple(protocol)


def difficulty_of(rank: pd.Series, *, hard_after: int = 10, easy_within: int = 1) -> pd.Series:
    """Hard, medium or easy, by rank.

    Example:
        >>> list(difficulty_of(pd.Series([1, 10, 11])))
        ['easy', 'medium', 'hard']
    """
    words = np.where(rank <= easy_within, "easy", np.where(rank > hard_after, "hard", "medium"))
    return pd.Series(words, index=rank.index, name="difficulty")


def _rows(
    run: Run,
    dataset: Dataset,
    gallery: Gallery,
    fold: int,
    direction: Direction,
    counts: Counts,
    depth: int,
) -> pd.DataFrame:
    here = counts.fold == fold
    rank = counts.ranks("pessimistic")[here]
    pairs, positives, own, other = pairs_of(run, gallery), gallery.i2t, gallery.images, gallery.captions
    own_ids, other_ids = dataset.image_ids, dataset.caption_ids
    if direction == "t2i":
        pairs, positives, own, other = pairs.T, gallery.t2i.T, other, own
        own_ids, other_ids = other_ids, own_ids
    listed = None if run.shortlist is None else run.shortlist.listed(direction, gallery)
    place = np.full(own.max(initial=-1) + 1, -1)
    place[own] = np.arange(len(own))
    queries = place[counts.query[here]]
    n_positives = positives.per_image[queries]
    # So deep that the list holds what is asked for, the best positive (at its rank), and the best negative.
    depths = np.maximum(np.maximum(depth, rank), n_positives + 1)
    by_query = np.argsort(positives.image, kind="stable")
    ends = np.searchsorted(positives.image[by_query], queries + 1)
    starts = np.searchsorted(positives.image[by_query], queries)
    columns: dict[str, list[Any]] = {name: [] for name in FOUND}
    answers = best(pairs, queries, depths, positives=positives, listed=listed)
    for start, end, first, (found, scores) in zip(starts, ends, rank.tolist(), answers, strict=True):
        hit = np.isin(found, positives.caption[by_query[start:end]])
        missed = np.flatnonzero(~hit)
        columns["best_positive"].append(other_ids[other[found[first - 1]]])
        columns["best_positive_score"].append(float(scores[first - 1]))
        columns["best_negative_score"].append(float(scores[missed[0]]) if len(missed) else np.nan)
        columns["top"].append([other_ids[n] for n in other[found[:depth]]])
        columns["top_scores"].append(scores[:depth].tolist())
        columns["top_positive"].append(hit[:depth].tolist())
    query, image = counts.query[here], counts.image[here]
    table = pd.DataFrame(
        {
            "direction": direction,
            "fold": fold,
            "query": [own_ids[n] for n in query],
            "image": [dataset.image_ids[n] for n in image],
            "text": [dataset.captions[n] for n in query] if direction == "t2i" else "",
            "positives": n_positives,
            "rank": rank,
            **columns,
        }
    )
    table.insert(10, "margin", table["best_positive_score"] - table["best_negative_score"])
    return table
