"""The vectors of a Run as candidates: the best of them for a new vector, looked for among all or in an index."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.data.positives import Positives
from tiir.data.protocols import Gallery
from tiir.report.index import Index
from tiir.scoring.embeddings import Embeddings
from tiir.scoring.order import best
from tiir.scoring.run import Run
from tiir.scoring.shortlist import Listed

__all__ = ["Sides"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class Sides:
    """A Run's vectors as candidates, with what scoring against them takes, computed once.

    Args:
        run: with embeddings.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._indexes = run, dict[str, Index]()

    def hold(self, run: Run) -> bool:
        """Whether another Run's vectors are these."""
        pairs = (run.image_embeds, self._run.image_embeds), (run.text_embeds, self._run.text_embeds)
        return all(np.array_equal(np.asarray(one), np.asarray(other)) for one, other in pairs)

    @cached_property
    def _images(self) -> Embeddings:
        assert self._run.image_embeds is not None
        images = np.asarray(self._run.image_embeds)
        return Embeddings(images[:1], images)

    @cached_property
    def _captions(self) -> Embeddings:
        assert self._run.text_embeds is not None
        captions = np.asarray(self._run.text_embeds)
        return Embeddings(captions[:1], captions)

    def build(self, say: Callable[[str], None]) -> None:
        """Make an index of both sides, each measured by the other as queries."""
        images, captions = self._images.columns, self._captions.columns
        for name, pairs in {
            "images": Embeddings(captions, images),
            "captions": Embeddings(images, captions),
        }.items():
            self._indexes[name] = index = Index(pairs)
            say(
                f"{self._run.name}: index of {pairs.shape[1]:,} {name}: {index.bytes / 1e6:,.0f} MB, "
                f"{index.seconds:.1f} s; it finds {100 * index.recall:.1f}% of the exact best 10 "
                f"({index.queries} queries), in {index.probes} of {index.lists} lists"
            )

    def approximate(self, side: str) -> dict[str, Any] | None:
        """What an index of "images" or "captions" finds, measured when it was built; None where there is none."""
        index = self._indexes.get(side)
        return None if index is None else {"recall": round(index.recall, 4), "queries": index.queries}

    def images(
        self, vector: FloatArray, depth: int, *, listed: Listed | None = None, exact: bool = False
    ) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """The best images for the vector of a text, (1, d); with `exact` not from an index."""
        return self._best(vector, self._images, depth, None if exact else self._indexes.get("images"), listed)

    def captions(self, vector: FloatArray, depth: int) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """The best captions for the vector of a picture, (1, d)."""
        return self._best(vector, self._captions, depth, self._indexes.get("captions"), None)

    def _best(
        self, vector: FloatArray, against: Embeddings, depth: int, index: Index | None, listed: Listed | None
    ) -> tuple[IntArray, npt.NDArray[np.float64]]:
        query = np.zeros(1, np.int64)
        if index is None:
            return next(best(_Asked(vector, against), query, depth, listed=listed))
        # What the index suggests, scored and ordered as everything would be.
        more = np.empty(0, np.int64) if listed is None else listed.candidate
        some = np.union1d(index.near(vector, depth + len(more)), more)
        if listed is not None:
            listed = Listed(listed.query, np.searchsorted(some, more), listed.score)
        found, scores = next(best(_Asked(vector, _part(against, some)), query, depth, listed=listed))
        return some[found], scores

    def ranked(
        self, vector: FloatArray, gallery: Gallery, own: IntArray, listed: Listed | None
    ) -> tuple[int, IntArray, npt.NDArray[np.float64]]:
        """All images of a gallery in order, and the rank of the first of `own` among them."""
        images, n = self._images, len(gallery.images)
        if n < images.shape[1]:
            images = _part(images, gallery.images)
        positives = Positives.pairs(np.zeros(len(own), np.int64), own, (1, n))
        pairs = _Asked(vector, images)
        order, scores = next(best(pairs, np.zeros(1, np.int64), n, positives=positives, listed=listed))
        return 1 + int(np.flatnonzero(np.isin(order, own))[0]), order, scores


class _Asked(Embeddings):
    """New rows against columns whose lengths are known already."""

    def __init__(self, rows: FloatArray, against: Embeddings) -> None:
        self.names, self.rows, self.columns = against.names, rows, against.columns
        self.shape, self.dtype = (len(rows), against.shape[1]), against.dtype
        lengths = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
        self.norms = lengths, against.norms[1]


def _part(against: Embeddings, columns: IntArray) -> Embeddings:
    known = against.norms[0], against.norms[1][columns]
    return Embeddings(against.rows, against.columns[columns], against.names, known=known)
