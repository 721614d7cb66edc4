from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tiir.data.dataset import Dataset
from tiir.data.sources.flickr8k import NO_PHOTO, prepare
from tiir.errors import DataError


@pytest.fixture
def small(tmp_path: Path) -> Path:
    files = {
        "Flickr8k.token.txt": "".join(
            f"{image}#{n}\t{n} of {image} .\n"
            for image in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", NO_PHOTO)
            for n in range(2)
        ),
        "Flickr_8k.trainImages.txt": "a.jpg\n",
        "Flickr_8k.devImages.txt": "b.jpg\r\n",
        "Flickr_8k.testImages.txt": "d.jpg\nc.jpg",
        "ExpertAnnotations.txt": "c.jpg\td.jpg#1\t1\t2\t2\nc.jpg\ta.jpg#0\t1\t1\t1\n",
        "CrowdFlowerAnnotations.txt": "d.jpg\td.jpg#0\t0.75\t3\t1\na.jpg\tc.jpg#0\t0\t0\t3\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, newline="")
    return tmp_path


def test_a_split_in_the_order_of_its_list(small: Path) -> None:
    data = prepare(small, split="test", images=None)
    assert data.image_ids == ["d.jpg", "c.jpg"]
    assert data.caption_ids == ["d.jpg#0", "d.jpg#1", "c.jpg#0", "c.jpg#1"]
    assert data.captions[1] == "1 of d.jpg ."
    judged = data.judgements
    assert judged is not None
    # image c with caption d#1, image d with caption d#0; pairs with images of other splits stay out
    assert (judged.image.tolist(), judged.caption.tolist()) == ([1, 0], [1, 0])
    np.testing.assert_allclose(judged.grade, [5 / 3, 0.75])
    assert (judged.source, judged.votes) == (["expert", "crowd"], [(1, 2, 2), (3, 1)])
    assert prepare(small, split="val", images=None).image_ids == ["b.jpg"]
    assert data.skipped == prepare(small, split="val", images=None).skipped == []


def test_all_and_the_entry_without_a_photo(small: Path) -> None:
    data = prepare(small, split="all", images=None)
    assert data.image_ids == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert data.image_columns["split"] == ["train", "val", "test", "test"]
    assert [row["item"] for row in data.skipped] == [NO_PHOTO, f"{NO_PHOTO}#0", f"{NO_PHOTO}#1"]
    assert data.judgements is not None
    assert len(data.judgements) == 4


def test_a_missing_split(small: Path) -> None:
    with pytest.raises(DataError, match="no split 'dev'") as caught:
        prepare(small, split="dev", images=None)
    assert caught.value.hint == "it has: train (1 image), val (1 image), test (2 images), all (4 images)"


@pytest.mark.parametrize(
    ("name", "line", "why"),
    [
        ("Flickr8k.token.txt", "d.jpg#0 no tab", "line 11: expected 2 fields"),
        ("Flickr8k.token.txt", "d.jpg\tno number", "line 11: expected IMAGE#N"),
        ("ExpertAnnotations.txt", "c.jpg\td.jpg#1\t1\t2", "line 3: expected 5 fields"),
        ("ExpertAnnotations.txt", "c.jpg\td.jpg#1\t1\t2\tx", "line 3: votes are not whole numbers"),
        ("CrowdFlowerAnnotations.txt", "c.jpg\td.jpg#1\t0\t0\t0", "line 3: no votes"),
        ("Flickr8k.token.txt", "d.jpg#0\tagain", "1 x duplicate caption id"),
        ("Flickr8k.token.txt", "d.jpg#3\t ", "1 x empty caption"),
        ("Flickr_8k.testImages.txt", "\nc.jpg", "1 x duplicate image id"),
        ("Flickr_8k.testImages.txt", "\ne.jpg", "1 x image without captions"),
        ("ExpertAnnotations.txt", "c.jpg\tnone.jpg#1\t1\t2\t2", "1 x judgement of an unknown"),
    ],
)
def test_bad_lines(small: Path, name: str, line: str, why: str) -> None:
    with open(small / name, "a", newline="") as file:
        file.write(line)
    with pytest.raises(DataError, match=why):
        prepare(small, split="test", images=None)


def test_a_missing_file(small: Path) -> None:
    (small / "ExpertAnnotations.txt").unlink()
    with pytest.raises(DataError, match=r"no such file: .*ExpertAnnotations\.txt"):
        prepare(small, split="test", images=None)


@pytest.mark.slow
def test_the_real_test_split(shared: Path, tmp_path: Path) -> None:
    data = prepare(shared / "flickr8k", split="test", images=shared / "flickr8k/Images")
    assert (data.n_images, data.n_captions) == (1000, 5000)
    assert data.image_ids[0] == "3385593926_d3e9c21170.jpg"  # the first of the list
    assert set(data.image_columns["width"]) == set(data.image_columns["height"]) == {224}
    assert len(set(data.image_columns["sha256"])) == 1000
    data.save(tmp_path / "d")
    loaded = Dataset.load(tmp_path / "d")
    assert loaded.image(999).size == (224, 224)
    assert loaded.fingerprint == data.fingerprint


@pytest.mark.slow
def test_all_of_the_real_one(shared: Path) -> None:
    data = prepare(shared / "flickr8k", split="all", images=shared / "flickr8k/Images")
    assert (data.n_images, data.n_captions) == (8091, 40455)
    assert Counter(data.image_columns["split"]) == {"train": 6000, "val": 1000, "test": 1000, None: 91}
    assert data.judgements is not None
    assert Counter(data.judgements.source) == {"expert": 5822, "crowd": 47830}
    experts = np.array(data.judgements.source) == "expert"
    assert data.judgements.grade[experts].min() == 1
    assert data.judgements.grade[experts].max() == 4
    assert (data.judgements.grade[~experts] <= 1).all()
    assert len(data.skipped) == 6
