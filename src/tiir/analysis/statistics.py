"""Statistics of comparisons that scipy does not have: overlap of lists, McNemar's exact test, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

__all__ = ["holm", "mcnemar", "rbo"]

PERSISTENCE = 0.9


def rbo(a: Sequence[str], b: Sequence[str], persistence: float = PERSISTENCE) -> float:
    """Rank-biased overlap of two lists, extrapolated beyond their end.

    Webber, Moffat and Zobel, "A similarity measure for indefinite rankings" (TOIS 2010), equation 32 with lists of one
    length: 1 for equal lists, 0 for disjoint ones; earlier places weigh more.

    Args:
        a, b: candidates, best first, without repeats.
        persistence: chance that a reader goes on to the next place, between 0 and 1.

    Example:
        >>> rbo("abc", "abc"), rbo("abc", "xyz"), round(rbo("abc", "bac"), 3)
        (1.0, 0.0, 0.9)
    """
    depth, seen_a, seen_b, shared, total = min(len(a), len(b)), set[str](), set[str](), 0, 0.0
    for place in range(depth):
        seen_a.add(a[place])
        shared += b[place] in seen_a
        shared += a[place] in seen_b
        seen_b.add(b[place])
        total += shared / (place + 1) * persistence**place
    if not depth:
        return 0.0
    return min(1.0, shared / depth * persistence**depth + (1 - persistence) * total)


def mcnemar(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """McNemar's test (1947) of hits on the same queries, exact by the binomial: only what one model alone finds counts.

    Args:
        a, b: whether each query is a hit of either model, (n_queries,).

    Returns:
        a_only, b_only (how many queries one model alone finds), p_mcnemar (two-sided).

    Example:
        >>> mcnemar(np.array([True, True, True, False]), np.array([True, False, False, False]))
        {'a_only': 2, 'b_only': 0, 'p_mcnemar': 0.5}
    """
    a_only, b_only = int((a & ~b).sum()), int((b & ~a).sum())
    p = binomtest(a_only, a_only + b_only).pvalue if a_only + b_only else 1.0
    return {"a_only": a_only, "b_only": b_only, "p_mcnemar": float(p)}


def holm(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Holm's correction (1979): p values that keep the chance of any false verdict among all of them.

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    corrected = np.empty(len(p))
    corrected[order] = stepped
    return corrected
