from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiir.data.dataset import Dataset
from tiir.data.sources import scenes
from tiir.data.sources.scenes_draw import SIDE, render
from tiir.data.sources.scenes_text import (
    ABSTRACT,
    CONTENT,
    FAULTS,
    NOUNS,
    NUMBERS,
    WHERE,
    Facts,
    slips,
    write_caption,
)
from tiir.data.sources.scenes_world import COLOURS, KINDS, PLACES, sample_scene
from tiir.errors import DataError

N = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    scenes.prepare(folder, split="test", n=N).save(folder)
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return Dataset.load(folder)


def things(data: Dataset, image: int) -> list[dict]:
    return json.loads(data.image_columns["objects"][image])["things"]


def backdrop(data: Dataset, image: int) -> str:
    return json.loads(data.image_columns["objects"][image])["backdrop"]


def with_fault(data: Dataset, fault: str) -> list[int]:
    return [c for c, value in enumerate(data.caption_columns["fault"]) if value == fault]


def test_five_captions_for_each_different_picture(data):
    assert data.n_images == N
    assert data.caption_image.tolist() == [image for image in range(N) for _ in range(5)]
    assert len(set(data.image_columns["objects"])) == N
    assert len(set(data.image_columns["sha256"])) == N


def test_pictures_open_at_their_size(data):
    for image in (0, N - 1):
        assert data.image(image).size == (SIDE, SIDE)
        assert data.image(image).mode == "RGB"
    assert set(data.image_columns["width"]) == set(data.image_columns["height"]) == {SIDE}


def test_same_seed_same_bytes(data, tmp_path):
    again = scenes.prepare(tmp_path, split="test", n=N)
    assert again.fingerprint == data.fingerprint
    for column in ("objects", "sha256"):
        assert again.image_columns[column] == list(data.image_columns[column])
    for image in (0, 7):
        assert again.image_path(image).read_bytes() == data.image_path(image).read_bytes()


def test_other_seed_and_other_split_give_other_pictures(data, tmp_path):
    seen = set(data.image_columns["objects"])
    for seed, split in [(1, "test"), (0, "val"), (0, "train")]:
        other = scenes.prepare(tmp_path / f"{split}{seed}", split=split, n=60, seed=seed)
        assert not seen & set(other.image_columns["objects"])
        assert not seen & set(other.image_columns["sha256"])


def test_boxes_lie_in_the_picture_and_are_as_many_as_counted(data):
    for image in range(N):
        groups = Counter()
        for thing in things(data, image):
            x1, y1, x2, y2 = thing["box"]
            assert 0 <= x1 < x2 <= 1, thing
            assert 0 <= y1 < y2 <= 1, thing
            assert thing["colour"] in COLOURS
            nearest = min(PLACES, key=lambda place: abs(PLACES[place] - (x1 + x2) / 2))
            assert thing["count"] > 1 or nearest == thing["place"]
            groups[thing["kind"], thing["count"]] += 1
        assert 2 <= len(groups) <= 3
        assert all(count == number for (_, count), number in groups.items())


def test_things_are_painted_where_the_boxes_are(data):
    # The colour of a lone thing is found in its box, and a plain picture has fewer colours outside boxes.
    for image in range(40):
        pixels = data.image(image).load()
        for thing in things(data, image)[-1:]:  # the last is in front
            x1, y1, x2, y2 = (int(v * SIDE) for v in thing["box"])
            colour = COLOURS[thing["colour"]]
            near = sum(
                max(abs(a - b) for a, b in zip(pixels[x, y], colour, strict=True)) < 12
                for x in range(x1, x2)
                for y in range(y1, y2)
            )
            assert near > 0.08 * (x2 - x1) * (y2 - y1), (image, thing)


def test_share_of_faults(data):
    counts = Counter(data.caption_columns["fault"])
    assert set(counts) == {"none", *FAULTS}
    assert 0.12 <= 1 - counts["none"] / data.n_captions <= 0.2
    for fault, share in FAULTS.items():
        assert abs(counts[fault] / data.n_captions - share) < 0.02


def test_typos_are_in_the_caption_and_no_words(data):
    typos = with_fault(data, "typo")
    assert typos
    for caption in typos:
        wrong, right = data.caption_columns["fault_detail"][caption].split("->")
        words = re.findall("[a-z]+", data.captions[caption].lower())
        assert wrong in words
        assert wrong not in CONTENT
        assert right in CONTENT
        assert abs(len(wrong) - len(right)) <= 1


def test_wrong_colours_are_said_and_not_drawn(data):
    wrong_ones = with_fault(data, "wrong colour")
    assert wrong_ones
    for caption in wrong_ones:
        wrong, right = data.caption_columns["fault_detail"][caption].split("->")
        text = data.captions[caption].lower()
        nouns = "|".join(noun for nouns in NOUNS.values() for noun in nouns)
        named = re.findall(rf"\b{wrong} ({nouns})s?\b", text)
        drawn = {(thing["kind"], thing["colour"]) for thing in things(data, int(data.caption_image[caption]))}
        kinds = [kind for kind, nouns in NOUNS.items() if set(nouns) & set(named)]
        assert any((kind, wrong) not in drawn and (kind, right) in drawn for kind in kinds), (text, drawn)


