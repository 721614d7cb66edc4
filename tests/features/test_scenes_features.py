"""Regions of Scenes say what is drawn, where it is, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tiir.data.dataset import Dataset
from tiir.data.sources.scenes import prepare
from tiir.errors import ConfigError, DataError
from tiir.features.scenes import BLOCKS, N_REGIONS, WIDTH, scenes_features


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(tmp_path_factory.mktemp("scenes"), split="val", n=40)


def decoded(vector: np.ndarray) -> dict[str, object]:
    """The blocks of a feature without noise, those that are set."""
    found, start = {}, 0
    for name, values in BLOCKS.items():
        block = vector[start : start + len(values)]
        assert sorted(set(block)) in ([0], [0, 1])
        assert block.sum() <= 1
        if block.any():
            found[name] = values[int(block.argmax())]
        start += len(values)
    return found


def test_without_noise_the_features_are_the_scene(scenes: Dataset, tmp_path: Path) -> None:
    store = scenes_features(scenes, tmp_path / "s.h5", noise=0)
    assert (store.n_regions, store.width) == (N_REGIONS, WIDTH)
    assert store.image_ids == tuple(scenes.image_ids)
    assert store.info.dataset_fingerprint == scenes.fingerprint
    for row, text in enumerate(scenes.image_columns["objects"]):
        scene = json.loads(text)
        things = scene["things"]
        for region, thing in enumerate(things):
            expected = {key: thing[key] for key in ("kind", "colour", "size", "count")}
            assert decoded(store.regions[row, region]) == expected
            np.testing.assert_allclose(store.boxes[row, region], thing["box"], atol=1e-6)
        for region in range(len(things), N_REGIONS):
            assert decoded(store.regions[row, region]) == {"backdrop": scene["backdrop"]}
            assert store.boxes[row, region].tolist() == [0, 0, 1, 1]


def test_noise_belongs_to_the_image_not_to_its_place(scenes: Dataset, tmp_path: Path) -> None:
    whole = scenes_features(scenes, tmp_path / "a.h5")
    some = [30, 2, 17]
    part = scenes_features(scenes.subset(some), tmp_path / "b.h5")
    np.testing.assert_array_equal(part.regions, whole.regions[some])
    clean = scenes_features(scenes, tmp_path / "c.h5", noise=0)
    noise = whole.regions.astype(np.float32) - clean.regions.astype(np.float32)
    assert abs(noise.std() - 0.2) < 0.01
    assert abs(noise.mean()) < 0.01
    other = scenes_features(scenes, tmp_path / "d.h5", seed=1)
    assert not np.array_equal(other.regions, whole.regions)


def test_scenes_of_another_seed_are_told_by_their_pictures(scenes: Dataset, tmp_path: Path) -> None:
    few = scenes.subset(range(4))
    store = scenes_features(few, tmp_path / "s.h5")
    other = prepare(tmp_path / "other", split="val", n=4, seed=1)
    assert list(other.image_ids) == list(few.image_ids)
    assert store.check(few) == store.check(replace(few, captions=["x"] * few.n_captions)) == 4
    with pytest.raises(DataError, match=f"image '{few.image_ids[0]}' of .*is not the picture"):
        store.check(other)


def test_what_is_no_scene(scenes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="noise"):
        scenes_features(scenes, tmp_path / "s.h5", noise=-1)
    with pytest.raises(DataError, match="no column 'objects'"):
        scenes_features(replace(scenes, image_columns={}), tmp_path / "s.h5")
    scene = {"backdrop": "sea", "things": [{"kind": "whale"}]}
    for last in (json.dumps(scene), "[" * 100_000):
        texts = [*scenes.image_columns["objects"][:-1], last]
        with pytest.raises(DataError, match=f"image '{scenes.image_ids[-1]}'"):
            scenes_features(
                replace(scenes, image_columns={"objects": texts}), tmp_path / "s.h5", overwrite=True
            )
