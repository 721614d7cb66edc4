"""Extraction with a detector: batches, unreadable pictures, what is stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from tiir.data.dataset import Dataset
from tiir.data.sources.folder import prepare
from tiir.errors import DataError
from tiir.features import FeatureStore
from tiir.features.detected import Detections, detected_features, plan_batches


class Quadrants:
    """A detector that anyone can check: its regions are the means of the picture's quarters, and where it ran."""

    kind = "quadrants"
    width = 3
    colour = "rgb"
    padding = 0.2
    info = SimpleNamespace(name="test", revision="1", versions={})

    def __init__(self) -> None:
        self.names = {"objects": ("a", "b", "c", "d")}
        self.per_region = {"object_ids": "int32", "object_scores": "float32"}
        self.per_image = {"nms_threshold": "float32"}
        self.notes: dict[str, Any] = {}
        self.batches: list[list[tuple[int, int]]] = []

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        return height, width

    def prepare(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()

    def detect(self, pixels: list[Tensor], boxes: int) -> list[Detections]:
        self.batches.append([(one.shape[1], one.shape[2]) for one in pixels])
        found = []
        for one in pixels:
            h, w = one.shape[1] // 2, one.shape[2] // 2
            quarters = [one[:, y : y + h, x : x + w].mean((1, 2)) for y in (0, h) for x in (0, w)]
            corners = [[x, y, x + 0.5, y + 0.5] for y in (0, 0.5) for x in (0, 0.5)]
            found.append(
                Detections(
                    regions=torch.stack(quarters)[:boxes].numpy()
                    + len(pixels),  # the batch shows in the bytes
                    boxes=np.array(corners, np.float32)[:boxes],
                    columns={
                        "object_ids": np.arange(boxes, dtype=np.int32),
                        "object_scores": np.linspace(1, 0.1, boxes, dtype=np.float32),
                        "nms_threshold": np.float32(0.5),
                    },
                )
            )
        return found


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    """Ten pictures of three shapes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["image,caption"]
    for i in range(10):
        shape = [(40, 60), (60, 40), (42, 60)][i % 3]
        Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,picture {i}")
    (folder / "captions.csv").write_text("\n".join(lines))
    return prepare(folder, split="test", images=folder)


def contents(path: Path) -> list[bytes]:
    store = FeatureStore.open(path)
    assert store.verify() == []
    arrays = [store.regions, store.boxes, *(store.columns[name] for name in sorted(store.columns))]
    return [array.tobytes() for array in arrays] + [
        store.fingerprint.encode(),
        "".join(store.image_ids).encode(),
    ]


def test_what_is_stored(photos: Dataset, tmp_path: Path) -> None:
    store = detected_features(Quadrants(), photos, tmp_path / "a.h5", boxes=4, dtype="float32", batch_size=1)
    assert store.image_ids == tuple(photos.image_ids)
    for i in range(10):
        pixels = np.array(photos.image(i), np.float64)
        assert store.regions[i, 0] == pytest.approx(
            pixels[: len(pixels) // 2, : pixels.shape[1] // 2].mean((0, 1)) + 1
        )
    assert set(store.columns) == {"nms_threshold"}
    assert store.info.names == {}
    kept = detected_features(Quadrants(), photos, tmp_path / "b.h5", boxes=3, keep_detections=True)
    assert kept.columns["object_ids"].tolist() == [[0, 1, 2]] * 10
    assert kept.columns["object_scores"].shape == (10, 3)
    assert kept.info.names == {"objects": ("a", "b", "c", "d")}
    assert kept.check(photos) == 10


def test_similar_shapes_share_a_batch(photos: Dataset, tmp_path: Path) -> None:
    detector = Quadrants()
    detected_features(detector, photos, tmp_path / "a.h5", boxes=4, batch_size=4)
    assert [len(batch) for batch in detector.batches] == [4, 3, 3]
    for batch in detector.batches:
        assert len({h > w for h, w in batch}) == 1


@given(
    sizes=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=40),
    batch_size=st.integers(1, 6),
    padding=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_plan(sizes: list[tuple[int, int]], batch_size: int, padding: float) -> None:
    plan = plan_batches(sizes, batch_size, padding)
    assert sorted(i for batch in plan for i in batch) == list(range(len(sizes)))
    for batch in plan:
        assert len(batch) <= batch_size
        padded = len(batch) * max(sizes[i][0] for i in batch) * max(sizes[i][1] for i in batch)
        filled = sum(sizes[i][0] * sizes[i][1] for i in batch)
        assert 1 - filled / padded <= padding + 1e-9


def test_a_half_written_batch_is_computed_whole(
    photos: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiir.features.writer import FeatureWriter

    detected_features(Quadrants(), photos, tmp_path / "whole.h5", boxes=4, batch_size=3)
    put = FeatureWriter.put

    def stopping(self: FeatureWriter, rows: Any, regions: Any, boxes: Any, columns: Any) -> None:
        first = {name: values[:1] for name, values in columns.items()}
        put(self, rows[:1], regions[:1], boxes[:1], first)
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureWriter, "put", stopping)
    with pytest.raises(KeyboardInterrupt):
        detected_features(Quadrants(), photos, tmp_path / "a.h5", boxes=4, batch_size=3)
    monkeypatch.setattr(FeatureWriter, "put", put)
    detected_features(Quadrants(), photos, tmp_path / "a.h5", boxes=4, batch_size=3, resume=True)
    assert contents(tmp_path / "a.h5") == contents(tmp_path / "whole.h5")


def damage(photos: Dataset, *images: int) -> Callable[[], None]:
    """Makes pictures unreadable; gives what repairs them."""
    paths = [photos.image_path(i) for i in images]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.write_bytes(b"no picture")
    return lambda: [path.write_bytes(raw) for path, raw in zip(paths, before, strict=True)] and None


def test_unreadable_pictures_are_an_error_in_the_end(photos: Dataset, tmp_path: Path) -> None:
    detected_features(Quadrants(), photos, tmp_path / "whole.h5", boxes=4, batch_size=3)
    repair = damage(photos, 2, 7)
    with pytest.raises(DataError, match=r"2 of 10 images cannot be read(?s:.*)2\.png") as caught:
        detected_features(Quadrants(), photos, tmp_path / "a.h5", boxes=4, batch_size=3)
    assert "--on-bad skip" in str(caught.value)
    repair()
    detector = Quadrants()
    detected_features(detector, photos, tmp_path / "a.h5", boxes=4, batch_size=3, resume=True)
    assert len(detector.batches) == 2  # the others are kept


def test_unreadable_pictures_left_out(photos: Dataset, tmp_path: Path) -> None:
    damage(photos, 2, 7)
    store = detected_features(
        Quadrants(), photos, tmp_path / "a.h5", boxes=4, on_bad="skip", keep_detections=True
    )
    assert len(store) == 8
    assert set(store.info.skipped) == {photos.image_ids[2], photos.image_ids[7]}
    assert store.verify() == []
    with pytest.raises(DataError, match=r"'2\.png' was left out when they were made"):
        store.check(photos)
    detector = Quadrants()
    again = detected_features(
        detector, photos, tmp_path / "a.h5", boxes=4, on_bad="skip", keep_detections=True, resume=True
    )
    assert detector.batches == []
    assert again.fingerprint == store.fingerprint


def test_after_an_error_what_the_hint_says_works(photos: Dataset, tmp_path: Path) -> None:
    """The other pictures of the bad ones' batches are there already."""
    damage(photos, 2, 7)
    for _ in range(2):
        with pytest.raises(DataError, match="--resume --on-bad skip"):
            detected_features(Quadrants(), photos, tmp_path / "a.h5", boxes=4, batch_size=3, resume=True)
    detector = Quadrants()
    store = detected_features(
        detector, photos, tmp_path / "a.h5", boxes=4, batch_size=3, resume=True, on_bad="skip"
    )
    assert (len(store), detector.batches) == (8, [])


def test_no_picture_at_all(photos: Dataset, tmp_path: Path) -> None:
    damage(photos, *range(10))
    with pytest.raises(DataError, match="none of the 10 images can be read"):
        detected_features(Quadrants(), photos, tmp_path / "a.h5", boxes=4, on_bad="skip")


def test_a_damaged_column_is_found(photos: Dataset, tmp_path: Path) -> None:
    store = detected_features(Quadrants(), photos, tmp_path / "a.h5", boxes=4, keep_detections=True)
    offset = store._header.offsets["object_ids"]
    with open(tmp_path / "a.h5", "rb+") as file:
        file.seek(offset + 3 * 4 * 4)
        file.write(b"\x77")
    assert FeatureStore.open(tmp_path / "a.h5").verify() == [
        "image '3.png' (row 3) does not match its checksum"
    ]


def test_other_options_are_another_plan(photos: Dataset, tmp_path: Path) -> None:
    detected_features(Quadrants(), photos, tmp_path / "a.h5", boxes=4)
    detector = Quadrants()
    detector.per_image = {}
    with pytest.raises(DataError, match="columns"):
        detected_features(detector, photos, tmp_path / "a.h5", boxes=4, resume=True)


def test_append_carries_columns(photos: Dataset, tmp_path: Path) -> None:
    store = detected_features(Quadrants(), photos, tmp_path / "a.h5", boxes=4, keep_detections=True)
    with FeatureStore.append(tmp_path / "a.h5", store.info, ["new"]) as writer:
        values = {"object_ids": [[9] * 4], "object_scores": [[0.5] * 4], "nms_threshold": [0.6]}
        writer.put([10], np.ones((1, 4, 3)), np.array([[[0, 0, 1, 1]] * 4]), values)
    longer = FeatureStore.open(tmp_path / "a.h5")
    assert longer.columns["object_ids"].tolist() == [[0, 1, 2, 3]] * 10 + [[9] * 4]
    assert longer.verify() == []
    with FeatureStore.append(tmp_path / "a.h5", store.info, ["newer"]) as writer:
        with pytest.raises(DataError, match="columns"):
            writer.put([11], np.ones((1, 4, 3)), np.array([[[0, 0, 1, 1]] * 4]))
        writer.put([11], np.ones((1, 4, 3)), np.array([[[0, 0, 1, 1]] * 4]), values)


def test_thousands_of_names(tmp_path: Path) -> None:
    from tiir.features import FeatureInfo

    names = {
        "objects": tuple(f"object number {i}" for i in range(20_000))
    }  # more than HDF5 keeps in a header
    with FeatureStore.create(
        tmp_path / "a.h5", FeatureInfo(extractor="x", names=names), ["a"], 1, 2
    ) as writer:
        writer.put([0], np.ones((1, 1, 2)), np.array([[[0, 0, 1, 1]]]))
    assert FeatureStore.open(tmp_path / "a.h5").info.names == names