def shows(data: Dataset, image: int, text: str) -> bool:
    """Read an underspecified caption as a person would, apart from the code that wrote it."""
    found = things(data, image)
    words = next(
        (key for key, phrases in WHERE.items() if any(text.endswith(phrase) for phrase in phrases)), None
    )
    if words and backdrop(data, image) != words:
        return False
    if match := re.match(r"something (\w+) ", text):
        if match[1] == "up":
            return any(KINDS[thing["kind"]].sky for thing in found)
        return any(thing["colour"] == match[1] for thing in found)
    if text.startswith("a few things"):
        return True
    text = text.removeprefix("a picture of ")
    number = next((n for n, words in NUMBERS.items() if text.startswith(words)), 1)
    noun = next(
        kind
        for kind, nouns in NOUNS.items()
        if any(
            re.match(rf"({'|'.join(NUMBERS.get(number, ('an?',)))}) {noun}s?( |$)", text) for noun in nouns
        )
    )
    return any(thing["kind"] == noun and thing["count"] == number for thing in found)


@pytest.mark.slow
def test_underspecified_captions_fit_several_pictures(data):
    vague = with_fault(data, "underspecified")
    assert vague
    for caption in vague:
        text = data.captions[caption]
        assert shows(data, int(data.caption_image[caption]), text), text
        assert sum(shows(data, image, text) for image in range(N)) >= 3, text


def test_abstract_captions_name_nothing_that_is_drawn(data):
    for caption in with_fault(data, "abstract"):
        assert data.captions[caption] in ABSTRACT
        assert not set(data.captions[caption].split()) & {n for nouns in NOUNS.values() for n in nouns}


def test_captions_without_fault_fit_their_picture_only():
    rng = Random(3)
    pictures = [sample_scene(rng) for _ in range(300)]
    facts = Facts(pictures)
    for i, scene in enumerate(pictures):
        for annotator in range(5):
            caption = write_caption(Random(f"{i}/{annotator}"), annotator, scene, facts)
            alone = Facts([scene]).fits(caption.claims) if caption.claims else 1
            assert alone == 1, "a claim is not true of the picture"
            if caption.fault in ("none", "typo", "wrong colour"):
                assert facts.fits(caption.claims) == 1, caption


def test_annotators_differ(data):
    for image in range(30):
        texts = [data.captions[c] for c in data.captions_of(image)]
        assert len(set(texts)) >= 4


@given(st.integers(0, 10_000))
def test_any_seed_makes_a_scene_that_can_be_drawn(seed):
    scene = sample_scene(Random(seed))
    assert len({group.kind for group in scene.groups}) == len(scene.groups)
    for group in scene.groups:
        assert group.colour in KINDS[group.kind].colours
        assert scene.backdrop in KINDS[group.kind].backdrops
        assert group.count in KINDS[group.kind].counts
    assert render(scene, Random(seed)).size == (SIDE, SIDE)


@given(st.sampled_from(sorted(CONTENT)))
def test_a_slip_differs_in_a_letter_or_two(word):
    assert slips(word)
    for slip in slips(word):
        assert slip[0] == word[0] or sorted(slip) == sorted(word)
        assert slip not in CONTENT


@pytest.mark.parametrize(("split", "n", "what"), [("dev", 3, "no split 'dev'"), ("test", 0, "n is 0")])
def test_bad_options_are_named(tmp_path, split, n, what):
    with pytest.raises(DataError, match=what):
        scenes.prepare(tmp_path, split=split, n=n)


def test_pictures_of_others_stay(tmp_path):
    """Also under the names that Scenes writes, and beside another data set."""
    own = tmp_path / "own"
    scenes.prepare(own, n=3).save(own)
    for name in ("test-mine.png", "test-1.png", "val-000000.png"):
        (own / "images" / name).write_text("mine")
    scenes.prepare(own, n=1).save(own)
    left = ["test-000000.png", "test-1.png", "test-mine.png", "val-000000.png"]
    assert sorted(path.name for path in (own / "images").iterdir()) == left

    other = tmp_path / "other"
    replace(Dataset.load(own), source={"source": "folder"}).save(other)
    (other / "images").mkdir()
    (other / "images" / "test-000000.png").write_text("mine")
    with pytest.raises(DataError, match=r"images already holds files that are not part of Scenes"):
        scenes.prepare(other, n=1)
    assert (other / "images" / "test-000000.png").read_text() == "mine"
    assert Dataset.load(other).n_images == 1


def test_one_picture_is_enough(tmp_path):
    data = scenes.prepare(tmp_path, n=1)
    assert data.n_captions == 5
    assert "underspecified" not in data.caption_columns["fault"]


@pytest.mark.slow
def test_default_sizes(tmp_path):
    assert scenes.prepare(tmp_path / "test").n_images == 1000
    assert scenes.prepare(tmp_path / "val", split="val").n_images == 500
