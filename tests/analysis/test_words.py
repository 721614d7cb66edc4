from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiir.analysis.captions import FITS, caption_tags
from tiir.analysis.typos import correct, find_typos, is_english
from tiir.analysis.words import UNCOUNTED, Words, tokens

TEXTS = st.lists(st.text("abc dog cat red.", max_size=20), min_size=1, max_size=8)


def words_of(texts: list[str], owner: list[int] | None = None) -> Words:
    place = np.arange(len(texts)) if owner is None else np.array(owner)
    return Words(texts, place, int(place.max()) + 1 if len(place) else 0)


@given(TEXTS, st.integers(1, 3))
def test_words_count_what_a_loop_counts(texts: list[str], n_images: int) -> None:
    owner = np.arange(len(texts)) % n_images
    words = Words(texts, owner, n_images)
    said = [
        {word for text, image in zip(texts, owner, strict=True) if image == n for word in tokens(text)}
        for n in range(n_images)
    ]
    assert words.vocabulary == sorted(set().union(*said))
    for word in words.vocabulary:
        assert words.images_with(word) == sum(word in of_image for of_image in said)
        assert words.caption_frequency[words.position[word]] == sum(word in tokens(text) for text in texts)
    for text in texts:
        content = {word for word in tokens(text) if word not in UNCOUNTED}
        expected = sum(content <= of_image for of_image in said) if content else 0
        assert words.sayable(tokens(text)) == expected


def test_a_word_that_nobody_uses_fits_no_image() -> None:
    assert words_of(["a red cat", "a red dog"]).sayable(["red", "zebra"]) == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("two giarffe eat", [("giarffe", "giraffe")]),  # letters swapped
        ("Giarffe by a tree", [("Giarffe", "giraffe")]),  # a capital at the start names nothing
        ("a sbowboarder", [("sbowboarder", "snowboarder")]),
        ("a colourful theatre", []),  # British
        ("a man by Mettmann", []),  # a name
        ("an old tv and a suv", []),  # too short to tell
        ("two frisbees", []),  # inflection of a known word
        ("number 23b", []),
        ("", []),
    ],
)
def test_typos(text: str, found: list[tuple[str, str]]) -> None:
    # Most captions use the right words: those are the field's own.
    others = ["a giraffe and a snowboarder"] * 12
    typos = [typo for typo in find_typos(words_of([text, *others])) if typo.caption == 0]
    assert [(typo.wrong, typo.right) for typo in typos] == found
    for typo in typos:
        assert text[typo.start : typo.end] == typo.wrong
    fixed = correct(text, typos)
    assert not [t for t in find_typos(words_of([fixed, *others])) if t.caption == 0]


def test_a_word_that_several_captions_use_is_the_fields_own() -> None:
    assert not find_typos(words_of(["a wakeboarder", "the wakeboarder jumps", "one wakeboarder"]))
    common = ["a white house"] * 40 + ["a whte house"] * 3  # unless a neighbour is far commoner
    assert {typo.right for typo in find_typos(words_of(common))} == {"white"}


def tags_of(texts: list[str], concreteness: dict[str, float] | None = None) -> list[dict[str, str]]:
    values = pd.DataFrame(
        {"word": list(concreteness or {}), "images": 9, "concreteness": list((concreteness or {}).values())}
    )
    words = words_of(texts)
    table = caption_tags(words, find_typos(words), values)
    return [
        dict(zip(*(table.loc[table["caption"] == n, c] for c in ("tag", "evidence")), strict=True))
        for n in range(len(texts))
    ]


@pytest.mark.parametrize(
    ("text", "tag", "evidence"),
    [
        ("three dogs", "counting", "three"),
        ("2 dogs", "counting", "2"),
        ("a pink dog", "colour", "pink"),
        ("a dog in front of a car", "spatial relation", "in front of"),
        ("a dog without a collar", "negation", "without"),
        ("it isn't raining", "negation", "isn't"),
        ("a dog which barks", "subordinate clause", "which"),
        ('a sign that says "stop"', "named text", 'says, "stop"'),
        ("a street of Paris by night", "named text", "Paris"),
        ("A DOG RUNS", "all capitals", ""),
    ],
)
def test_tags_with_evidence(text: str, tag: str, evidence: str) -> None:
    assert tags_of([text, "a plain caption of nothing"])[0][tag] == evidence


def test_plain_captions_have_none_of_them() -> None:
    tags = tags_of(["a dog runs", "a dog runs"])[0]
    assert not set(tags) - {"long"}


def test_underspecified_needs_so_many_other_images() -> None:
    texts = ["a dog runs"] * (FITS + 1)
    assert tags_of(texts)[0]["underspecified"].startswith(f"{FITS} other images")
    assert "underspecified" not in tags_of(texts[1:])[0]
    # A typo is read as what was meant, and the own image is then not among those that say it.
    assert tags_of(["a dog rnus", *texts[1:]])[0]["underspecified"].startswith(f"{FITS} other images")


def test_abstract_is_not_underspecified() -> None:
    texts = ["a moment of hope"] * 9
    assert set(tags_of(texts, {"moment": 1.0, "hope": 0.9})[0]) == {"abstract"}
    assert "abstract" not in tags_of(texts, {"moment": 1.0, "hope": 2.0})[0]
    assert "abstract" not in tags_of(texts)[0]  # nothing is known of the words


def test_rare_words_are_of_no_other_image_and_no_typos() -> None:
    first = tags_of(["a zebra and a giarffe", "a giraffe", "a giraffe"])[0]
    assert first["rare words"] == "zebra"


def test_captions_in_another_language_have_no_typos() -> None:
    german = words_of(["zwei Kinder spielen im Sand", "eine Frau steht am Strand", "drei Hunde rennen"])
    assert not is_english(german)
    assert not find_typos(german)
    assert is_english(words_of(["...", "2 a"]))  # nothing speaks against it


def test_the_own_image_is_never_one_of_the_others_that_fit() -> None:
    # Image 0's other caption says the corrected word, so the image itself fits; it does not count.
    texts = ["a brown rabit", "a brown rabbit", *["a brown rabbit"] * FITS]
    words = words_of(texts, [0, 0, *range(1, FITS + 1)])
    tags = caption_tags(words, find_typos(words), pd.DataFrame({"word": [], "concreteness": []}))
    assert (tags["tag"] == "typo").sum() == 1
    found = tags.loc[tags["tag"] == "underspecified", "strength"]
    assert found.tolist() == [FITS] * len(texts)
