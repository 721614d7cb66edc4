from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tiir.data.sources.folder import prepare
from tiir.errors import DataError

PLAIN = "image,caption\na.jpg,a cat\nsub/b.jpg,a dog\na.jpg,a tabby\n"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "holiday"
    (root / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jpg"):
        Image.new("RGB", (4, 3)).save(root / name)
    (root / "captions.csv").write_text(PLAIN)
    return root


def read(
    root: Path, text: str | bytes, name: str = "captions.csv", **options: object
) -> list[tuple[str, str, str]]:
    raw = text.encode() if isinstance(text, str) else text
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(raw)
    data = prepare(root, **{"split": "test", "images": None, "captions": root / name, **options})
    return [
        (data.image_ids[i], key, text)
        for i, key, text in zip(data.caption_image, data.caption_ids, data.captions, strict=True)
    ]


EXPECTED = [
    ("a.jpg", "a.jpg#0", "a cat"),
    ("sub/b.jpg", "sub/b.jpg#0", "a dog"),
    ("a.jpg", "a.jpg#1", "a tabby"),
]


def test_photos_and_captions(photos: Path) -> None:
    data = prepare(photos, split="test", images=photos)
    assert (data.name, data.split) == ("holiday", "test")
    assert data.image_ids == data.image_paths == ["a.jpg", "sub/b.jpg"]
    assert list(data.captions) == ["a cat", "a dog", "a tabby"]
    assert data.image(1).size == (4, 3)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_dialects(tmp_path: Path, delimiter: str, end: str, mark: str) -> None:
    text = mark + PLAIN.replace(",", delimiter).replace("\n", end)
    assert read(tmp_path, text) == EXPECTED


@pytest.mark.parametrize(
    "image", ["image", "file", "filename", "filepath", "image_path", "File_Name", " Image "]
)
@pytest.mark.parametrize("caption", ["caption", "text", "title", "sentence", "TEXT"])
def test_names_of_columns(tmp_path: Path, image: str, caption: str) -> None:
    rows = [f"{caption},note,{image}", "a cat,x,a.jpg", "a dog,y,sub/b.jpg", "a tabby,z,a.jpg"]
    assert read(tmp_path, "\n".join(rows)) == EXPECTED


def test_quotes_newlines_and_other_delimiters_in_captions(tmp_path: Path) -> None:
    rows = read(tmp_path, 'image;caption\na.jpg;"a cat, ""Tom""\nand; a dog\t."\nb.jpg;x, y and z\n')
    assert [text for _, _, text in rows] == ['a cat, "Tom"\nand; a dog\t.', "x, y and z"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(str.strip),
        min_size=1,
    ),
    delimiter=st.sampled_from(",;\t"),
)
def test_what_the_csv_module_writes_comes_back(tmp_path: Path, texts: list[str], delimiter: str) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerows([["image", "caption"], *(["a.jpg", text] for text in texts)])
    assert [text for _, _, text in read(tmp_path, out.getvalue())] == texts


def test_caption_ids(tmp_path: Path) -> None:
    assert read(tmp_path, "id,image,caption\n7,a.jpg,x\n,a.jpg,y\n") == [
        ("a.jpg", "7", "x"),
        ("a.jpg", "a.jpg#1", "y"),
    ]
    with pytest.raises(DataError, match="1 x duplicate caption id"):
        read(tmp_path, "caption_id,image,caption\n7,a.jpg,x\n7,a.jpg,y\n")


def test_ways_to_write_a_path(tmp_path: Path) -> None:
    rows = read(tmp_path, "image,caption\n./sub/b.jpg,x\nsub\\b.jpg,y\n sub//b.jpg ,z\n")
    assert {image for image, _, _ in rows} == {"sub/b.jpg"}


def test_jsonl(tmp_path: Path) -> None:
    lines = [
        {"image": "a.jpg", "captions": ["a cat", "a tabby\u2028cat"]},
        {"file_name": "b.jpg", "text": "ein Hund ☃", "id": 5},
    ]
    text = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n"
    assert read(tmp_path, text, "captions.jsonl") == [
        ("a.jpg", "a.jpg#0", "a cat"),
        ("a.jpg", "a.jpg#1", "a tabby\u2028cat"),
        ("b.jpg", "5", "ein Hund ☃"),
    ]


def test_bad_lines_of_jsonl(tmp_path: Path) -> None:
    lines = [
        '{"image": "a.jpg", "caption": "fine"}',
        "{",
        "[]",
        '{"image": "b.jpg"}',
        '{"image": 3, "caption": "x"}',
    ]
    lines += [
        '{"image": "b.jpg", "caption": null}',
        '{"image": "b.jpg", "captions": ["x", 1]}',
        '{"image": "c.jpg", "captions": []}',
    ]
    with pytest.raises(DataError, match="6 x malformed row") as caught:
        read(tmp_path, "\n".join(lines), "captions.jsonl")
    assert "captions.jsonl, line 2: not valid JSON" in str(caught.value)
    assert len(read(tmp_path, "\n".join(lines), "captions.jsonl", on_bad="skip")) == 1


