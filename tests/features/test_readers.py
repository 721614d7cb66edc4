"""Each layout against files written by hand, as their programs write them."""

from __future__ import annotations

import base64
import csv
import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, DataError
from tiir.features.ids import bare_id, match_ids
from tiir.features.readers import _READERS, convert, detect

N, R, D = 4, 3, 8
SIZE = (500, 333)  # width, height
IDS = ["391895", "522418", "184613", "42"]


def features(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.random((n, R, 2, 2)), axis=2).reshape(n, R, 4)
    return rng.normal(size=(n, R, D)).astype(np.float32), boxes.astype(np.float32)


def coco(number: str) -> str:
    return f"COCO_val2014_{number:0>12}"


def write_h5(path: Path, ids: list[str], regions: np.ndarray, boxes: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, values, places in zip(ids, regions, boxes, strict=True):
            group = file.create_group(str(name))
            group.create_dataset("visual_feats", data=values, dtype=np.float32)
            group.create_dataset("visual_pos", data=places, dtype=np.float32)
    return path


def write_npz(path: Path, ids: list[str], regions: np.ndarray, boxes: np.ndarray) -> Path:
    (path / "val2014").mkdir(parents=True, exist_ok=True)
    for name, values, places in zip(ids, regions, boxes, strict=True):
        np.savez_compressed(path / "val2014" / f"{name}.npz", visual_feats=values, visual_pos=places)
    return path


def encoded(array: Any, dtype: str = "<f4") -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode()


def tsv_row(name: str, values: np.ndarray, pixels: np.ndarray) -> list[Any]:
    n = len(values)
    ids, confidences = encoded(np.zeros(n), "<i8"), encoded(np.zeros(n))
    return [name, SIZE[1], SIZE[0], ids, confidences, ids, confidences, n, encoded(pixels), encoded(values)]


def write_tsv(path: Path, ids: list[str], regions: np.ndarray, boxes: np.ndarray) -> Path:
    with open(path, "w", newline="") as file:
        lines = csv.writer(file, delimiter="\t", lineterminator="\n")
        for name, values, places in zip(ids, regions, boxes, strict=True):
            lines.writerow(tsv_row(name, values, places * np.tile(SIZE, 2)))
    return path


def write_old_tsv(path: Path, ids: list[str], regions: np.ndarray, boxes: np.ndarray) -> Path:
    """The six columns of bottom-up-attention itself, where the width comes before the height."""
    rows = [
        [name, *map(str, SIZE), str(R), encoded(places * np.tile(SIZE, 2)), encoded(values)]
        for name, values, places in zip(ids, regions, boxes, strict=True)
    ]
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return path


WRITERS = {"h5": write_h5, "npz": write_npz, "tsv": write_tsv, "old.tsv": write_old_tsv}


def source(tmp_path: Path, kind: str, ids: list[str] = IDS, **changed: np.ndarray) -> Path:
    regions, boxes = features(len(ids))
    path = tmp_path / f"source.{kind}"
    return WRITERS[kind](path, ids, changed.get("regions", regions), changed.get("boxes", boxes))


def dataset(ids: list[str]) -> Dataset:
    return Dataset("coco", "val", ids, [f"{i}#0" for i in ids], ["a cat"] * len(ids), np.arange(len(ids)))


@pytest.mark.parametrize("kind", WRITERS)
def test_each_layout(tmp_path: Path, kind: str) -> None:
    path = source(tmp_path, kind)
    assert detect(path) == kind.removeprefix("old.")
    store = convert(path, tmp_path / "store.h5", extractor="frcnn", colour="bgr")
    regions, boxes = features()
    assert sorted(store.image_ids) == sorted(IDS)
    found = store.read(store.rows(IDS))
    np.testing.assert_array_equal(found[0], regions)
    np.testing.assert_allclose(found[1], boxes, atol=1e-7)
    assert store.verify() == []
    assert (store.info.extractor, store.info.colour) == ("frcnn", "bgr")
    assert store.info.source == str(path)


@pytest.mark.parametrize("kind", WRITERS)
def test_the_images_of_a_data_set_under_its_ids(tmp_path: Path, kind: str) -> None:
    path = source(tmp_path, kind, [coco(name) for name in IDS])
    wanted = ["42", "391895"]
    hashed = replace(dataset(wanted), image_columns={"sha256": ["a", "b"]})
    store = convert(path, tmp_path / "store.h5", dataset=hashed)
    assert store.image_ids == ("42", "391895")
    np.testing.assert_array_equal(store.regions, features()[0][[3, 0]])
    assert store.info.dataset_fingerprint == dataset(wanted).fingerprint
    assert store.check(hashed) == 2
    assert "COCO prefix" in store.info.notes["ids"]
    assert store.info.notes["images_in_source"] == N
    with pytest.raises(DataError, match=r"no features of 2 of 3 images of Dataset.*'77', '78'"):
        convert(path, tmp_path / "other.h5", dataset=dataset(["42", "77", "78"]))


@pytest.mark.parametrize("kind", ["h5", "npz", "tsv"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r, b: r.__setitem__((2, 1, 0), np.nan), "image '184613': regions have NaN"),
        (lambda r, b: b.__setitem__((2, 0, 2), 1.5), "image '184613': boxes lie outside"),
        (lambda r, b: b.__setitem__((2, 0), [0.9, 0.1, 0.1, 0.9]), "image '184613': boxes are inverted"),
    ],
)
def test_bad_values_name_the_image(tmp_path: Path, kind: str, change: Any, says: str) -> None:
    regions, boxes = features()
    change(regions, boxes)
    with pytest.raises(DataError, match=says):
        convert(source(tmp_path, kind, regions=regions, boxes=boxes), tmp_path / "store.h5")
    assert not (tmp_path / "store.h5").exists()


