"""An approximate index of a Run's vectors, for searching by hand where looking at all of them takes too long.

Ranks and recall never come from it: they are counted over every candidate.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.errors import MissingExtraError
from tiir.scoring.embeddings import Embeddings
from tiir.scoring.order import best

__all__ = ["TOP", "Index"]

IntArray = npt.NDArray[np.int64]
TOP = 10  # candidates by which an index is measured
GOAL = 0.95  # of them that it must find
SAMPLE = 200  # queries that measure it
ROWS = 1 << 16  # vectors added at a time
PER_LIST = 39, 64  # vectors that the centre of a list is learnt from, fewest and most


class Index:
    """The candidates with the highest inner products, most of them: FAISS's inverted lists (IVF-flat).

    Candidates are sorted into lists by their nearest centre; a search goes through the lists nearest to the query. How
    many lists is measured: twice as many, until the sampled queries find 95% of their exact best 10.

    Args:
        pairs: rows are queries of the kind to come, at least one; columns are the candidates.
        seed: of the queries to sample.

    Raises:
        MissingExtraError: FAISS is not installed.
        RanksError: a vector is NaN or infinite.

    Attributes:
        recall: the share of the exact best 10 that the sampled queries find.
        queries: how many were sampled.
        lists, probes: how many lists there are, and how many a search goes through.
        bytes: memory that it takes (a float32 copy of the vectors, and their numbers).
        seconds: how long it took to build and to measure.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
        >>> index = Index(Embeddings(vectors, vectors))
        >>> bool((vectors[:3] @ vectors[3]).max() < vectors[3] @ vectors[index.near(vectors[3], 1)[0]])
        True
    """

    def __init__(self, pairs: Embeddings, *, seed: int = 0) -> None:
        try:
            import faiss
        except ImportError:
            raise MissingExtraError("faiss-cpu", "faiss") from None
        started = time.perf_counter()
        (n_queries, n), width = pairs.shape, pairs.columns.shape[1]
        pairs.norms  # noqa: B018 - every vector is checked
        random = np.random.default_rng(seed)
        # sqrt(n) lists of sqrt(n) vectors would balance both searches; the usual four times as many are scanned faster.
        self.lists = max(1, min(round(4 * math.sqrt(n)), n // PER_LIST[0]))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, self.lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.spherical, index.cp.seed, index.cp.min_points_per_centroid = True, seed, 1
        learnt = random.choice(n, min(n, self.lists * PER_LIST[1]), replace=False)
        index.train(_rows(pairs.columns, np.sort(learnt)))
        for start in range(0, n, ROWS):
            index.add(_rows(pairs.columns, slice(start, start + ROWS)))
        self._index = index
        self._parameters: Any = faiss.SearchParametersIVF
        self.bytes = n * (4 * width + 8) + self.lists * 4 * width
        self.queries, self.probes = min(SAMPLE, n_queries), 1
        self._measure(pairs, np.sort(random.choice(n_queries, self.queries, replace=False)))
        self.seconds = time.perf_counter() - started

    def near(self, vector: npt.NDArray[Any], depth: int) -> IntArray:
        """Positions of about the best `depth` candidates of a vector (d,), in no order that counts."""
        return self._search(np.asarray(vector, np.float32).reshape(1, -1), depth)[0]

    def _search(self, vectors: npt.NDArray[np.float32], depth: int) -> list[IntArray]:
        depth = min(depth, self._index.ntotal)
        found = self._index.search(vectors, depth, params=self._parameters(nprobe=self.probes))[1]
        few = (found < 0).any(axis=1)  # their lists hold fewer
        if few.any():
            found[few] = self._index.search(vectors[few], depth, params=self._parameters(nprobe=self.lists))[
                1
            ]
        return list(found)

    def _measure(self, pairs: Embeddings, sample: IntArray) -> None:
        top = min(TOP, pairs.shape[1])
        vectors = _rows(pairs.rows, sample)
        last = np.array([scores[-1] for _, scores in best(pairs, sample, top)])
        while True:
            found = np.concatenate(self._search(vectors, top))
            scores = pairs.exact(np.repeat(sample, top), found).reshape(-1, top)
            self.recall = float((scores >= last[:, None]).mean())  # an equal score is as good
            if self.recall >= GOAL or self.probes == self.lists:
                return
            self.probes = min(2 * self.probes, self.lists)


def _rows(vectors: Any, which: Any) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(vectors[which], np.float32)
