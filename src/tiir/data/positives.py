"""Which (image, caption) pairs are relevant: sparse, many to many, sliced both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.errors import RanksError

__all__ = ["Positives"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Positives:
    """Relevant pairs of an images x captions matrix, sorted by image then caption, without repeats.

    Args:
        image: row of each pair, (n_pairs,).
        caption: column of each pair, (n_pairs,).
        shape: (n_images, n_captions).

    Example:
        >>> positives = Positives.of(np.array([0, 0, 1]), n_images=2)   # the image of each caption
        >>> positives.shape, len(positives)
        ((2, 3), 3)
        >>> positives.per_image.tolist(), positives.per_caption.tolist()
        ([2, 1], [1, 1, 1])
    """

    image: IntArray
    caption: IntArray
    shape: tuple[int, int]

    def __repr__(self) -> str:
        return (
            f"Positives({len(self.image):,} pairs of {self.shape[0]:,} images x {self.shape[1]:,} captions)"
        )

    @classmethod
    def of(cls, relevant: Any, *, n_images: int, n_captions: int | None = None) -> Positives:
        """Accept what people have: the image index of each caption, or an images x captions matrix.

        Args:
            relevant: a Positives; an int array (n_captions,); or a 2-d array or scipy.sparse matrix
                (n_images, n_captions) whose non-zero entries are the relevant pairs.
            n_images: rows of the score matrix.
            n_captions: columns of the score matrix; checked where given.

        Raises:
            RanksError: wrong shape, indices out of range, or a type that is none of these.
        """
        if isinstance(relevant, cls):
            positives = relevant
        elif getattr(relevant, "ndim", None) == 1:
            index = np.asarray(relevant)
            if index.dtype.kind not in "iu":
                raise RanksError(f"positives must be integers (the image of each caption), not {index.dtype}")
            bad = np.flatnonzero((index < 0) | (index >= n_images))
            if len(bad):
                raise RanksError(
                    f"caption {bad[0]} names image {index[bad[0]]}, but there are {n_images} images",
                    hint="positives[c] is the position of caption c's image, from 0",
                )
            positives = cls.pairs(index, np.arange(len(index)), (n_images, len(index)))
        elif getattr(relevant, "ndim", None) == 2:
            # only scipy's sparse matrices keep their own nonzero(): torch's has another layout
            matrix = relevant if hasattr(relevant, "tocsr") else np.asarray(relevant)
            rows, columns = matrix.nonzero()
            positives = cls.pairs(rows, columns, (int(relevant.shape[0]), int(relevant.shape[1])))
        else:
            raise RanksError(
                f"positives must be an int array (n_captions,) or an images x captions matrix, got {type(relevant)}"
            )
        expected = (n_images, positives.shape[1] if n_captions is None else n_captions)
        if positives.shape != expected:
            raise RanksError(
                f"positives are for {positives.shape[0]} images x {positives.shape[1]} captions, "
                f"the scores for {expected[0]} x {expected[1]}",
                hint="rows are images, columns are captions; transpose if it is the other way round",
            )
        return positives

    @classmethod
    def pairs(cls, image: npt.ArrayLike, caption: npt.ArrayLike, shape: tuple[int, int]) -> Positives:
        """From the positions `image` and `caption` of each pair, in any order, repeats merged.

        Raises:
            RanksError: an index lies outside `shape`.
        """
        image, caption = np.asarray(image, np.int64), np.asarray(caption, np.int64)
        for side, index, n in [("image", image, shape[0]), ("caption", caption, shape[1])]:
            if len(index) and not 0 <= index.min() <= index.max() < n:
                raise RanksError(f"a positive names a {side} outside the {n} there are", hint="count from 0")
        key = np.unique(image * max(shape[1], 1) + caption)
        return cls(key // max(shape[1], 1), key % max(shape[1], 1), shape)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def per_image(self) -> IntArray:
        """Number of positives of each image, (n_images,)."""
        return np.bincount(self.image, minlength=self.shape[0])

    @property
    def per_caption(self) -> IntArray:
        """Number of positives of each caption, (n_captions,)."""
        return np.bincount(self.caption, minlength=self.shape[1])

    @property
    def T(self) -> Positives:
        """The same pairs with captions as rows, so that one piece of code serves both directions."""
        return Positives.pairs(self.caption, self.image, (self.shape[1], self.shape[0]))

    def select(self, images: IntArray, captions: IntArray) -> Positives:
        """The pairs within a sub-matrix, renumbered to its rows and columns."""
        row = np.full(self.shape[0], -1, np.int64)
        column = np.full(self.shape[1], -1, np.int64)
        row[images] = np.arange(len(images))
        column[captions] = np.arange(len(captions))
        keep = (row[self.image] >= 0) & (column[self.caption] >= 0)
        return Positives.pairs(
            row[self.image[keep]], column[self.caption[keep]], (len(images), len(captions))
        )
