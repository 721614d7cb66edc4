from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tiir.data.dataset import Dataset, Judgements
from tiir.errors import DataError, ImageError, UnsafePathError
from tiir.io import read_json, write_json

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)  # tabs, newlines, NUL, emoji, marks...


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    image_ids = draw(st.lists(texts, unique=True, min_size=1, max_size=5))
    caption_ids = draw(st.lists(texts, unique=True, max_size=8))
    n, m = len(image_ids), len(caption_ids)
    several = lambda element, size: draw(st.lists(element, min_size=size, max_size=size))  # noqa: E731
    judged = None
    if m and draw(st.booleans()):
        k = draw(st.integers(1, 4))
        judged = Judgements(
            np.array(several(st.integers(0, n - 1), k), np.int64),
            np.array(several(st.integers(0, m - 1), k), np.int64),
            np.array(several(st.floats(0, 4, width=32), k), np.float32),
            several(texts, k),
            several(st.lists(st.integers(0, 9), max_size=3), k),
        )
    return Dataset(
        draw(texts),
        draw(texts),
        image_ids,
        caption_ids,
        several(texts, m),
        np.array(several(st.integers(0, n - 1), m), np.int64),
        image_columns={"note": several(st.none() | texts, n), "width": several(st.integers(0, 9), n)},
        caption_columns={"fault": several(st.none() | texts, m)},
        judgements=judged,
        source={"source": draw(texts)},
        skipped=[{"kind": "k", "item": text, "detail": ""} for text in draw(st.lists(texts, max_size=2))],
    )


def small(**changes: Any) -> Dataset:
    data = Dataset(
        "pets",
        "test",
        ["a", "b", "c"],
        ["a0", "b0", "a1", "c0"],
        ["a cat", "a dog", "a tabby", "a fox"],
        np.array([0, 1, 0, 2]),
        image_columns={"width": [1, 2, 3]},
        caption_columns={"fault": ["typo", None, None, "colour"]},
        judgements=Judgements(
            np.array([0, 1, 2]),
            np.array([1, 1, 2]),
            np.array([1.0, 4.0, 2.5], np.float32),
            ["expert", "crowd", "expert"],
            [(1, 1, 1), (3, 0), (2, 3)],
        ),
        source={"source": "test"},
        skipped=[{"kind": "empty caption", "item": "x", "detail": ""}],
    )
    return replace(data, **changes)


def same(one: Dataset, other: Dataset) -> None:
    for key in ("name", "split", "image_ids", "caption_ids", "captions", "image_paths"):
        left, right = getattr(one, key), getattr(other, key)
        assert left == right, key
    np.testing.assert_array_equal(one.caption_image, other.caption_image)
    assert one.image_columns == other.image_columns
    assert one.caption_columns == other.caption_columns
    assert list(one.skipped) == list(other.skipped)
    assert one.source == other.source
    assert (one.judgements is None) == (other.judgements is None)
    if one.judgements is not None and other.judgements is not None:
        for key in ("image", "caption", "grade"):
            np.testing.assert_array_equal(getattr(one.judgements, key), getattr(other.judgements, key))
        assert list(one.judgements.source) == list(other.judgements.source)
        assert [list(v) for v in one.judgements.votes] == [list(v) for v in other.judgements.votes]
    assert one.fingerprint == other.fingerprint


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(datasets())
def test_round_trip(tmp_path: Path, data: Dataset) -> None:
    data.save(tmp_path / "d", overwrite=True)
    same(Dataset.load(tmp_path / "d"), data)


def test_overwriting_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    small().save(tmp_path)
    with pytest.raises(DataError, match="already holds a data set"):
        small().save(tmp_path)
    plain = small(judgements=None, skipped=())
    plain.save(tmp_path, overwrite=True)
    same(Dataset.load(tmp_path), plain)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "captions.parquet",
        "dataset.json",
        "images.parquet",
    ]


@pytest.mark.parametrize("stem", ["images", "captions", "judgements", "skipped"])
def test_damaged_tables_are_noticed(tmp_path: Path, stem: str) -> None:
    small().save(tmp_path)
    path = tmp_path / f"{stem}.parquet"
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for raw in (whole[:-9], b"", b"not parquet", flipped, whole + b"\0"):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=f"{stem}.parquet was changed or damaged"):
            Dataset.load(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=f"{stem}.parquet is missing"):
        Dataset.load(tmp_path)
    path.write_bytes(whole)
    same(Dataset.load(tmp_path), small())


