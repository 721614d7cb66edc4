"""The words of a data set's captions: which caption and which image uses which word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sparse
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

__all__ = ["NUMBERS", "WORD", "Words", "tokens"]

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
"""A word: letters and digits, with apostrophes inside."""

NUMBERS = frozenset(
    WORD.findall("two three four five six seven eight nine ten eleven twelve dozen pair trio")
)
"""Words that count, besides digits; "one" mostly stands for a pronoun in captions."""

UNCOUNTED = ENGLISH_STOP_WORDS - NUMBERS
"""Words that carry no content of their own (scikit-learn's list, numbers excepted)."""


def tokens(text: str) -> list[str]:
    """The words of a text in lower case.

    Example:
        >>> tokens("A man's dog, on top of 2 cars.")
        ['a', "man's", 'dog', 'on', 'top', 'of', '2', 'cars']
    """
    return [match.lower().replace("’", "'") for match in WORD.findall(text)]


class Words:
    """Which caption and which image uses which word.

    Args:
        captions: texts, n_captions strings.
        caption_image: position of the image that each describes, (n_captions,).
        n_images: number of images.

    Example:
        >>> words = Words(["two dogs run", "dogs on grass", "a cat"], np.array([0, 0, 1]), 2)
        >>> words.vocabulary[:3], words.images_with("dogs")
        (['a', 'cat', 'dogs'], 1)
    """

    def __init__(self, captions: Sequence[str], caption_image: npt.NDArray[np.int64], n_images: int) -> None:
        self.captions, self.caption_image, self.n_images = captions, np.asarray(caption_image), n_images
        counter = CountVectorizer(analyzer=tokens, binary=True, dtype=np.float32)
        try:
            self.by_caption: sparse.csr_matrix = counter.fit_transform(captions)
            self.vocabulary: list[str] = counter.get_feature_names_out().tolist()
        except ValueError:  # no caption has a word
            self.by_caption, self.vocabulary = sparse.csr_matrix((len(captions), 0), dtype=np.float32), []

    @cached_property
    def position(self) -> dict[str, int]:
        """Column of each word."""
        return {word: n for n, word in enumerate(self.vocabulary)}

    @cached_property
    def by_image(self) -> sparse.csr_matrix:
        """How many captions of an image use a word, (n_images, n_words)."""
        n = len(self.captions)
        owner = sparse.csr_matrix(
            (np.ones(n, np.float32), (self.caption_image, np.arange(n))), shape=(self.n_images, n)
        )
        return (owner @ self.by_caption).tocsr()

    @cached_property
    def image_frequency(self) -> npt.NDArray[np.int64]:
        """Number of images whose captions use a word, (n_words,)."""
        counts: npt.NDArray[Any] = np.bincount(self.by_image.indices, minlength=len(self.vocabulary))
        return counts.astype(np.int64)

    @cached_property
    def caption_frequency(self) -> npt.NDArray[np.int64]:
        """Number of captions that use a word, (n_words,)."""
        return np.bincount(self.by_caption.indices, minlength=len(self.vocabulary)).astype(np.int64)

    @staticmethod
    def is_content(word: str) -> bool:
        """Whether a word is more than grammar."""
        return word not in UNCOUNTED

    def images_with(self, word: str) -> int:
        """Number of images whose captions use a word."""
        return int(self.image_frequency[self.position[word]]) if word in self.position else 0

    def of(self, caption: int) -> npt.NDArray[np.int64]:
        """Columns of a caption's words."""
        row = self.by_caption
        columns: npt.NDArray[np.int64] = row.indices[row.indptr[caption] : row.indptr[caption + 1]]
        return columns

    @cached_property
    def _bits(self) -> list[int]:
        # The images that use a word, one bit an image: an AND over a caption's words is one machine step a word.
        columns = self.by_image.tocsc()
        flags = np.zeros(self.n_images, np.uint8)
        bits = []
        for start, end in zip(columns.indptr[:-1], columns.indptr[1:], strict=True):
            flags[columns.indices[start:end]] = 1
            bits.append(int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little"))
            flags[columns.indices[start:end]] = 0
        return bits

    def sayable(self, words: Sequence[str], besides: int | None = None) -> int:
        """Number of images, one left out where given, whose captions together use all the words of content among these.

        A word that no caption uses makes it 0; words without content do not count, and with none left it is 0.
        """
        kept = [self.position.get(word) for word in set(words) if word not in UNCOUNTED]
        if not kept or None in kept:
            return 0
        found = -1 if besides is None else ~(1 << besides)
        for column in kept:
            found &= self._bits[column]  # type: ignore[index]
        return found.bit_count()