def test_rows_with_too_many_or_few_fields(tmp_path: Path) -> None:
    text = "image,caption\na.jpg,a cat, asleep\nb.jpg\n,x\nc.jpg,fine\n"
    with pytest.raises(DataError, match="3 x malformed row") as caught:
        read(tmp_path, text)
    assert "captions.csv, line 2: 3 fields, the header has 2" in str(caught.value)
    assert [image for image, _, _ in read(tmp_path, text, on_bad="skip")] == ["c.jpg"]


def test_a_missing_quote_never_swallows_rows(tmp_path: Path) -> None:
    for text in (
        'image,caption\na.jpg,"a cat\nb.jpg,a dog\n',
        'image,caption\na.jpg,"a cat\nb.jpg,"a dog"\n',
    ):
        with pytest.raises(DataError, match="row that begins at line 2"):
            read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "name", "why"),
    [
        ("a.jpg,a cat\nb.jpg,a dog\n", "captions.csv", "no column for the image; it has: 'a.jpg', 'a cat'"),
        ("image,words\na.jpg,x\n", "captions.csv", "no column for the caption; it has: 'image', 'words'"),
        (
            '{"picture": "a", "caption": "b"}',
            "captions.jsonl",
            "no column for the image; it has: 'picture', 'caption'",
        ),
        ("image,caption,Caption,caption\na.jpg,x,y,z\n", "captions.csv", "has several columns 'caption'"),
        (
            '[{"image": "a.jpg", "caption": "b"}]',
            "captions.json",
            r"captions\.json is JSON\n  -> write JSON lines",
        ),
        (" \n", "captions.csv", "is empty"),
        ("image,caption\n", "captions.csv", "no image with a caption"),
        ("", "captions.jsonl", "no image with a caption"),
    ],
)
def test_files_without_what_is_needed(tmp_path: Path, text: str, name: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read(tmp_path, text, name)


def test_encodings(tmp_path: Path) -> None:
    text = "image,caption\na.jpg,ein Mädchen\n"
    with pytest.raises(DataError, match=r"captions\.csv is not utf-8 text: byte 25 \(0xe4\), line 2"):
        read(tmp_path, text.encode("cp1252"))
    for encoding in ("cp1252", "utf-16", "utf-8", "UTF-8-SIG"):
        rows = read(tmp_path, text.encode(encoding), encoding=encoding)
        assert rows == [("a.jpg", "a.jpg#0", "ein Mädchen")]


def test_images_nobody_described(photos: Path) -> None:
    Image.new("RGB", (4, 3)).save(photos / "sub/forgotten.PNG")
    (photos / ".thumbnails").mkdir()
    Image.new("RGB", (4, 3)).save(photos / ".thumbnails/a.jpg")
    (photos / "notes.txt").touch()
    with pytest.raises(DataError) as caught:
        prepare(photos, split="test", images=photos)
    assert "1 problem in the source" in str(caught.value)
    assert "1 x image without captions\n    sub/forgotten.PNG" in str(caught.value)
    data = prepare(photos, split="test", images=photos, on_bad="skip")
    assert data.image_ids == ["a.jpg", "sub/b.jpg"]
    assert [row["item"] for row in data.skipped] == ["sub/forgotten.PNG"]
    assert prepare(photos, split="test", images=None).skipped == []


def test_paths_out_of_the_folder(photos: Path) -> None:
    Image.new("RGB", (4, 3)).save(photos.parent / "secret.png")
    (photos / "captions.csv").write_text(f"{PLAIN}../secret.png,x\n{photos / 'a.jpg'},y\n")
    with pytest.raises(DataError, match="2 x unsafe path"):
        prepare(photos, split="test", images=photos)


def test_a_column_of_splits(photos: Path) -> None:
    (photos / "captions.csv").write_text("image,caption,split\na.jpg,x,train\nsub/b.jpg,y,test\n")
    data = prepare(photos, split="train", images=photos)  # sub/b.jpg is not an image without captions
    assert data.image_ids == ["a.jpg"]
    with pytest.raises(DataError, match="no split 'val'") as caught:
        prepare(photos, split="val", images=photos)
    assert caught.value.hint == "it has: train (1 image), test (1 image)"


def test_which_file(photos: Path) -> None:
    (photos / "captions.jsonl").write_text('{"image": "a.jpg", "caption": "x"}')
    with pytest.raises(DataError, match="2 captions files"):
        prepare(photos, split="test", images=None)
    (photos / "captions.jsonl").unlink()
    (photos / "captions.csv").unlink()
    with pytest.raises(DataError, match="no captions file: expected"):
        prepare(photos, split="test", images=None)
    (photos / "captions.xlsx").touch()
    with pytest.raises(DataError, match=r"no captions file \(did you mean .*captions\.xlsx\?\)"):
        prepare(photos, split="test", images=None)
    with pytest.raises(DataError, match="no such file"):
        prepare(photos, split="test", images=None, captions=photos / "x.csv")
