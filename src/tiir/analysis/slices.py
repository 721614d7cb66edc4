"""Recall on the queries with a tag, and how it differs from the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiir.metrics.intervals import resample
from tiir.metrics.recall import Metric

__all__ = ["counted_recall", "slices"]

TAILS = [0.025, 0.975]


def slices(
    table: pd.DataFrame,
    tags: pd.DataFrame,
    *,
    ks: Sequence[int] = (1, 5, 10),
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Share, recall with interval, and lift over the rest of each tag's queries.

    Args:
        table: a query table.
        tags: `row` (of the table's index) and `tag`.
        ks: of R@k.
        resamples: bootstrap draws of the images (95% percentile intervals); 0 for none.
        seed: of the draws.

    Returns:
        A row a direction, tag and k: direction, tag, k, n (queries), share (of the direction's), recall, low,
        high (percent), rest_recall (of the queries without the tag), difference, difference_low,
        difference_high (points), lift (recall over rest_recall); the most harmful tag of a direction first, by
        the difference at the largest k. Intervals are not corrected for the number of tags.

    Example:
        >>> table = pd.DataFrame({"direction": "t2i", "image": list("aabb"), "rank": [1, 9, 30, 2]})
        >>> tags = pd.DataFrame({"row": [1, 2], "tag": "long"})
        >>> slices(table, tags, ks=[5], resamples=0)[["tag", "n", "share", "recall", "rest_recall"]]
            tag  n  share  recall  rest_recall
        0  long  2    0.5     0.0        100.0
    """
    rows = []
    for direction, part in table.groupby("direction", sort=True):
        codes = pd.factorize(part["image"])[0].astype(np.int64)
        rank = part["rank"].to_numpy()
        metrics: dict[str, Metric] = {}
        found = []
        for tag, tagged in tags[tags["row"].isin(part.index)].groupby("tag", sort=True):
            inside = part.index.isin(tagged["row"])
            for k in ks:
                hits = 100.0 * (rank <= k)
                names = [f"{tag} {k} {side}" for side in ("in", "out")]
                for name, mask in zip(names, (inside, ~inside), strict=True):
                    if mask.any():
                        metrics[name] = Metric(hits[mask], codes[mask], np.zeros(mask.sum(), np.int64))
                found.append((direction, tag, k, int(inside.sum()), float(inside.mean()), *names))
        draws = resample(metrics, resamples=resamples, seed=seed) if resamples and metrics else {}
        rows += [_row(facts, metrics, draws) for facts in found]
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    made = pd.DataFrame(rows, columns=COLUMNS)
    worst = made[made["k"] == max(ks)].set_index(["direction", "tag"])["difference"]
    made["worst"] = pd.MultiIndex.from_frame(made[["direction", "tag"]]).map(worst)
    order = made.sort_values(["direction", "worst", "tag", "k"], ignore_index=True)
    return order.drop(columns="worst")


COLUMNS = [
    *("direction", "tag", "k", "n", "share", "recall", "low", "high", "rest_recall"),
    *("difference", "difference_low", "difference_high", "lift"),
]


def _row(
    facts: tuple[Any, ...], metrics: dict[str, Metric], draws: dict[str, npt.NDArray[np.float64]]
) -> tuple[Any, ...]:
    *head, inside, outside = facts
    recall = metrics[inside].value
    rest = metrics[outside].value if outside in metrics else np.nan
    low = high = below = above = np.nan
    if inside in draws:
        low, high = np.nanquantile(draws[inside], TAILS)
        if outside in draws:
            below, above = np.nanquantile(draws[inside] - draws[outside], TAILS)
    return (*head, recall, low, high, rest, recall - rest, below, above, recall / rest if rest else np.nan)


def counted_recall(
    table: pd.DataFrame,
    ranks: pd.DataFrame,
    *,
    ks: Sequence[int] = (1, 5, 10),
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Recall by each way to count positives, side by side.

    Args:
        table: a query table.
        ranks: from `tiir.analysis.missing.with_suspects`, with the same index.
        ks: of R@k; only up to the length of the table's lists do the ways differ as they should.
        resamples, seed: of the bootstrap over images; 0 for no intervals.

    Returns:
        A row a direction, way and k: direction, counting ("labelled", "judged", "suspected"), k, recall, low, high
        (percent).
    """
    rows = []
    for direction, part in table.groupby("direction", sort=True):
        codes = pd.factorize(part["image"])[0].astype(np.int64)
        fold = part["fold"].to_numpy()
        metrics = {
            f"{counting} {k}": Metric(100.0 * (ranks.loc[part.index, counting].to_numpy() <= k), codes, fold)
            for counting in ranks.columns
            for k in ks
        }
        draws = resample(metrics, resamples=resamples, seed=seed) if resamples else {}
        for name, metric in metrics.items():
            counting, k = name.split()
            low, high = np.quantile(draws[name], TAILS) if name in draws else (np.nan, np.nan)
            rows.append((direction, counting, int(k), metric.value, low, high))
    return pd.DataFrame(rows, columns=["direction", "counting", "k", "recall", "low", "high"])