def test_a_table_of_another_data_set_is_noticed(tmp_path: Path) -> None:
    # Valid Parquet, same shape, one letter different: what a well-meant edit by hand looks like.
    small().save(tmp_path / "one")
    small(captions=["a cat", "a dog", "a tabby", "a fix"]).save(tmp_path / "two")
    (tmp_path / "one/captions.parquet").write_bytes((tmp_path / "two/captions.parquet").read_bytes())
    with pytest.raises(DataError, match="was changed"):
        Dataset.load(tmp_path / "one")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 99}, "format 99"),
        ({"images": 2}, "has 3 rows, dataset.json says 2"),
        ({"captions": "many"}, "captions"),
        ({"fingerprint": "0" * 32}, "fingerprint"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_changed_header_is_noticed(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    small().save(tmp_path)
    write_json(tmp_path / "dataset.json", read_json(tmp_path / "dataset.json") | change)
    with pytest.raises(DataError, match=why):
        Dataset.load(tmp_path)


def test_not_a_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a data set"):
        Dataset.load(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        Dataset.load(tmp_path)


def test_a_half_written_data_set_never_loads(tmp_path: Path) -> None:
    small().save(tmp_path)
    broken = small(captions=["a", "b", "c", "\ud800"])
    with pytest.raises(UnicodeEncodeError):
        broken.save(tmp_path, overwrite=True)
    with pytest.raises(DataError):
        Dataset.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"captions": ["one"]}, "captions has 1 entries, expected 4"),
        ({"caption_image": np.array([0, 1, 0, 3])}, "points outside"),
        ({"caption_image": np.array([0, 1, 0, -1])}, "points outside"),
        ({"image_ids": ["a", "b", "a"]}, "duplicate image id 'a'"),
        ({"caption_ids": ["a0", "b0", "b0", "c0"]}, "duplicate caption id 'b0'"),
        ({"image_paths": ["a.jpg"]}, "image_paths has 1"),
        ({"image_columns": {"width": [1]}}, "image column width has 1"),
        ({"caption_columns": {"fault": [None]}}, "caption column fault has 1"),
    ],
)
def test_inconsistent_parts_are_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=why):
        small(**change)


def test_fingerprint_is_of_what_a_model_sees() -> None:
    base = small().fingerprint
    for same_thing in (
        {"name": "other"},
        {"split": "train"},
        {"judgements": None},
        {"skipped": ()},
        {"source": {}},
        {"image_columns": {}},
        {"caption_columns": {}},
    ):
        assert small(**same_thing).fingerprint == base, same_thing
    for other_thing in (
        {"captions": ["a cat", "a dog", "a tabby", "a fox "]},
        {"captions": ["a dog", "a cat", "a tabby", "a fox"]},
        {"caption_image": np.array([0, 1, 0, 1])},
        {"caption_ids": ["a0", "b0", "a1", "c1"]},
        {"image_ids": ["a", "c", "b"]},
        {"image_ids": ["ab", "", "c"]},  # the same letters, cut elsewhere
    ):
        assert small(**other_thing).fingerprint != base, other_thing
    assert small().subset([0, 1, 2]).fingerprint != small().subset([1, 0, 2]).fingerprint


def test_fingerprint_counts_the_bytes_of_images() -> None:
    hashes = [
        small(image_columns={"sha256": list(h)}, image_root=Path("x")).fingerprint for h in ("abc", "abd")
    ]
    assert hashes[0] != hashes[1]
    unused = [small(image_columns={"sha256": list(h)}).fingerprint for h in ("abc", "abd")]
    assert unused[0] == unused[1] == small().fingerprint


