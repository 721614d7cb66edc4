"""`tiir setup coco` where an earlier step fails or changes what a later one needs: hours of features are not lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data.test_download import Server
from tests.models.frcnn.conftest import save_detector  # noqa: F401 - a fixture
from tests.test_setup_coco import Verb, mirror  # noqa: F401 - a fixture

from tiir.data.dataset import Dataset
from tiir.data.sources import scenes
from tiir.features import FeatureStore
from tiir.features.detected import detected_features
from tiir.features.layout import part_of
from tiir.features.scenes import scenes_features
from tiir.models import load_detector
from tiir.setup import Step, extract_step


@pytest.mark.slow
def test_features_outlive_a_lost_picture_and_a_damaged_data_set(
    mirror: tuple[Server, Path],  # noqa: F811
    save_detector: Callable[..., Path],  # noqa: F811
    tmp_path: Path,
    tiir: Verb,
) -> None:
    to, detector = tmp_path / "coco", f"frcnn:{save_detector()}"
    command = ("setup", "coco", "--to", to, "--for", "lxmert", "--sources", mirror[1],
               "--detector", detector, "--device", "cpu")  # fmt: skip
    code, out, err = tiir(*command, "--json")
    assert code == 0, err
    assert [step["done"] for step in json.loads(out)] == [True] * 9
    store = to / "coco-test-frcnn.h5"
    before = store.stat().st_ino, store.stat().st_mtime_ns
    next((to / "val2014").glob("*.jpg")).unlink()
    (to / "coco-test" / "captions.parquet").write_bytes(b"damaged")
    code, _, err = tiir(*command)
    assert code == 0, err
    assert "prepare coco-test: started" in err
    assert "extract coco-test-frcnn.h5: there already" in err
    assert (store.stat().st_ino, store.stat().st_mtime_ns) == before

    # A store of other pictures is made again, and what another setup began does not stop it.
    test, val = Dataset.load(to / "coco-test"), Dataset.load(to / "coco-val")
    (to / "coco-val-frcnn.h5").replace(store)
    detected_features(load_detector(detector, device="cpu"), val, to / "begun.h5")
    (to / "begun.h5").replace(part_of(store))
    code, _, err = tiir(*command)
    assert code == 0, err
    assert "extract coco-val-frcnn.h5: started" in err
    assert "extract coco-test-frcnn.h5: started" in err
    assert FeatureStore.open(store).check(test) == 5
    assert not part_of(store).exists()


def test_what_others_made_is_refused_before_anything_is_fetched(
    mirror: tuple[Server, Path],  # noqa: F811
    tmp_path: Path,
    tiir: Verb,
) -> None:
    """Features and data sets of another origin, under the names that the setup gives its own."""
    server, sources = mirror
    to = tmp_path / "coco"
    data = scenes.prepare(tmp_path / "scenes", n=2)
    store, theirs = to / "coco-val-frcnn.h5", to / "coco-test"
    scenes_features(data, store)
    before = store.read_bytes()
    command = ("setup", "coco", "--to", to, "--for", "lxmert", "--sources", sources)
    for more in ((), ("--dry-run",)):
        code, _, err = tiir(*command, *more)
        assert (code, f"{store} holds features of scenes, not features of frcnn:" in err) == (2, True)
    store.write_bytes(b"not even HDF5")
    code, _, err = tiir(*command)
    assert (code, f"{store} holds something else" in err) == (2, True)
    store.write_bytes(before)
    data.save(theirs)
    code, _, err = tiir("setup", "coco", "--to", to, "--for", "clip", "--sources", sources)
    assert (code, f"{theirs} holds a data set of scenes, not of karpathy" in err) == (2, True)
    (theirs / "dataset.json").unlink()  # as no kill leaves it
    code, _, err = tiir("setup", "coco", "--to", to, "--for", "clip", "--sources", sources)
    assert (code, f"{theirs} already holds files that are not part of a data set" in err) == (2, True)
    assert sorted(path.name for path in to.iterdir()) == ["coco-test", "coco-val-frcnn.h5"]
    assert sorted(path.name for path in theirs.iterdir()) == ["captions.parquet", "images.parquet"]
    assert store.read_bytes() == before
    assert server.ranges == []


def test_a_detector_in_a_directory_is_known_by_its_content(
    save_detector: Callable[..., Path],  # noqa: F811
    tmp_path: Path,
) -> None:
    detector, where, out = save_detector(), tmp_path / "data", tmp_path / "features.h5"
    scenes.prepare(where, split="test", n=2).save(where)

    def step() -> Step:
        return extract_step(where, out, f"frcnn:{detector}", "cpu", 2, [])

    step().run()
    assert step().done
    first = FeatureStore.open(out).info.weights
    config = next(detector.glob("config.*"))
    config.write_text(config.read_text() + "\n")
    assert not step().done
    shutil.copy(out, part_of(out))  # begun with the earlier one
    step().run()
    assert step().done
    assert FeatureStore.open(out).info.weights != first
