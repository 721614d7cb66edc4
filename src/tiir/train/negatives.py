"""Which pairs are no true ones, and which of these a model confuses with true ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tiir.data.dataset import Dataset
from tiir.progress import track

if TYPE_CHECKING:
    from tiir.scoring.run import Run

__all__ = ["HardNegatives", "TruePairs", "hard_negatives"]

IntArray = npt.NDArray[np.int64]
Positions = npt.NDArray[np.integer[Any]] | np.integer[Any] | int
TILE = 2048  # images and captions scored at a time: 16 MB


class TruePairs:
    """The pairs that must not be taken for negatives: an image with its captions, and with any of the same text.

    Args:
        dataset: images and captions.

    Example:
        >>> texts = ["a cat", "a dog", "a cat"]
        >>> data = Dataset("pets", "train", ["a", "b"], ["0", "1", "2"], texts, np.array([0, 0, 1]))
        >>> TruePairs(data)(np.array([[0], [1]]), np.array([[0, 1, 2]])).tolist()
        [[True, True, True], [True, False, True]]
    """

    def __init__(self, dataset: Dataset) -> None:
        seen: dict[str, int] = {}
        self._text = np.array([seen.setdefault(text, len(seen)) for text in dataset.captions], np.int64)
        self._texts = max(1, len(seen))
        self._pairs = np.unique(dataset.caption_image * self._texts + self._text)

    def __call__(self, images: Positions, captions: Positions) -> npt.NDArray[np.bool_]:
        """Whether pairs are true; the positions broadcast."""
        wanted = images * self._texts + self._text[captions]
        at = np.minimum(np.searchsorted(self._pairs, wanted), len(self._pairs) - 1)
        found: npt.NDArray[np.bool_] = self._pairs[at] == wanted
        return found

    def block(self, images: range, captions: IntArray) -> npt.NDArray[np.bool_]:
        """Whether each of adjacent images and each of some captions are a true pair, (len(images), len(captions))."""
        texts, column = np.unique(self._text[captions], return_inverse=True)
        ends = np.searchsorted(self._pairs, np.array([images.start, images.stop]) * self._texts)
        image, text = np.divmod(self._pairs[slice(*ends)], self._texts)
        here = np.isin(text, texts)
        true = np.zeros((len(images), len(texts)), np.bool_)
        true[image[here] - images.start, np.searchsorted(texts, text[here])] = True
        return true[:, column]


@dataclass(frozen=True)
class HardNegatives:
    """The negatives that score best, best first; -1 where there are no more.

    Args:
        captions: (n_images, depth) int32, captions of other images.
        images: (n_captions, depth) int32, other images.
    """

    captions: npt.NDArray[np.int32]
    images: npt.NDArray[np.int32]


def hard_negatives(run: Run, dataset: Dataset, *, depth: int = 20, tile: int = TILE) -> HardNegatives:
    """What a Run confuses: each image's best scored wrong captions, each caption's best scored wrong images.

    Pairs without a score (NaN) are no negatives.

    Args:
        run: scores of the training data set, such as a dual encoder's.
        dataset: the training data set.
        depth: negatives of each image and of each caption.
        tile: images and captions scored at a time.

    Raises:
        RunError: the Run belongs to another data set, or is a cascade.
    """
    run.check(dataset)
    true = TruePairs(dataset)
    by_image = _Best(dataset.n_images, depth)
    by_caption = _Best(dataset.n_captions, depth)
    tops = range(0, dataset.n_images, tile)
    for top in track(tops, total=dataset.n_images, description="hard negatives", unit="images", step=tile):
        rows = range(top, min(top + tile, dataset.n_images))
        images = np.array(rows)
        for left in range(0, dataset.n_captions, tile):
            captions = np.arange(left, min(left + tile, dataset.n_captions))
            scores = run.block(images, captions)
            scores = np.where(np.isnan(scores) | true.block(rows, captions), -np.inf, scores)
            by_image.merge(images, captions, scores)
            by_caption.merge(captions, images, scores.T)
    return HardNegatives(by_image.items, by_caption.items)


class _Best:
    # The best candidates of each query so far, best first.
    def __init__(self, queries: int, kept: int) -> None:
        self.items = np.full((queries, kept), -1, np.int32)
        self.scores = np.full((queries, kept), -np.inf, np.float32)

    def merge(self, queries: IntArray, candidates: IntArray, scores: npt.NDArray[Any]) -> None:
        Q, kept = len(queries), self.items.shape[1]
        if len(candidates) > kept:
            at = np.argpartition(scores, -kept, axis=1)[:, -kept:]  # (Q, kept)
            scores, items = np.take_along_axis(scores, at, 1), candidates[at]
        else:
            items = np.broadcast_to(candidates, (Q, len(candidates)))
        items = np.concatenate([self.items[queries], items], 1)
        scores = np.concatenate([self.scores[queries], scores], 1)
        items = np.where(np.isneginf(scores), -1, items)
        order = np.lexsort((items, -scores))[:, :kept]
        self.items[queries] = np.take_along_axis(items, order, 1)
        self.scores[queries] = np.take_along_axis(scores, order, 1)
