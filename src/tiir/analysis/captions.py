"""What a caption's own words say about why it may fail: tags with evidence, no model and no ranks involved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tiir.analysis.typos import Typo, correct
from tiir.analysis.words import NUMBERS, WORD, Words, tokens

__all__ = ["CAPTION_TAGS", "caption_tags"]

FITS = 4
"""Other images that make a caption underspecified: even a perfect model then finds the right one first by luck."""
PICTURED = 1.3
"""Concreteness from which a word counts as one with a picture (1: it tells nothing about the picture)."""
LONG = 0.95
"""Quantile of the captions' lengths above which one is long."""
COLOURS = frozenset(
    tokens(
        "red orange yellow green blue purple violet pink brown black white grey gray golden gold silver beige tan "
        "maroon teal turquoise scarlet crimson navy blond blonde lavender magenta burgundy cream bronze copper"
    )
)
NEGATIONS = frozenset(
    ["no", "not", "without", "none", "nobody", "nothing", "never", "neither", "nor", "cannot"]
)
SPATIAL = re.compile(
    r"\b(?:left|right|above|below|under(?:neath)?|beneath|behind|beside|between|in front of|next to|on top of|"
    r"in the (?:middle|centre|center|corner|background|foreground)|to the side|across from|opposite|inside|outside)\b",
    re.IGNORECASE,
)
CLAUSE = re.compile(
    r"\b(?:which|who|whose|whom|while|whilst|because|although|though|that|where|until|unless)\b",
    re.IGNORECASE,
)
QUOTED = re.compile(r"[\"“”][^\"“”]+[\"“”]|\b(?:says|reads|labell?ed|letters|logo|written)\b", re.IGNORECASE)

CAPTION_TAGS = (
    "typo",
    "underspecified",
    "abstract",
    "long",
    "subordinate clause",
    "counting",
    "colour",
    "spatial relation",
    "negation",
    "rare words",
    "named text",
    "all capitals",
)


@dataclass(frozen=True)
class _Facts:
    # Of the whole data set, once.
    words: Words
    concreteness: dict[str, float]
    long: float


def caption_tags(words: Words, typos: Sequence[Typo], concreteness: pd.DataFrame) -> pd.DataFrame:
    """Tags of every caption.

    - typo: from `tiir.analysis.typos`.
    - underspecified: the captions of at least four other images say, between them, all its words of content
      (typos corrected). An abstract caption is not called underspecified.
    - abstract: no word of content has a picture (concreteness 1.3 or more), where most are common enough to tell.
    - long: more words than 95% of the captions.
    - rare words: a word of content (no typo) that no other image's captions use.
    - counting, colour, spatial relation, negation, subordinate clause, named text (quotations, what signs say,
      names), all capitals: by their words.

    Args:
        words: of the data set.
        typos: of its captions.
        concreteness: of its words.

    Returns:
        A row a caption and tag: caption (position), tag, evidence (text), strength (a number where there is one:
        images that fit, words, the concreteness; else 1).
    """
    lengths = np.array([len(WORD.findall(text)) for text in words.captions])
    values = dict(zip(concreteness["word"], concreteness["concreteness"], strict=True))
    facts = _Facts(words, values, float(np.quantile(lengths, LONG)) if len(lengths) else 0.0)
    slips: dict[int, list[Typo]] = {}
    for typo in typos:
        slips.setdefault(typo.caption, []).append(typo)
    rows = [
        (caption, *found)
        for caption, text in enumerate(words.captions)
        for found in _tags(facts, text, int(words.caption_image[caption]), slips.get(caption, []))
    ]
    return pd.DataFrame(rows, columns=["caption", "tag", "evidence", "strength"])


def _tags(facts: _Facts, text: str, image: int, typos: Sequence[Typo]) -> Iterator[tuple[str, str, float]]:
    meant = tokens(correct(text, typos))
    content = [word for word in dict.fromkeys(meant) if facts.words.is_content(word)]
    if typos:
        yield "typo", ", ".join(f"{typo.wrong} -> {typo.right}" for typo in typos), len(typos)
    known = [facts.concreteness[word] for word in content if word in facts.concreteness]
    if len(known) > len(content) / 2 and max(known) < PICTURED:
        yield "abstract", f"no picture in: {', '.join(content)}", max(known)
    elif (others := facts.words.sayable(content, besides=image)) >= FITS:
        yield "underspecified", f"{others} other images are described with: {', '.join(content)}", others
    if len(meant) > facts.long:
        yield "long", f"{len(meant)} words", len(meant)
    slipped = {typo.wrong.lower() for typo in typos}
    rare = [w for w in dict.fromkeys(tokens(text)) if facts.words.images_with(w) == 1 and w not in slipped]
    if rare := [word for word in rare if facts.words.is_content(word)]:
        yield "rare words", ", ".join(rare), len(rare)
    for tag, found in [
        ("subordinate clause", CLAUSE.findall(text)),
        ("counting", [word for word in meant if word in NUMBERS or word.isdigit()]),
        ("colour", [word for word in meant if word in COLOURS]),
        ("spatial relation", SPATIAL.findall(text)),
        ("negation", [word for word in meant if word in NEGATIONS or word.endswith("n't")]),
        ("named text", [*QUOTED.findall(text), *_names(text)]),
    ]:
        if found:
            yield tag, ", ".join(found), len(found)
    letters = [letter for letter in text if letter.isalpha()]
    if len(letters) > 3 and all(letter.isupper() for letter in letters):
        yield "all capitals", "", 1


def _names(text: str) -> list[str]:
    # Capitals inside a sentence; a caption in capitals, or In Title Case, names nothing.
    found = list(WORD.finditer(text))
    capital = [match[0][0].isupper() for match in found]
    if sum(capital) > max(3, len(found) / 2):
        return []
    return [
        match[0]
        for match, upper in zip(found, capital, strict=True)
        if upper and match[0] != "I" and match.start() and text[: match.start()].rstrip()[-1:] not in '.!?"“'
    ]