def test_subset() -> None:
    data = small().subset([2, 0])
    assert data.image_ids == ["c", "a"]
    assert data.caption_ids == ["c0", "a0", "a1"]
    assert data.caption_image.tolist() == [0, 1, 1]
    assert data.image_columns == {"width": [3, 1]}
    assert data.caption_columns == {"fault": ["colour", "typo", None]}
    judged = data.judgements
    assert judged is not None
    # of the three pairs, image a with b0 and b with b0 go with image b; c with a1 stays
    assert (judged.image.tolist(), judged.caption.tolist(), judged.grade.tolist()) == ([0], [2], [2.5])
    assert (judged.source, judged.votes) == (["expert"], [(2, 3)])
    assert small().subset([]).n_captions == 0
    assert small().subset([1], name="dogs").name == "dogs"


@settings(deadline=None)
@given(datasets(), st.randoms(use_true_random=False))
def test_subset_keeps_each_caption_with_its_image(data: Dataset, random: Any) -> None:
    rows = random.sample(range(data.n_images), random.randint(0, data.n_images))
    part = data.subset(rows)
    assert part.image_ids == [data.image_ids[i] for i in rows]
    pairs = {(data.image_ids[i], data.caption_ids[c]) for i in rows for c in data.captions_of(i)}
    assert {(part.image_ids[i], part.caption_ids[c]) for c, i in enumerate(part.caption_image)} == pairs
    assert [part.captions[c] for c in range(part.n_captions)] == [
        data.captions[data.caption_position[key]] for key in part.caption_ids
    ]


def test_captions_of_an_image_without_any() -> None:
    data = Dataset("x", "y", ["a", "b", "c"], ["c1", "a1", "c0"], ["1", "2", "3"], np.array([2, 0, 2]))
    assert [data.captions_of(i).tolist() for i in range(3)] == [[1], [], [0, 2]]
    assert len(data.positives) == 3


def test_images_move_with_the_data_set_or_stay_where_they_lie(tmp_path: Path) -> None:
    for folder in (tmp_path / "d/files", tmp_path / "photos"):
        folder.mkdir(parents=True)
        for name in ("a.png", "b.png", "c.png"):
            Image.new("RGB", (2, 1), "red").save(folder / name)
    paths = {"image_paths": ["a.png", "b.png", "c.png"]}
    small(image_root=tmp_path / "d/files", **paths).save(tmp_path / "d")
    (tmp_path / "d").rename(tmp_path / "moved")
    assert Dataset.load(tmp_path / "moved").image(1).size == (2, 1)
    small(image_root=tmp_path / "photos", **paths).save(tmp_path / "d2")
    (tmp_path / "d2").rename(tmp_path / "moved2")
    data = Dataset.load(tmp_path / "moved2")
    assert data.image(2).getpixel((0, 0)) == (255, 0, 0)
    (tmp_path / "photos/c.png").unlink()
    with pytest.raises(ImageError, match=r"c\.png"):
        data.image(2)


def test_image_paths_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="prepared without images"):
        small().image(0)
    data = small(image_root=tmp_path, image_paths=["../a.png", "b.png", "c.png"])
    with pytest.raises(UnsafePathError):
        data.image(0)


@pytest.mark.slow
def test_all_of_coco_loads_in_seconds(tmp_path: Path) -> None:
    n, per = 113_287, 5
    data = Dataset(
        "coco",
        "train",
        [str(i) for i in range(n)],
        [str(i) for i in range(n * per)],
        [f"a photo of number {i} next to some other things" for i in range(n * per)],
        np.repeat(np.arange(n), per),
        tmp_path,
        [f"train2014/COCO_train2014_{i:012d}.jpg" for i in range(n)],
        {"sha256": [f"{i:064x}" for i in range(n)]},
    )
    data.save(tmp_path / "d")
    start = time.process_time()
    loaded = Dataset.load(tmp_path / "d")
    loaded.captions_of(n - 1)
    assert time.process_time() - start < 15  # about 2 s on one core
    assert loaded.fingerprint == data.fingerprint


def test_first_captions_keeps_order_and_says_so():
    own = np.array([2, 0, 1, 0, 2, 2])
    data = Dataset("d", "test", list("abc"), list("uvwxyz"), list("123456"), own)
    cut = data.first_captions(1)
    assert list(cut.caption_ids) == ["u", "v", "w"]
    assert cut.caption_image.tolist() == [2, 0, 1]
    assert list(cut.image_ids) == list("abc")
    assert cut.source["captions_per_image"] == 1
    assert data.first_captions(9).fingerprint == data.fingerprint
