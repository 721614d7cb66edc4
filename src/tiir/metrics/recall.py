"""Recall and its relatives, as per-query values that can be averaged, folded and resampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tiir.errors import RanksError
from tiir.metrics.ranks import Counts, Ranks

__all__ = ["RSUM", "Metric", "by_direction", "metrics_of", "recall", "rsum", "summary"]

RSUM = tuple(f"{side}_R@{k}" for side in ("i2t", "t2i") for k in (1, 5, 10))


@dataclass(frozen=True, eq=False)
class Metric:
    """A value for each query of one direction, and how they become one number.

    Args:
        values: (n_queries,).
        image: the image each query belongs to, (n_queries,): the unit of resampling.
        fold: the gallery it was ranked in; the number is the mean over folds of each fold's own.
        kind: "mean" or "median".
    """

    values: npt.NDArray[np.float64]
    image: npt.NDArray[np.int64]
    fold: npt.NDArray[np.int64]
    kind: Literal["mean", "median"] = "mean"

    def __repr__(self) -> str:
        return f"Metric({self.kind} of {len(self.values):,} queries)"

    @property
    def value(self) -> float:
        """Mean over folds of the mean (or median) over a fold's queries."""
        pool = np.mean if self.kind == "mean" else np.median
        return float(np.mean([pool(self.values[self.fold == fold]) for fold in np.unique(self.fold)]))


def metrics_of(ranks: Ranks, ks: Sequence[int] = (1, 5, 10)) -> dict[str, Metric]:
    """R@k in percent, median and mean rank, and MRR of both directions, query by query.

    With ties "expected", R@k is exact; median rank, mean rank and MRR are those of the mean places.

    Raises:
        RanksError: a k that is not a positive integer.
    """
    if not ks or any(k != int(k) or k < 1 for k in ks):
        raise RanksError(f"ks={list(ks)} must be positive integers")

    def recalls(side: str, counts: Counts) -> dict[str, Metric]:
        return {
            f"{side}_R@{k}": Metric(100 * counts.hits(k, ranks.ties), counts.image, counts.fold) for k in ks
        }

    def rest(side: str, counts: Counts) -> dict[str, Metric]:
        place = counts.ranks(ranks.ties).astype(np.float64)
        return {
            f"{side}_median_rank": Metric(place, counts.image, counts.fold, "median"),
            f"{side}_mean_rank": Metric(place, counts.image, counts.fold),
            f"{side}_MRR": Metric(1 / place, counts.image, counts.fold),
        }

    sides = (("i2t", ranks.i2t_counts), ("t2i", ranks.t2i_counts))
    found: dict[str, Metric] = {}
    for part in (recalls, rest):
        for side, counts in sides:
            found.update(part(side, counts))
    return found


def rsum(values: Mapping[str, float]) -> dict[str, float]:
    """{"rsum": R@1 + R@5 + R@10 of both directions}, or nothing where one of the six is not there."""
    return {"rsum": sum(values[name] for name in RSUM)} if set(RSUM) <= values.keys() else {}


def recall(ranks: Ranks, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """R@k both ways in percent: the share of queries with a positive among the first k; and rsum.

    Args:
        ranks: from `rank_scores`, `rank_embeddings` or `rank_run`.
        ks: cut-offs. rsum is given where 1, 5 and 10 are among them.

    Returns:
        {"i2t_R@1": ..., ..., "t2i_R@10": ..., "rsum": ...}; of five folds, the mean over folds.

    Example:
        >>> from tiir.metrics.ranking import rank_scores
        >>> scores = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.3]], np.float32)
        >>> recall(rank_scores(scores, np.array([0, 1, 1])), ks=(1,))
        {'i2t_R@1': 100.0, 't2i_R@1': 66.666...}
    """
    values = {name: metric.value for name, metric in metrics_of(ranks, ks).items() if "_R@" in name}
    return values | rsum(values)


def summary(ranks: Ranks) -> dict[str, float]:
    """Median rank, mean rank and mean reciprocal rank (MRR, from 0 to 1) both ways.

    Returns:
        {"i2t_median_rank": ..., "i2t_mean_rank": ..., "i2t_MRR": ..., "t2i_median_rank": ..., ...}
    """
    return {name: metric.value for name, metric in metrics_of(ranks).items() if "_R@" not in name}


def by_direction(
    values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]] | None = None
) -> list[dict[str, str]]:
    """A row for each direction, as text, of what is given under names such as "i2t_R@1"; rsum stands apart.

    Args:
        values: by name.
        intervals: (low, high) by the same names.

    Example:
        >>> by_direction({"i2t_R@1": 50.0, "t2i_R@1": 25.0}, {"i2t_R@1": (40, 60)})
        [{'': 'i2t', 'R@1': '50.00 [40.0, 60.0]'}, {'': 't2i', 'R@1': '25.00'}]
    """
    rows = {side: {"": side} for side in ("i2t", "t2i")}
    for name, value in values.items():
        side, _, what = name.partition("_")
        if side in rows:
            text = f"{value:.3f}" if what == "MRR" else f"{value:,.2f}"
            low, high = (intervals or {}).get(name, (None, None))
            digits = 3 if what == "MRR" else 1
            edges = "" if low is None else f" [{low:,.{digits}f}, {high:,.{digits}f}]"
            rows[side][what.replace("_", " ")] = text + edges
    return list(rows.values())
