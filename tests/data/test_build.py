from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tiir.data.build import CaptionRecord, ImageRecord, JudgementRecord, build_dataset
from tiir.data.dataset import Dataset
from tiir.data.problems import Problems, check_split
from tiir.errors import ConfigError, DataError


def captions(*ids: str) -> list[CaptionRecord]:
    return [CaptionRecord(key, key.split("#")[0], f"caption {key}") for key in ids]


def photo(path: Path, size: tuple[int, int] = (4, 3), colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def bad(tmp_path: Path) -> dict[str, object]:
    """One record with every kind of problem, among two good images."""
    root = tmp_path / "photos"
    for name in ("a.png", "b.png", "cut.jpg", "lonely.png"):
        photo(root / name)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(root / "cut.jpg")
    (root / "cut.jpg").write_bytes((root / "cut.jpg").read_bytes()[:2000])
    (root / "page.jpg").write_text("<html>")
    (root / "zero.jpg").touch()
    photo(tmp_path / "outside.png")
    names = ["a.png", "b.png", "cut.jpg", "page.jpg", "zero.jpg", "gone.jpg", "../outside.png", "lonely.png"]
    return {
        "images": [*(ImageRecord(name, name) for name in names), ImageRecord("a.png", "other.png")],
        "captions": [
            *captions(
                "a.png#0",
                "b.png#0",
                "cut.jpg#0",
                "page.jpg#0",
                "zero.jpg#0",
                "gone.jpg#0",
                "../outside.png#0",
            ),
            CaptionRecord("a.png#1", "a.png", " \t\n"),
            CaptionRecord("a.png#0", "b.png", "again"),
            CaptionRecord("who#0", "who", "of nobody"),
            CaptionRecord("a.png#2", "a.png", "half \ud83d a smiley"),
        ],
        "image_root": root,
        "judgements": [
            JudgementRecord("a.png", "b.png#0", 2.0, "expert", (2,)),
            JudgementRecord("a.png", "gone.jpg#0", 1.0, "expert", (1,)),
            JudgementRecord("a.png", "nothing#0", 1.0, "crowd", (0, 3)),
        ],
    }


KINDS = {
    "duplicate image id": ["a.png"],
    "unreadable image": ["cut.jpg", "page.jpg", "zero.jpg"],
    "missing image": ["gone.jpg"],
    "unsafe path": ["../outside.png"],
    "empty caption": ["a.png#1"],
    "duplicate caption id": ["a.png#0"],
    "caption of an unknown image": ["who#0"],
    "broken text": ["'a.png#2'"],
    "image without captions": ["lonely.png"],
    "judgement of an unknown image or caption": ["a.png with nothing#0"],
}
CASCADE = {
    "caption of a skipped image": ["cut.jpg#0", "page.jpg#0", "zero.jpg#0", "gone.jpg#0", "../outside.png#0"],
    "judgement of a skipped image or caption": ["a.png with gone.jpg#0"],
}


def by_kind(rows: object) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for row in rows:
        kinds.setdefault(row["kind"], []).append(row["item"])
    return kinds


def test_one_report_names_everything(bad: dict) -> None:
    with pytest.raises(DataError) as caught:
        build_dataset("pets", "test", **bad)
    message = str(caught.value)
    assert message.startswith("pets/test: 12 problems in the source\n")
    for kind, items in KINDS.items():
        assert f"  {len(items)} x {kind}\n" in message
        assert all(item in message for item in items)
    assert not any(kind in message for kind in CASCADE)  # consequences are no problems of the source
    assert "--on-bad skip" in message


def test_skip_leaves_the_bad_out_and_records_it(bad: dict, tmp_path: Path) -> None:
    data = build_dataset("pets", "test", on_bad="skip", **bad)
    assert data.image_ids == ["a.png", "b.png"]
    assert data.caption_ids == ["a.png#0", "b.png#0"]
    assert data.caption_image.tolist() == [0, 1]
    assert by_kind(data.skipped) == KINDS | CASCADE
    assert data.judgements is not None
    assert (data.judgements.image.tolist(), data.judgements.caption.tolist()) == ([0], [1])
    data.save(tmp_path / "d")
    assert by_kind(Dataset.load(tmp_path / "d").skipped) == KINDS | CASCADE


def test_without_images_only_the_texts_are_checked(bad: dict) -> None:
    bad["image_root"] = None
    data = build_dataset("pets", "test", on_bad="skip", **bad)
    assert data.n_images == 7
    assert data.image_root is None
    assert data.image_paths is None
    assert data.image_columns == {}


def test_an_image_that_loses_all_its_captions_goes_too() -> None:
    images = [ImageRecord("a", "a"), ImageRecord("b", "b")]
    texts = [*captions("a#0"), CaptionRecord("b#0", "b", "")]
    data = build_dataset("pets", "test", images, texts, image_root=None, on_bad="skip")
    assert data.image_ids == ["a"]
    assert by_kind(data.skipped) == {"empty caption": ["b#0"], "image whose captions were skipped": ["b"]}


def test_image_columns(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", (5, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (5, 2)).save(tmp_path / "b.png", exif=exif)
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    images = [ImageRecord(n, f"{n}.png", {"by": n.upper()} if n != "b" else {}) for n in ("a", "b", "copy")]
    data = build_dataset("pets", "test", images, captions("a#0", "b#0", "copy#0"), image_root=tmp_path)
    assert data.image_columns["width"] == [5, 2, 5]  # upright
    assert data.image_columns["height"] == [2, 5, 2]
    assert data.image_columns["by"] == ["A", None, "COPY"]
    digest = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert data.image_columns["sha256"][0] == data.image_columns["sha256"][2] == digest
    assert data.image(1).size == (2, 5)


def test_other_image_bytes_give_another_fingerprint(tmp_path: Path) -> None:
    prints = []
    for colour in ("red", "red", "blue"):
        photo(tmp_path / "a.png", colour=colour)
        data = build_dataset("p", "t", [ImageRecord("a", "a.png")], captions("a#0"), image_root=tmp_path)
        prints.append(data.fingerprint)
    assert prints[0] == prints[1] != prints[2]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip), min_size=1, max_size=6))
