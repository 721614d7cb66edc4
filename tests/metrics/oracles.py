"""Slow, plain versions of what tiir.metrics computes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def exact_scores(images: Any, texts: Any) -> Any:
    """The whole matrix, each entry by the definition: a float64 sum over one pair of vectors."""
    a, b = images.astype(np.float64), texts.astype(np.float64)
    return np.array([[(x * y).sum() for y in b] for x in a])


def ranks(scores: Any, relevant: Any, ties: str) -> list[float]:
    """Rank of each row's best positive, by going through the row. `relevant`: bool, same shape."""
    found = []
    for row, own in zip(scores.tolist(), relevant.tolist(), strict=True):
        best = max(s for s, r in zip(row, own, strict=True) if r)
        better = sum(s > best for s, r in zip(row, own, strict=True) if not r)
        tied = sum(s == best for s, r in zip(row, own, strict=True) if not r)
        positives = sum(s == best for s, r in zip(row, own, strict=True) if r)
        extra = {"pessimistic": tied, "optimistic": 0, "expected": tied / (positives + 1)}[ties]
        found.append(1 + better + extra)
    return found


def hit_probability(better: int, tied: int, positives: int, k: int) -> float:
    """That one of `positives` shuffled among `tied` negatives, after `better` others, is in the first k."""
    slots = min(max(k - better, 0), tied + positives)
    return 1 - math.comb(tied, slots) / math.comb(tied + positives, slots)


def average_precision(row: Any, own: Any, pessimistic: bool) -> tuple[float, float]:
    """AP@R and R-Precision of one query, by sorting everything."""
    order = sorted(range(len(row)), key=lambda j: (-row[j], bool(own[j]) == pessimistic))
    r = int(sum(own))
    hits = [bool(own[j]) for j in order[:r]]
    return sum(sum(hits[: p + 1]) / (p + 1) for p in range(r) if hits[p]) / r, sum(hits) / r