def test_another_number_of_regions_names_the_image(tmp_path: Path) -> None:
    path = source(tmp_path, "npz")
    regions, boxes = features()
    np.savez(path / "val2014" / "522418.npz", visual_feats=regions[1, :2], visual_pos=boxes[1, :2])
    with pytest.raises(DataError, match=r"image '522418': shape \(2, 8\), the store has \(3, 8\)"):
        convert(path, tmp_path / "store.h5")


def test_pixel_boxes_in_npz_are_refused(tmp_path: Path) -> None:
    path = source(tmp_path, "npz", boxes=features()[1] * 400)
    with pytest.raises(DataError, match=r"boxes lie outside \[0, 1\]"):
        convert(path, tmp_path / "store.h5")


def test_duplicate_ids(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'42' is there 2 times"):
        convert(source(tmp_path, "tsv", [*IDS, "42"]), tmp_path / "store.h5")
    path = source(tmp_path, "npz")
    (path / "train2014").mkdir()
    (path / "train2014" / "42.npz").write_bytes((path / "val2014" / "42.npz").read_bytes())
    with pytest.raises(DataError, match="'42' is there 2 times"):
        convert(path, tmp_path / "store.h5")


def test_a_cut_off_tsv_names_the_image_and_line(tmp_path: Path) -> None:
    path = source(tmp_path, "tsv")
    raw = path.read_bytes()
    last = raw.rindex(b"42\t333")
    for keep, says in [
        (len(raw) - 3, "not whole base64|no float32 array"),
        (len(raw) - 9, "no float32 array|not whole"),
        (last + 40, "columns"),
    ]:
        path.write_bytes(raw[:keep])
        with pytest.raises(DataError, match=rf"image '42' \(.*line 4\).*({says})"):
            convert(path, tmp_path / "store.h5", overwrite=True)
    # What was read before the damage is not lost.
    path.write_bytes(raw)
    store = convert(path, tmp_path / "store.h5", resume=True)
    np.testing.assert_array_equal(store.regions, features()[0])


def test_finding_the_ids_of_a_tsv_shows_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    path = tmp_path / "x.tsv"
    path.write_bytes(b"".join(b"%d\t%s\n" % (i, b"x" * 600_000) for i in range(5)) + b"\n6")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert _READERS["tsv"].ids(path) == ["0", "1", "2", "3", "4", "6"]
    said = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "finding images" in said
    assert "MB" in said


def test_a_tsv_of_other_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    row = tsv_row("7", *(array[0] for array in features()))
    for column, value, says in [
        (1, "tall", "tall"),
        (2, "inf", "inf"),
        (7, "0", "0 boxes"),
        (7, "nan", "nan"),
        (7, "2.5", "2.5"),
        (7, "1" + "0" * 30, "1" + "0" * 19 + " boxes"),
        (2, "2" * 400, "2" * 20 + " x"),
        (7, "1000", "no float32 array"),
        (8, encoded(np.zeros(6)), "2 numbers"),
    ]:
        path.write_text("\t".join(map(str, [*row[:column], value, *row[column + 1 :]])) + "\n")
        with pytest.raises(DataError, match=f"image '7'.*{says}"):
            convert(path, tmp_path / "store.h5")


def test_damaged_npz_and_h5_name_the_image(tmp_path: Path) -> None:
    path = source(tmp_path, "npz")
    cut = path / "val2014" / "522418.npz"
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"image '522418': .* is not a readable .npz"):
        convert(path, tmp_path / "a.h5")
    np.savez(cut, visual_feats=features()[0][1])
    with pytest.raises(DataError, match=r"image '522418': .*visual_pos"):
        convert(path, tmp_path / "b.h5")
    np.savez(cut, visual_feats=np.array([{"a": 1}], object), visual_pos=features()[1][1])
    with pytest.raises(DataError, match=r"image '522418': .* is not a readable .npz: Object arrays"):
        convert(path, tmp_path / "c.h5")
    groups = source(tmp_path, "h5")
    with h5py.File(groups, "r+") as file:
        del file["522418/visual_pos"]
    with pytest.raises(DataError, match=r"image '522418' of .*visual_pos"):
        convert(groups, tmp_path / "d.h5")
    with h5py.File(groups, "r+") as file:
        del file["522418"]
        file["522418"] = np.ones(3)
    with pytest.raises(DataError, match=r"image '522418' of .*not a group"):
        convert(groups, tmp_path / "e.h5")


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        detect(tmp_path / "none")
    with pytest.raises(DataError, match=r"no \.npz"):
        detect(tmp_path)
    for text in ("hello", "a\tb\tc\td\n" * 3, "a\tb\n" * 6):
        (tmp_path / "notes.txt").write_text(text)
        with pytest.raises(DataError, match="no layout"):
            detect(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        convert(tmp_path / "notes.txt", tmp_path / "s.h5", kind="h5")
    with pytest.raises(ConfigError, match="no kind 'csv'"):
        convert(tmp_path / "notes.txt", tmp_path / "s.h5", kind="csv")  # type: ignore[arg-type]
    convert(source(tmp_path, "tsv"), tmp_path / "s.h5")
    with pytest.raises(DataError, match="feature store already"):
        detect(tmp_path / "s.h5")


def test_the_real_tsv(shared: Path, tmp_path: Path) -> None:
    path = shared / "regions" / "train2014_obj36.tsv"
    store = convert(path, tmp_path / "real.h5")
    assert (len(store), store.n_regions, store.width) == (10, 36, 2048)
    assert store.verify() == []
    csv.field_size_limit(sys.maxsize)
    from PIL import Image

    with open(path, newline="") as lines:  # the oracle: as LXMERT's own reader does it
        for row, line in enumerate(csv.reader(lines, delimiter="\t")):
            assert store.image_ids[row] == line[0]
            width, height = Image.open(path.parent / f"{line[0]}.jpg").size
            assert (int(line[2]), int(line[1])) == (width, height)
            boxes = np.frombuffer(base64.b64decode(line[8]), np.float32).reshape(36, 4)
            values = np.frombuffer(base64.b64decode(line[9]), np.float32).reshape(36, 2048)
            np.testing.assert_array_equal(store.regions[row], values)
            np.testing.assert_allclose(store.boxes[row] * [width, height, width, height], boxes, atol=1e-3)
    numbers = ["132417", "573195"]
    some = convert(path, tmp_path / "some.h5", dataset=dataset(numbers), dtype="float16")
    assert some.image_ids == tuple(numbers)
    np.testing.assert_array_equal(some.regions, store.regions[:2].astype(np.float16))


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("COCO_val2014_000000391895.jpg", "391895"),
        ("COCO_train2014_000000000000", "0"),
        ("000000391895", "391895"),
        ("391895", "391895"),
        ("1000268201_693b08cb0e.jpg", "1000268201_693b08cb0e"),
        ("my.photo.PNG", "my.photo"),
        ("COCO_val2014_abc", "COCO_val2014_abc"),
        ("٣", "٣"),
        ("0" * 9000 + "7" * 5000, "7" * 5000),
    ],
)
def test_bare_ids(name: str, bare: str) -> None:
    assert bare_id(name) == bare


@pytest.mark.slow
@given(st.sets(st.integers(0, 10**6), min_size=1), st.data())
def test_matching_finds_exactly_the_same_numbers(numbers: set[int], data: Any) -> None:
    there = {n: data.draw(st.sampled_from([str(n), f"{n:012d}", coco(str(n)), f"{n}.jpg"])) for n in numbers}
    wanted = data.draw(st.lists(st.sampled_from(sorted(numbers)), unique=True, min_size=1))
    names, _ = match_ids(list(there.values()), [str(n) for n in wanted])
    assert names == {there[n]: str(n) for n in wanted}


def test_ambiguous_ids_are_refused() -> None:
    with pytest.raises(DataError, match="could be the same image"):
        match_ids(["42", "000042"], ["0042"])
