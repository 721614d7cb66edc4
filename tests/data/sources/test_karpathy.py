from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tiir.data.sources.karpathy import prepare
from tiir.errors import DataError


def record(split: str, filename: str, *texts: str, first: int | None = None, **extra: Any) -> dict[str, Any]:
    sentences = [{"raw": text, "tokens": text.split()} for text in texts]
    if first is not None:
        sentences = [{**s, "sentid": first + n} for n, s in enumerate(sentences)]
    return {"split": split, "filename": filename, "sentences": sentences, **extra}


def write(path: Path, records: list[dict[str, Any]], **extra: Any) -> Path:
    path.write_text(json.dumps({"images": records, **extra}))
    return path


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    records = [
        record("restval", "r.jpg", "one ", first=10, cocoid=7, filepath="val2014"),
        record("test", "e.jpg", "two", "three", first=20, cocoid=8, filepath="val2014"),
        record("train", "t.jpg", "four", first=30, cocoid=9, filepath="train2014"),
        record("val", "v.jpg", "five", first=40, cocoid=10, filepath="val2014"),
    ]
    return write(tmp_path / "dataset_coco.json", records, dataset="coco")


def test_train_joins_restval(coco: Path) -> None:
    data = prepare(coco, split="train", images=None)
    assert data.name == "coco"
    assert data.image_ids == ["7", "9"]  # the order of the file
    assert data.caption_ids == ["10", "30"]
    assert data.captions == ["one ", "four"]  # kept as they are
    assert data.image_columns == {"split": ["restval", "train"]}
    assert prepare(coco, split="train", images=None, restval=False).image_ids == ["9"]
    assert prepare(coco, split="restval", images=None).image_ids == ["7"]
    test = prepare(coco, split="test", images=None)
    assert (test.image_ids, test.caption_ids) == (["8"], ["20", "21"])


def test_images_lie_in_the_folders_of_the_file(coco: Path, tmp_path: Path) -> None:
    for folder, name in [("train2014", "t.jpg"), ("val2014", "r.jpg")]:
        (tmp_path / folder).mkdir()
        Image.new("RGB", (3, 2)).save(tmp_path / folder / name)
    data = prepare(coco, split="train", images=tmp_path)
    assert data.image_paths == ["val2014/r.jpg", "train2014/t.jpg"]
    assert data.image(1).size == (3, 2)
    (tmp_path / "train2014/t.jpg").unlink()
    with pytest.raises(DataError, match="1 x missing image"):
        prepare(coco, split="train", images=tmp_path)
    assert prepare(coco, split="train", images=tmp_path, on_bad="skip").image_ids == ["7"]


def test_flickr30k_has_file_names_only(tmp_path: Path) -> None:
    records = [record("test", "1.jpg", "a", "b", first=0), record("test", "2.jpg", "c")]
    data = prepare(write(tmp_path / "dataset_flickr30k.json", records), split="test", images=None)
    assert data.name == "flickr30k"
    assert data.image_ids == ["1.jpg", "2.jpg"]
    assert data.caption_ids == ["0", "1", "2.jpg#0"]  # no sentid: IMAGE#N


def test_a_missing_split(coco: Path) -> None:
    with pytest.raises(DataError, match="no split 'dev'") as caught:
        prepare(coco, split="dev", images=None)
    for name in ("restval", "test", "train", "val"):
        assert f"{name} (1 image)" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        ([], "no list 'images'"),
        ({"images": {}}, "no list 'images'"),
        ({"images": [3]}, "no list 'images'"),
        ({"images": [{"split": "test", "sentences": []}]}, r"images\[0\] has no 'filename'"),
        ({"images": [{"filename": "a"}]}, r"images\[0\] has no 'split'"),
        ({"images": [{"split": "test", "filename": "a"}]}, r"images\[0\] has no 'sentences'"),
        ({"images": [{"split": "test", "filename": "a", "sentences": [{}]}]}, "has no 'raw'"),
        (
            {"images": [{"split": "test", "filename": "a", "sentences": ["x"]}]},
            r"sentences\[0\] is not an object",
        ),
    ],
)
def test_other_files_are_refused(tmp_path: Path, contents: object, why: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(contents))
    with pytest.raises(DataError, match=why):
        prepare(path, split="test", images=None)


def test_hostile_paths(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "secret.png")
    for filepath in ("..", str(tmp_path)):
        records = [record("test", "secret.png", "a", first=0, filepath=filepath)]
        with pytest.raises(DataError, match="1 x unsafe path"):
            prepare(write(tmp_path / "dataset_x.json", records), split="test", images=tmp_path / "photos")


def test_the_real_test_split(shared: Path) -> None:
    data = prepare(shared / "coco/dataset_coco.json", split="test", images=None)
    assert (data.n_images, data.n_captions) == (5000, 25010)
    assert data.image_ids[0] == "391895"
    assert data.captions_of(0).tolist() == [0, 1, 2, 3, 4]
    assert data.caption_ids[0] == "770337"
    assert data.captions[0] == "A man with a red helmet on a small moped on a dirt road. "
    assert sum(key.startswith("-") for key in data.caption_ids) == 10
    assert data.skipped == []


@pytest.mark.slow
def test_as_many_images_as_coco_val_load_in_seconds(tmp_path: Path) -> None:
    text = "a man riding a wave on top of a surfboard"
    records = [
        record("train", f"COCO_train2014_{i:012d}.jpg", *[text] * 5, first=5 * i, cocoid=i, imgid=i)
        for i in range(40_504)
    ]
    path = write(tmp_path / "dataset_coco.json", records)
    start = time.process_time()
    data = prepare(path, split="train", images=None)
    assert time.process_time() - start < 10  # about 3 s on one core
    assert data.n_captions == 5 * 40_504
