"""Hubs: candidates that come up for queries they have nothing to do with.

Radovanović, Nanopoulos and Ivanović, "Hubs in space" (JMLR 2010): the k-occurrence of a candidate is the number of
lists of k nearest it is in; in high dimensions its distribution is skewed, and a few candidates are in very many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pandas as pd
from scipy.stats import skew

__all__ = ["k_occurrence", "skewness"]

HUB = 2.0
"""Standard deviations above the mean from which a candidate is a hub, as in the paper."""


def k_occurrence(table: pd.DataFrame, candidates: Iterable[str], direction: str) -> pd.DataFrame:
    """How often each candidate is in the list of a query, and how often wrongly.

    Args:
        table: a query table; k is the length of its lists.
        candidates: ids of all candidates of that direction.
        direction: "i2t" (candidates are captions) or "t2i" (images).

    Returns:
        A row a candidate: candidate, occurrence, wrong (times it was no positive), hub (wrong at least two
        standard deviations above the mean of all), anti_hub (never wrong: no other query comes near it); most
        wrong first.

    Example:
        >>> lists = pd.DataFrame({"direction": ["t2i"] * 2, "top": [["a", "b"], ["b", "a"]],
        ...                       "top_positive": [[True, False], [True, False]]})
        >>> k_occurrence(lists, ["a", "b", "c"], "t2i")[["candidate", "occurrence", "wrong", "anti_hub"]]
          candidate  occurrence  wrong  anti_hub
        0         a           2      1     False
        1         b           2      1     False
        2         c           0      0      True
    """
    rows = table[table["direction"] == direction]
    seen, wrong = Counter[str](), Counter[str]()
    for top, positive in zip(rows["top"], rows["top_positive"], strict=True):
        seen.update(top)
        wrong.update(candidate for candidate, hit in zip(top, positive, strict=True) if not hit)
    ids = list(dict.fromkeys(candidates))
    found = pd.DataFrame(
        {"candidate": ids, "occurrence": [seen[i] for i in ids], "wrong": [wrong[i] for i in ids]}
    )
    limit = found["wrong"].mean() + HUB * found["wrong"].std(ddof=0)
    found["hub"] = (found["wrong"] >= limit) & (found["wrong"] > 0) & (found["wrong"].std(ddof=0) > 0)
    found["anti_hub"] = found["wrong"] == 0
    return found.sort_values(["wrong", "candidate"], ascending=[False, True], ignore_index=True)


def skewness(occurrence: pd.DataFrame) -> float:
    """Skew of the k-occurrence: 0 without hubs; text-image spaces often have 2 and more; 0 for a constant."""
    counts = occurrence["occurrence"]
    return float(skew(counts)) if counts.nunique() > 1 else 0.0
