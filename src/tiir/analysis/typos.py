"""Misspelt words in captions, and what they were meant to be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from rapidfuzz.distance import OSA
from spellchecker import SpellChecker

from tiir.analysis.words import WORD, Words

__all__ = ["Typo", "correct", "find_typos", "is_english"]

SHORTEST = 4
"""Letters of a word that is judged: shorter unknown words are mostly abbreviations (tv, suv)."""
COMMON = 10
"""A neighbour that so many times more captions use explains a word better than its being a word of its own."""
LONG = 7
"""Letters of a word that may differ by two slips instead of one from what was meant."""
SEVERAL = 3
"""Captions that make an unknown word one of the field's own (hoodie, wakeboarder)."""
ENGLISH = 0.5
"""Share of the words as used that the dictionary must know: of English it knows 0.99 (Flickr8k), of German 0.3."""
ENDINGS = ("s", "es", "ed", "ing", "er", "ers", "'s")


@dataclass(frozen=True)
class Typo:
    """A word that is no word, and the likeliest one that is.

    Args:
        caption: position of the caption.
        start, end: the characters of the caption it takes.
        wrong: the word as written.
        right: the word it was meant to be, in lower case.
    """

    caption: int
    start: int
    end: int
    wrong: str
    right: str


@cache
def _dictionary() -> SpellChecker:
    return SpellChecker(distance=1)


def is_english(words: Words) -> bool:
    """Whether an English dictionary knows most of the words as used: else it cannot tell typos. Without words, yes.

    Example:
        >>> import numpy as np
        >>> texts = ["ein schwarzer Hund spielt am Strand", "zwei Kinder sitzen auf einer Bank"]
        >>> is_english(Words(texts, np.arange(2), 2)), is_english(Words(["two dogs playing"], np.arange(1), 1))
        (False, True)
    """
    uses = {
        word: int(n)
        for word, n in zip(words.vocabulary, words.caption_frequency, strict=True)
        if len(word) >= SHORTEST and not word.isdigit()
    }
    return sum(n for word, n in uses.items() if word in _dictionary()) >= ENGLISH * sum(uses.values())


def find_typos(words: Words) -> list[Typo]:
    """Words outside the English dictionary and the captions' own habits that have a near neighbour inside.

    A word is left alone when the dictionary of pyspellchecker knows it, when it is shorter than four letters, holds
    a digit, is a name (a capital inside a sentence), an inflection of a known word or two known words in one;
    or when several captions use it and no neighbour is much more common. Slips that make another word ("form" for
    "from") are out of reach.

    Args:
        words: of the captions; the more captions, the better known are the words of their field.

    Returns:
        In the order of the captions; none where the captions are not in English.

    Example:
        >>> import numpy as np
        >>> texts = ["a giarffe eats", "two giraffes eat leaves", "Frisbees by a Labrador"]
        >>> [(typo.wrong, typo.right) for typo in find_typos(Words(texts, np.arange(3), 3))]
        [('giarffe', 'giraffe')]
    """
    if not is_english(words):
        return []
    speller = _Speller(words)
    return [
        Typo(caption, match.start(), match.end(), match[0], right)
        for caption, text in enumerate(words.captions)
        for match in _judged(text)
        if (right := speller.meant(match[0].lower())) is not None
    ]


def correct(text: str, typos: Iterable[Typo]) -> str:
    """A caption with its typos replaced; a capital stays one.

    Example:
        >>> correct("Two giarffs.", [Typo(0, 4, 11, "giarffs", "giraffes")])
        'Two giraffes.'
    """
    for typo in sorted(typos, key=lambda typo: -typo.start):
        right = typo.right.capitalize() if typo.wrong[0].isupper() else typo.right
        text = text[: typo.start] + right + text[typo.end :]
    return text


def _judged(text: str) -> Iterator[re.Match[str]]:
    shouted = text.isupper()
    for match in WORD.finditer(text):
        word = match[0]
        inside = match.start() > 0 and not text[: match.start()].rstrip().endswith((".", "!", "?", '"'))
        named = not shouted and inside and word[0].isupper()
        if len(word) >= SHORTEST and word.isascii() and word.replace("'", "").isalpha() and not named:
            yield match


class _Speller:
    # Every distinct word is judged once.
    def __init__(self, words: Words) -> None:
        self._dictionary = _dictionary()
        self._uses = dict(zip(words.vocabulary, words.caption_frequency.tolist(), strict=True))
        self._longer = [w for w in words.vocabulary if len(w) >= LONG - 1 and w in self._dictionary]
        self._meant: dict[str, str | None] = {}

    def meant(self, word: str) -> str | None:
        if word not in self._meant:
            self._meant[word] = None if self._known(word) else self._nearest(word)
        return self._meant[word]

    def _known(self, word: str) -> bool:
        def listed(part: str) -> bool:
            return part in self._dictionary or self._american(part) in self._dictionary

        if listed(word):
            return True
        stems = (word.removesuffix(end) for end in ENDINGS if word.endswith(end) and not word.endswith("ss"))
        if any(len(stem) >= SHORTEST and (listed(stem) or listed(stem + "e")) for stem in stems):
            return True
        # Two words in one: both must be captions' own, for the dictionary holds scraps ("mish", "ket").
        return any(
            self._uses.get(word[:cut], 0) >= COMMON and self._uses.get(word[cut:], 0) >= COMMON
            for cut in range(3, len(word) - 2)
        )

    @staticmethod
    def _american(word: str) -> str:
        # The dictionary spells the American way.
        return re.sub("our", "or", re.sub("(?<=[bt])re(?=s?$)|(?<=[bt])re(?=d$)", "er", word))

    def _nearest(self, word: str) -> str | None:
        uses, near = self._uses, self._dictionary.edit_distance_1(word)
        enough = COMMON * uses.get(word, 1)
        own = [other for other in near if uses.get(other, 0) >= enough and other in self._dictionary]
        if not own and len(word) >= LONG:
            own = [
                other
                for other in self._longer
                if uses[other] >= enough and OSA.distance(word, other, score_cutoff=2) <= 2
            ]
        if own:
            nearest: str = max(
                own, key=lambda other: (other[0] == word[0], other[-1] == word[-1], uses[other], other)
            )
            return nearest
        if uses.get(word, 0) >= SEVERAL:
            return None
        listed = [other for other in near if other in self._dictionary and other[0] == word[0]]
        best: str | None = max(listed, key=lambda other: (self._dictionary[other], other), default=None)
        return best
