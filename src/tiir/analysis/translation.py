"""Which words of one caption go with which words of another of the same image: IBM Model 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sparse

from tiir.analysis.words import Words

__all__ = ["HEARSAY", "Translation", "learn_translation"]

ROUNDS = 3
"""Of expectation maximisation. More rounds sharpen the table to the data set's own phrases."""
HEARSAY = 0.1
"""Share of a caption's words that come from anywhere: keeps one unseen word from ruling a match out."""
LEARN_FROM = 50_000
"""Captions that the table is learnt from, at most; more change little and take memory (8 kB each)."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Translation:
    """How likely a word stands in a caption, given words of another caption of the same image.

    Args:
        table: (n_words, n_words), rows are the given words; a row sums to 1, or to 0 for a word never seen with
            another caption.
        background: how likely each word stands in any caption, (n_words,).
    """

    table: sparse.csr_matrix
    background: npt.NDArray[np.float32]

    def lift(self, bags: sparse.csr_matrix) -> npt.NDArray[np.float32]:
        """log P(word | bag) / P(word) of every word, for bags of words (n_bags, n_words), dense."""
        explained = (_shares(bags) @ self.table).toarray()
        lift: npt.NDArray[np.float32] = np.log((1 - HEARSAY) * explained / self.background + HEARSAY)
        return lift


def learn_translation(words: Words, captions: IntArray | None = None, *, rounds: int = ROUNDS) -> Translation:
    """Learn from each caption and the other captions of its image which words go together.

    Args:
        words: of the data set.
        captions: positions of the captions to learn from; all where None (a seeded sample of 50,000 at most).
        rounds: of expectation maximisation.

    Example:
        >>> texts = ["a cat", "a kitten", "the cat", "a kitten", "a dog", "a puppy"]
        >>> words = Words(texts, np.array([0, 0, 1, 1, 2, 2]), 3)
        >>> table = learn_translation(words).table
        >>> cat, kitten, puppy = (words.position[word] for word in ("cat", "kitten", "puppy"))
        >>> bool(table[cat, kitten] > table[cat, puppy])
        True
    """
    n_words = len(words.vocabulary)
    captions = np.asarray(range(len(words.captions)) if captions is None else captions, np.int64)
    if len(captions) > LEARN_FROM:
        captions = np.sort(np.random.default_rng(0).choice(captions, LEARN_FROM, replace=False))
    mine = words.by_caption[captions]
    rest = (words.by_image[words.caption_image[captions]] - mine).tocsr()
    rest.eliminate_zeros()
    rest = _shares(rest)
    # One entry for every (word of the caption, word of the rest), caption by caption.
    n_mine, n_rest = np.diff(mine.indptr), np.diff(rest.indptr)
    target = np.repeat(mine.indices, np.repeat(n_rest, n_mine))
    n_entries = n_mine.astype(np.int64) * n_rest
    first = np.repeat(np.cumsum(n_entries) - n_entries, n_entries)
    within = np.arange(n_entries.sum()) - first
    width = np.repeat(n_rest, n_entries)
    place = np.repeat(rest.indptr[:-1].astype(np.int64), n_entries) + within % np.maximum(width, 1)
    source, weight = rest.indices[place], rest.data[place]
    spot = np.repeat(np.arange(len(mine.indices)), np.repeat(n_rest, n_mine))  # the word that is explained
    pairs, entry = np.unique(source.astype(np.int64) * n_words + target, return_inverse=True)
    rows, columns = pairs // max(n_words, 1), pairs % max(n_words, 1)
    chance = np.ones(len(pairs))
    for _ in range(rounds):
        share = chance[entry] * weight
        share /= np.bincount(spot, share, minlength=len(mine.indices))[spot]
        chance = np.bincount(entry, share, minlength=len(pairs)).astype(np.float64)
        chance /= np.bincount(rows, chance, minlength=n_words)[rows]
    table = sparse.csr_matrix((chance.astype(np.float32), (rows, columns)), shape=(n_words, n_words))
    uses = words.caption_frequency.astype(np.float64)
    return Translation(table, (uses / max(uses.sum(), 1)).astype(np.float32))


def _shares(bags: sparse.csr_matrix) -> sparse.csr_matrix:
    totals = np.asarray(bags.sum(1)).ravel()
    return (sparse.diags_array(1 / np.maximum(totals, 1)) @ bags).tocsr()
