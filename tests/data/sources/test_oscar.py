from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from PIL import Image

from tiir.data.sources.oscar import prepare
from tiir.errors import DataError

torch = pytest.importorskip("torch")

CAPTIONS = {42: ["a cat", "a tabby"], 7: ["a dog"], 391895: ["a moped", "a road", "a helmet"]}


def folder(
    path: Path, captions: object = CAPTIONS, *, split: str = "test", keys: str | None = "7\n42\n391895\n"
) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    torch.save(captions, path / f"{split}_captions.pt")
    if keys is not None:
        (path / f"{split}_img_keys.tsv").write_text(keys)
    return path


@pytest.mark.parametrize(
    "captions",
    [
        CAPTIONS,
        {str(k): v for k, v in CAPTIONS.items()},
        {k: json.dumps(v) for k, v in CAPTIONS.items()},
        {f"{k:012d}": json.dumps(v) for k, v in CAPTIONS.items()},
    ],
    ids=["int-list", "str-list", "int-json", "padded-json"],
)
@pytest.mark.parametrize("where", [".", "test"])
def test_all_forms_give_the_same(tmp_path: Path, captions: object, where: str) -> None:
    folder(tmp_path / where, captions)
    data = prepare(tmp_path, split="test", images=None)
    assert data.name == "coco"
    assert data.image_ids == ["7", "42", "391895"]  # the order of the key file
    texts = {key: [data.captions[c] for c in data.captions_of(i)] for i, key in enumerate(data.image_ids)}
    assert texts == {str(k): v for k, v in CAPTIONS.items()}
    assert set(data.caption_ids) == {"7#0", "42#0", "42#1", "391895#0", "391895#1", "391895#2"}


def test_without_a_key_file_the_order_of_the_captions_counts(tmp_path: Path) -> None:
    assert prepare(folder(tmp_path, keys=None), split="test", images=None).image_ids == ["42", "7", "391895"]


def test_a_key_list_keeps_just_those(tmp_path: Path) -> None:
    folder(tmp_path)
    keys = tmp_path / "test_img_keys_1k.tsv"
    keys.write_text("391895\r\n42\tsomething\r\n\r\n")
    data = prepare(tmp_path, split="test", images=None, keys=keys)
    assert data.image_ids == ["391895", "42"]
    assert data.n_captions == 5
    assert data.skipped == []
    keys.write_text("42\n99\n100\n")
    with pytest.raises(DataError, match=r"2 of the 3 image ids .* such as 99"):
        prepare(tmp_path, split="test", images=None, keys=keys)


def test_keys_and_captions_that_do_not_match(tmp_path: Path) -> None:
    folder(tmp_path, keys="7\n42\n99\n")
    with pytest.raises(DataError) as caught:
        prepare(tmp_path, split="test", images=None)
    assert "1 x image without captions\n    99" in str(caught.value)
    assert "3 x caption of an unknown image" in str(caught.value)


@pytest.mark.parametrize(
    "paths",
    [
        [
            "train2014/COCO_train2014_000000000007.jpg",
            "val2014/COCO_val2014_000000000042.jpg",
            "val2014/COCO_val2014_000000391895.jpg",
        ],
        ["000000000007.jpg", "000000000042.jpg", "000000391895.jpg"],
        ["train2017/000000000007.jpg", "val2017/000000000042.jpg", "train2017/000000391895.jpg"],
        ["COCO_val2014_000000000007.jpg", "42.jpg", "391895.png"],
    ],
)
def test_images_are_found_where_they_lie(tmp_path: Path, paths: list[str]) -> None:
    for n, path in enumerate(paths, start=1):
        (tmp_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (n, 9)).save(tmp_path / "images" / path)
    data = prepare(folder(tmp_path / "coco_ir"), split="test", images=tmp_path / "images")
    assert data.image_paths == paths
    assert data.image_columns["width"] == [1, 2, 3]
    (tmp_path / "images" / paths[0]).unlink()
    with pytest.raises(DataError, match=r"(?s)1 x missing image.* 7: no such file: .*000000000007\.jpg"):
        prepare(tmp_path / "coco_ir", split="test", images=tmp_path / "images")


def test_a_missing_split(tmp_path: Path) -> None:
    folder(tmp_path)
    folder(tmp_path / "minival", {1: ["x"]}, split="minival")
    with pytest.raises(DataError, match="no split 'val'") as caught:
        prepare(tmp_path, split="val", images=None)
    assert caught.value.hint == "it has: minival (1 image), test (3 images)"


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("pwned"),)  # type: ignore[return-value]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_python_objects_are_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for save in (lambda o, p: torch.save(o, p), lambda o, p: p.write_bytes(pickle.dumps(o))):
        save({1: Evil()}, tmp_path / "test_captions.pt")
        with pytest.raises(DataError, match="cannot be read as plain data"):
            prepare(tmp_path, split="test", images=None)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("captions", "why"),
    [
        (["a"], "holds a list"),
        ({1: 5}, "image 1: captions are not a list of texts, but a int"),
        ({1: ["a", 5]}, "image 1: captions are not a list"),
        ({1: "[broken"}, "image 1: captions are not valid JSON"),
        ({1: ["a"], "0001": ["b"]}, "two keys stand for image 1"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, captions: object, why: str) -> None:
    with pytest.raises(DataError, match=why):
        prepare(folder(tmp_path, captions), split="test", images=None)


def test_a_damaged_file(tmp_path: Path) -> None:
    path = folder(tmp_path) / "test_captions.pt"
    for raw in (path.read_bytes()[:100], b"", b"hello"):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"test_captions\.pt cannot be read"):
            prepare(tmp_path, split="test", images=None)
