"""Ranks: the place of each query's best positive, with what resampling, folds and ties need.

    rank = 1 + number of non-positive candidates that beat the best positive

Candidates that tie with the best positive are counted apart, and a stated policy decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tiir.errors import several
from tiir.notebook import card

__all__ = ["Counts", "Empty", "Ranks", "Ties"]

IntArray = npt.NDArray[np.int64]
Ties = Literal["pessimistic", "optimistic", "expected"]
Empty = Literal["error", "exclude"]


@dataclass(frozen=True, eq=False, repr=False)
class Counts:
    """What was counted for each query of one direction, (n_queries,) each.

    Args:
        query: position of the query among the images or captions that were given.
        image: position of the image it belongs to (itself, or the caption's own): the unit of resampling.
        fold: number of the gallery it was ranked in.
        better: non-positive candidates that score above its best positive.
        tied: non-positive candidates that score the same.
        tied_positives: positives that score the same, the best one included.
        excluded: positions of queries left out because they have no positive, (n_excluded,).
    """

    query: IntArray
    image: IntArray
    fold: IntArray
    better: IntArray
    tied: IntArray
    tied_positives: IntArray
    excluded: IntArray

    def __len__(self) -> int:
        return len(self.query)

    def __repr__(self) -> str:
        return f"Counts({len(self):,} queries)"

    def ranks(self, ties: Ties) -> npt.NDArray[Any]:
        """1-based place of the best positive.

        Returns:
            int64; for "expected" float64: the mean place of the first of p positives shuffled among e equals,
            1 + better + e / (p + 1).
        """
        if ties == "expected":
            expected: npt.NDArray[np.float64] = 1 + self.better + self.tied / (self.tied_positives + 1)
            return expected
        return 1 + self.better + (self.tied if ties == "pessimistic" else 0)

    def hits(self, k: int, ties: Ties) -> npt.NDArray[np.float64]:
        """Whether (for "expected": with what probability) a positive is among the first k."""
        if ties != "expected":
            return (self.ranks(ties) <= k).astype(np.float64)
        # The slots left for the tied group are all filled by its negatives: C(e, slots) / C(e + p, slots).
        slots = np.clip(k - self.better, 0, self.tied + 1)
        miss = np.ones(len(self))
        for slot in range(int(slots.max(initial=0))):
            left = np.maximum(self.tied - slot, 0) / np.maximum(self.tied + self.tied_positives - slot, 1)
            miss *= np.where(slot < slots, left, 1.0)
        return 1 - miss


@dataclass(frozen=True, eq=False, repr=False)
class Ranks:
    """Ranks of all queries, both ways, with what resampling and folds need.

    Args:
        ties: the policy that `i2t` and `t2i` follow.
        i2t_counts: of the image queries.
        t2i_counts: of the caption queries.
        n_images: images in the gallery (of all folds together).
        n_captions: captions in the gallery.
        n_folds: number of galleries.
    """

    ties: Ties
    i2t_counts: Counts
    t2i_counts: Counts
    n_images: int
    n_captions: int
    n_folds: int = 1

    @cached_property
    def i2t(self) -> npt.NDArray[Any]:
        """1-based rank of each image query: int64 (float64 for expected ties)."""
        return self.i2t_counts.ranks(self.ties)

    @cached_property
    def t2i(self) -> npt.NDArray[Any]:
        """1-based rank of each caption query."""
        return self.t2i_counts.ranks(self.ties)

    @property
    def excluded(self) -> dict[str, int]:
        """Number of queries without a positive that were left out, by direction."""
        return {"i2t": len(self.i2t_counts.excluded), "t2i": len(self.t2i_counts.excluded)}

    def __repr__(self) -> str:
        folds = f", {self.n_folds} folds" if self.n_folds > 1 else ""
        left = sum(self.excluded.values())
        return (
            f"Ranks({several(len(self.i2t_counts), 'image query', 'image queries')}, "
            f"{several(len(self.t2i_counts), 'caption query', 'caption queries')}, {several(self.n_images, 'image')} x "
            f"{several(self.n_captions, 'caption')}{folds}, ties {self.ties}"
            + (f", {several(left, 'query', 'queries')} without a positive excluded)" if left else ")")
        )

    def _repr_html_(self) -> str:
        from tiir.metrics.recall import by_direction, metrics_of

        return card(repr(self), {}, by_direction({name: m.value for name, m in metrics_of(self).items()}))