def test_texts_are_kept_as_they_are(texts: list[str]) -> None:
    records = [CaptionRecord(str(n), "ä/☃", text) for n, text in enumerate(texts)]
    data = build_dataset("p", "t", [ImageRecord("ä/☃", "x")], records, image_root=None)
    assert list(data.captions) == texts


def test_many_images_keep_their_order(tmp_path: Path) -> None:
    # More images than threads and chunks, of different decoding times.
    names = [f"{i:02d}.png" for i in range(40)]
    for i, name in enumerate(names):
        photo(tmp_path / name, (1 + 300 * (i % 3), i + 1))
    records = [ImageRecord(name, name) for name in reversed(names)]
    data = build_dataset("p", "t", records, captions(*(f"{n}#0" for n in names)), image_root=tmp_path)
    assert data.image_columns["height"] == list(range(40, 0, -1))
    assert [data.image_ids[i] for i in data.caption_image] == names


def test_a_missing_image_is_told_the_name_of_other_capitals_or_another_ending(tmp_path: Path) -> None:
    photo(tmp_path / "IMG_1.JPG")
    images = [ImageRecord(name, name) for name in ("img_1", "img_1.jpg", "IMG_1.jpeg", "img_10")]
    with pytest.raises(DataError, match="4 x missing image") as caught:
        build_dataset("p", "t", images, captions("img_1#0"), image_root=tmp_path)
    near = re.findall(r"^    (\S+): no such file: .*\(there is (.*)\)$", str(caught.value), re.MULTILINE)
    assert near == [(name, "IMG_1.JPG") for name in ("img_1", "img_1.jpg", "IMG_1.jpeg")]


def test_all_images_missing_points_at_the_folder(tmp_path: Path) -> None:
    images = [ImageRecord(str(i), f"{i}.jpg") for i in range(8)]
    with pytest.raises(DataError, match="8 x missing image") as caught:
        build_dataset("p", "t", images, captions(*(f"{i}#0" for i in range(8))), image_root=tmp_path)
    assert "4.jpg" in str(caught.value)
    assert "5.jpg" not in str(caught.value)
    assert "and 3 more" in str(caught.value)
    assert f"is {tmp_path} the right image folder?" in str(caught.value)
    with pytest.raises(DataError, match="no image with a caption is left"):
        build_dataset("p", "t", images, captions("1#0"), image_root=tmp_path, on_bad="skip")
    with pytest.raises(DataError, match="no such image folder"):
        build_dataset("p", "t", images, captions("1#0"), image_root=tmp_path / "none")


def test_what_the_source_found_counts_and_what_it_left_out_does_not() -> None:
    images, texts = [ImageRecord("a", "a")], captions("a#0")
    found = Problems([{"kind": "malformed row", "item": "line 3", "detail": ""}])
    quirk = {"kind": "quirk", "item": "q", "detail": ""}
    with pytest.raises(DataError, match="1 x malformed row"):
        build_dataset("p", "t", images, texts, image_root=None, found=found)
    data = build_dataset(
        "p", "t", images, texts, image_root=None, found=found, left_out=[quirk], on_bad="skip"
    )
    assert by_kind(data.skipped) == {"quirk": ["q"], "malformed row": ["line 3"]}
    assert build_dataset("p", "t", images, texts, image_root=None, left_out=[quirk]).skipped == [quirk]


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="ignore"):
        build_dataset("p", "t", [], [], image_root=None, on_bad="ignore")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no image with a caption"):
        build_dataset("p", "t", [], [], image_root=None)
    check_split("test", {"test": 1}, "x.json")
    with pytest.raises(DataError, match="it has: none"):
        check_split("test", {}, "x.json")
