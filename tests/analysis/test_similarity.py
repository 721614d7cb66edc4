from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiir.analysis.similarity import CaptionFit
from tiir.analysis.translation import HEARSAY, learn_translation
from tiir.analysis.words import Words, tokens
from tiir.errors import DataError

VOCABULARY = ["cat", "kitten", "dog", "puppy", "runs", "sleeps"]


@st.composite
def corpora(draw: st.DrawFn) -> Words:
    n_images = draw(st.integers(1, 4))
    owner = [n for n in range(n_images) for _ in range(draw(st.integers(1, 3)))]
    texts = [" ".join(draw(st.lists(st.sampled_from(VOCABULARY), max_size=4))) for _ in owner]
    return Words(texts, np.array(owner), n_images)


def slow_translation(words: Words, rounds: int) -> dict[tuple[str, str], float]:
    # IBM Model 1 as the paper has it: t(word | given), by counting expected alignments.
    pairs = []
    for n, text in enumerate(words.captions):
        others = [
            m
            for m in range(len(words.captions))
            if m != n and words.caption_image[m] == words.caption_image[n]
        ]
        bag = [word for m in others for word in sorted(set(tokens(words.captions[m])))]
        if bag:
            pairs += [(word, bag) for word in sorted(set(tokens(text)))]
    table = {(given_, word): 1.0 for word, bag in pairs for given_ in bag}
    for _ in range(rounds):
        counts = dict.fromkeys(table, 0.0)
        for word, bag in pairs:
            total = sum(table[given_, word] for given_ in bag)
            for given_ in bag:
                counts[given_, word] += table[given_, word] / total
        table = {
            (given_, word): count / sum(c for (other, _), c in counts.items() if other == given_)
            for (given_, word), count in counts.items()
        }
    return table


@settings(max_examples=40)
@given(corpora(), st.integers(1, 3))
def test_translation_is_ibm_model_1(words: Words, rounds: int) -> None:
    table = learn_translation(words, rounds=rounds).table
    slow = slow_translation(words, rounds)
    for a in words.vocabulary:
        for b in words.vocabulary:
            assert table[words.position[a], words.position[b]] == pytest.approx(
                slow.get((a, b), 0.0), abs=1e-5
            )


def pets(n: int = 40) -> Words:
    rng, texts, owner = np.random.default_rng(0), [], []
    for image in range(n):
        kind = ["a cat", "a kitten"] if image % 2 else ["a dog", "a puppy"]
        place = ["on grass", "in a garden"] if image % 3 else ["on a sofa", "in a room"]
        for _ in range(4):
            texts.append(f"{kind[rng.integers(2)]} {place[rng.integers(2)]}")
            owner.append(image)
    return Words(texts, np.array(owner), n)


def test_paraphrases_are_suspected_and_others_are_not() -> None:
    words = pets()
    fit = CaptionFit(words)
    captions = np.repeat(np.arange(len(words.captions)), words.n_images)
    images = np.tile(np.arange(words.n_images), len(words.captions))
    suspicion = fit(images, captions)
    assert ((suspicion >= 0) & (suspicion <= 1)).all()
    owner = words.caption_image[captions]
    other = images != owner
    same = (images % 2 == owner % 2) & ((images % 3 > 0) == (owner % 3 > 0))
    assert suspicion[other & same].mean() > suspicion[other & ~same].max() - 0.05
    assert np.median(suspicion[other & same]) > np.median(suspicion[other & ~same]) + 0.1


def test_evidence_of_an_own_caption_leaves_the_caption_itself_out() -> None:
    texts = ["a zebra", "a dog", "a dog", "a dog", "a cat", "a cat"]
    words = Words(texts, np.array([0, 0, 1, 1, 2, 2]), 3)
    fit = CaptionFit(words)
    evidence = fit._explained(np.array([0]), np.array([0]), fit._translation)
    # "zebra" is in no other caption of image 0, so of it only hearsay is left; "a" comes from "a dog".
    explained = fit._translation.lift(words.by_caption[[1]])[0]
    expected = (explained[words.position["a"]] + explained[words.position["zebra"]]) / 2
    assert evidence[0] == pytest.approx(expected, rel=1e-5)
    assert np.log(HEARSAY) <= explained.min()


def test_evidence_of_vectors_equals_loops() -> None:
    rng = np.random.default_rng(0)
    words = pets(12)
    vectors = rng.normal(size=(len(words.captions), 5)).astype(np.float32)
    fit = CaptionFit(words, vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = unit - unit.mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    owner = words.caption_image
    pairs = [(0, 0), (3, 0), (0, 47), (7, 7)]
    images, captions = np.array(pairs).T
    translation, brevity, nearest, both = fit._evidence(images, captions, fit._translation).T
    for n, (image, caption) in enumerate(pairs):
        others = [m for m in np.flatnonzero(owner == image) if m != caption]
        assert nearest[n] == pytest.approx(np.sort(unit[others] @ unit[caption])[-2:].mean(), abs=1e-5)
        best = [
            max(unit[mine] @ unit[other] for other in np.flatnonzero(owner == image) if other != mine)
            for mine in np.flatnonzero(owner == owner[caption])
        ]
        assert both[n] == pytest.approx(np.mean(best), abs=1e-5)
        assert brevity[n] == pytest.approx(-np.log(len(set(words.captions[caption].split()))))
    assert (translation == fit._explained(images, captions, fit._translation)).all()


def test_an_image_with_one_caption_has_no_evidence_of_its_own_vectors() -> None:
    words = Words(["a cat", "a black cat", "a cat asleep", "one dog"], np.array([0, 0, 0, 1]), 2)
    fit = CaptionFit(words, np.eye(4, dtype=np.float32))
    evidence = fit._evidence(np.array([1]), np.array([3]), fit._translation)
    assert evidence[0, 2:].tolist() == [0, 0]


def test_one_caption_an_image_teaches_nothing() -> None:
    words = Words(["a cat", "a dog"], np.array([0, 1]), 2)
    with pytest.raises(DataError, match="cannot be learnt"):
        CaptionFit(words)


def test_vectors_of_other_captions_are_refused() -> None:
    with pytest.raises(DataError, match="3 text vectors for 160 captions"):
        CaptionFit(pets(), np.ones((3, 2), np.float32))


@pytest.mark.parametrize("text", ["", "...", "\N{BLACK HEART SUIT}"])
def test_a_caption_without_words_is_no_suspect(text: str) -> None:
    words = pets()
    texts = [text, *words.captions[1:]]
    fit = CaptionFit(Words(texts, words.caption_image, words.n_images))
    assert not fit(np.arange(1, 40), np.zeros(39, np.int64)).any()
