"""Boxes on a photo: where they are, that labels stay inside and apart, and what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tiir.features import FeatureInfo, FeatureStore
from tiir.report.boxes import box_labels, draw_boxes

GREY = (128, 128, 128)


def test_a_box_is_where_it_says() -> None:
    drawn = np.array(draw_boxes(Image.new("RGB", (200, 100), GREY), np.array([[0.25, 0.2, 0.5, 0.8]]), ["x"]))
    assert drawn.shape == (500, 1000, 3)
    rows, columns = np.nonzero((drawn != GREY).any(2))
    assert rows.max() == pytest.approx(0.8 * 500, abs=3)
    assert columns.min() == pytest.approx(0.25 * 1000, abs=3)
    assert columns.max() == pytest.approx(0.5 * 1000, abs=3)
    assert (drawn[200:300, 300:450] == GREY).all()  # what is inside stays to be seen


@pytest.mark.parametrize("size", [(1, 1), (30, 900), (900, 30), (500, 375), (3000, 2000)])
def test_any_picture(size: tuple[int, int]) -> None:
    boxes = np.array([[0, 0, 1, 1], [0.99, 0.99, 1, 1], [0.5, 0.5, 0.5, 0.5]], np.float32)
    drawn = draw_boxes(Image.new("L", size), boxes, ["a long label of many words 0.99"] * 3)
    assert drawn.mode == "RGB"
    assert max(drawn.size) == max(1000, *size)


def test_labels_stay_inside_and_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[tuple[float, float, float, float]] = []
    plain = ImageDraw.ImageDraw.rectangle

    def noted(self: ImageDraw.ImageDraw, place: tuple[float, ...], **how: object) -> None:
        if "fill" in how:
            places.append(place)  # type: ignore[arg-type]
        plain(self, place, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", noted)
    corners = np.sort(np.random.default_rng(0).random((36, 2, 2), np.float32), axis=1)
    draw_boxes(Image.new("RGB", (500, 375)), corners.reshape(36, 4), [f"grey dog 0.{i}" for i in range(36)])
    assert len(places) == 36
    for i, (x1, y1, x2, y2) in enumerate(places):
        assert 0 <= x1 < x2 <= 1000
        assert 0 <= y1 < y2 <= 750
        for a1, b1, a2, b2 in places[:i]:
            assert x2 <= a1 or a2 <= x1 or y2 <= b1 or b2 <= y1


@pytest.mark.parametrize(
    ("names", "columns", "expected"),
    [
        ({}, {}, ["1", "2"]),
        ({}, {"object_ids": [1, 0]}, ["object 1", "object 0"]),
        ({"objects": ("cat", "dog")}, {"object_ids": [1, 0], "object_scores": [0.934, 0.5]}, ["dog 0.93", "cat 0.50"]),
        (
            {"objects": ("cat", "dog"), "attributes": ("grey", "wet")},
            {"object_ids": [1, 0], "object_scores": [0.934, 0.5], "attribute_ids": [0, 1]},
            ["grey dog 0.93", "wet cat 0.50"],
        ),
    ],
)  # fmt: skip
def test_what_labels_say(
    tmp_path: Path, names: dict[str, tuple[str, ...]], columns: dict[str, list[float]], expected: list[str]
) -> None:
    planned: dict[str, tuple[str, tuple[int, ...]]] = {
        name: ("int32" if name.endswith("ids") else "float32", (2,)) for name in columns
    }
    planned["nms_threshold"] = ("float32", ())
    with FeatureStore.create(
        tmp_path / "s.h5", FeatureInfo(extractor="x", names=names), ["a"], 2, 1, columns=planned
    ) as writer:
        values = {name: [given] for name, given in columns.items()} | {"nms_threshold": [0.5]}
        writer.put([0], np.ones((1, 2, 1)), np.array([[[0, 0, 1, 1]] * 2]), values)
    assert box_labels(FeatureStore.open(tmp_path / "s.h5"), 0) == expected
