"""How well a caption fits an image, judged by what people wrote about that image: no picture is looked at.

A caption that fits another image as well as captions fit their own is a *suspected positive*: a match that nobody
labelled. The evidence:

- a word translation model (IBM Model 1: Brown et al., 1993; as a retrieval model: Berger and Lafferty, 1999), learnt
  from the data set itself: the captions of one image say the same in other words, so which word of one goes with
  which word of another can be estimated. It needs no weights and no download.
- the caption's brevity: what claims less is more often true.
- text vectors of a sentence encoder or of the Run, where there are any (the mean vector taken off first): the mean
  cosine with the two nearest captions of the image, and how much alike the captions of both images are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.sparse as sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from tiir.analysis.translation import Translation, learn_translation
from tiir.analysis.words import Words
from tiir.errors import DataError

__all__ = ["CaptionFit"]

NEAR = 10
"""Nearest other images of a caption that calibrate the suspicion."""
CALIBRATE_ON = 4_000
"""Captions that calibrate it."""
WEIGHTS = {2: np.array([1.0, 0.2]), 4: np.array([0.4, 0.25, 1.0, 0.4])}
"""By the number of kinds of evidence: of translation, brevity, and (where there are vectors) the nearest captions, all
captions of both images. Set by hand, on a broad plateau of what people judged on Flickr8k; the calibration cannot
fit them, for its pairs are chosen by the first."""
BLOCK = 256  # images whose word probabilities are held at once
PAIRS = 8192  # pairs whose text vectors are held at once

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Calibration:
    # From evidence (n_pairs, 2 or 4) to a probability: standardised, added up, and through a logistic curve.
    mean: FloatArray
    spread: FloatArray
    curve: LogisticRegression

    @classmethod
    def of(cls, evidence: FloatArray, own: npt.NDArray[np.bool_]) -> _Calibration:
        if own.all() or not own.any():
            raise DataError(
                "how well captions fit images cannot be learnt: no image has two captions, or there is one image",
                hint="missing labels are diagnosed on data sets with several captions an image",
            )
        made = cls(evidence.mean(0), evidence.std(0) + 1e-9, LogisticRegression(class_weight="balanced"))
        made.curve.fit(made._added(evidence), own)
        return made

    def _added(self, evidence: FloatArray) -> FloatArray:
        added: FloatArray = ((evidence - self.mean) / self.spread) @ WEIGHTS[evidence.shape[1]][:, None]
        return added

    def __call__(self, evidence: FloatArray) -> FloatArray:
        suspicion: FloatArray = self.curve.predict_proba(self._added(evidence))[:, 1]
        return suspicion


class CaptionFit:
    """How well captions fit images, by the images' own captions.

    Args:
        words: of the data set.
        vectors: text vectors of its captions, (n_captions, n_dims), as more evidence; None for none.

    Raises:
        DataError: nothing to learn from: no image has two captions, or there is one image; or vectors of others.

    Example:
        >>> texts = ["a black cat sleeps", "a cat sleeping", "two dogs run", "dogs running", "a cat sleeps", "a cat"]
        >>> fit = CaptionFit(Words(texts, np.array([0, 0, 1, 1, 2, 2]), 3))
        >>> scores = fit(np.array([0, 1]), np.array([4, 4]))  # "a cat sleeps" for the first image and the second
        >>> bool(scores[0] > scores[1])
        True
    """

    def __init__(self, words: Words, vectors: npt.NDArray[np.float32] | None = None) -> None:
        self._words = words
        self._translation = learn_translation(words)
        self._vectors: npt.NDArray[np.float32] | None = None
        if vectors is not None:
            if len(vectors) != len(words.captions):
                raise DataError(
                    f"{len(vectors):,} text vectors for {len(words.captions):,} captions",
                    hint="one row a caption, in their order",
                )
            unit = normalize(np.asarray(vectors, np.float32))
            self._vectors = normalize(unit - unit.mean(0))
        self._calibration = self._calibrate()

    def __call__(self, images: IntArray, captions: IntArray) -> FloatArray:
        """Suspicion for pairs of another image and a caption, (n_pairs,) each: 0 to 1.

        Monotone in the evidence; 0 of a caption without words, which fits nothing. It is 0.5 where a caption's own image and one of its ten nearest others are equally
        likely: a pair above looks more like an image and its own caption than like a near miss.
        """
        images, captions = np.asarray(images), np.asarray(captions)
        if not len(images):
            return np.empty(0)
        suspicion = self._calibration(self._evidence(images, captions, self._translation))
        return np.where(np.diff(self._words.by_caption.indptr)[captions] > 0, suspicion, 0.0)

    def _calibrate(self) -> _Calibration:
        # Each half of the images is judged by what the other half taught: a pair must not vouch for itself.
        words, rng = self._words, np.random.default_rng(0)
        half = rng.permutation(words.n_images) % 2
        evidence, own = [], []
        for side in (0, 1):
            translation = learn_translation(words, np.flatnonzero(half[words.caption_image] != side))
            judged = np.flatnonzero((half[words.caption_image] == side) & (self._n_others > 0))
            judged = rng.choice(judged, min(CALIBRATE_ON // 2, len(judged)), replace=False)
            near = self._nearest(judged, translation)  # (n_judged, NEAR or fewer)
            images = np.concatenate([words.caption_image[judged], near.ravel()])
            captions = np.concatenate([judged, np.repeat(judged, near.shape[1])])
            evidence.append(self._evidence(images, captions, translation))
            own.append(words.caption_image[captions] == images)
        return _Calibration.of(np.concatenate(evidence), np.concatenate(own))

    @cached_property
    def _n_others(self) -> IntArray:
        owner = self._words.caption_image
        return (np.bincount(owner, minlength=self._words.n_images)[owner] - 1).astype(np.int64)

    def _nearest(self, captions: IntArray, translation: Translation) -> IntArray:
        # The other images that captions fit best.
        words = self._words
        bags, lengths = words.by_caption[captions], np.maximum(np.diff(words.by_caption.indptr)[captions], 1)
        fits = np.empty((len(captions), words.n_images), np.float32)
        for start in range(0, words.n_images, BLOCK):
            lift = translation.lift(words.by_image[start : start + BLOCK])
            fits[:, start : start + BLOCK] = (bags @ lift.T) / lengths[:, None]
        fits[np.arange(len(captions)), words.caption_image[captions]] = -np.inf
        number = min(NEAR, words.n_images - 1)
        return (
            np.argpartition(-fits, number - 1, axis=1)[:, :number]
            if number
            else np.empty((len(fits), 0), int)
        )

    def _evidence(self, images: IntArray, captions: IntArray, translation: Translation) -> FloatArray:
        lengths = np.diff(self._words.by_caption.indptr)[captions]
        columns = [self._explained(images, captions, translation), -np.log(np.maximum(lengths, 1))]
        if self._vectors is not None:
            blocks = [slice(start, start + PAIRS) for start in range(0, len(images), PAIRS)]
            columns += [
                np.concatenate([np.empty(0), *(of(images[part], captions[part]) for part in blocks)])
                for of in (self._nearest_captions, self._all_captions)
            ]
        return np.stack(columns, axis=1).astype(np.float64)

    def _explained(self, images: IntArray, captions: IntArray, translation: Translation) -> FloatArray:
        # Mean log lift of a caption's words, given the image's other captions.
        words = self._words
        lengths, explained = np.diff(words.by_caption.indptr), np.zeros(len(images))
        own = words.caption_image[captions] == images
        bag = np.where(own, words.n_images + captions, images)  # an image's captions, or those less this one
        order = np.argsort(bag, kind="stable")
        bags, starts = np.unique(bag[order], return_index=True)
        ends = np.append(starts[1:], len(order))
        for first in range(0, len(bags), BLOCK):
            these = bags[first : first + BLOCK]
            less = these >= words.n_images
            left_out = np.where(less, these - words.n_images, 0)
            image = np.where(less, words.caption_image[left_out], these)
            content = (
                words.by_image[image]
                - sparse.diags_array(less.astype(np.float32)) @ words.by_caption[left_out]
            )
            lift = translation.lift(content.tocsr())
            pairs = order[starts[first] : ends[first + len(these) - 1]]
            row = np.searchsorted(these, bag[pairs])
            asked = words.by_caption[captions[pairs]]
            number = lengths[captions[pairs]]
            spread = np.repeat(np.arange(len(pairs)), number)
            sums = np.bincount(spread, lift[row[spread], asked.indices], minlength=len(pairs))
            explained[pairs] = sums / np.maximum(number, 1)
        return explained

    @cached_property
    def _own(self) -> IntArray:
        # Captions of each image, (n_images, most captions of one), -1 where it has fewer.
        owner, n = self._words.caption_image, self._words.n_images
        order = np.argsort(owner, kind="stable")
        number = np.bincount(owner, minlength=n)
        own = np.full((n, int(number.max(initial=0))), -1, np.int64)
        own[owner[order], np.arange(len(order)) - np.repeat(np.cumsum(number) - number, number)] = order
        return own

    def _cosine(self, a: IntArray, b: IntArray) -> npt.NDArray[np.float32]:
        # Of captions, (n,) each; NaN where one is none, or both are the same.
        assert self._vectors is not None
        cosine: npt.NDArray[np.float32] = np.einsum("nd,nd->n", self._vectors[a], self._vectors[b])
        cosine[(a < 0) | (b < 0) | (a == b)] = np.nan
        return cosine

    def _nearest_captions(self, images: IntArray, captions: IntArray) -> FloatArray:
        # Mean cosine with the two nearest of the image's other captions; 0 where it has none.
        near = np.stack([self._cosine(captions, other) for other in self._own[images].T], axis=1)
        two = -np.sort(-near, axis=1)[:, :2]  # NaN goes last
        return _mean(two)

    def _all_captions(self, images: IntArray, captions: IntArray) -> FloatArray:
        # Mean, over the captions of the caption's image, of the cosine with the nearest of the image's captions.
        best = []
        for mine in self._own[self._words.caption_image[captions]].T:
            near = np.stack([self._cosine(mine, other) for other in self._own[images].T])
            best.append(np.fmax.reduce(near))
        return _mean(np.stack(best, axis=1))


def _mean(values: npt.NDArray[np.float32]) -> FloatArray:
    # Over the columns that are there; 0 where there are none.
    there = np.isfinite(values)
    mean: FloatArray = np.where(there, values, 0).sum(1) / np.maximum(there.sum(1), 1)
    return mean
