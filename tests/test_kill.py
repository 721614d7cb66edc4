"""Fifty SIGKILLs at random moments: every job goes on with --resume, and ends with the bytes of an undisturbed one.

Half of them come from outside at any time, half when a file is about to be written, renamed or removed, or just after.
The moments are drawn by a seed; `TIIR_KILL_SEED` sets another.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from tests.forks import Ended, Forks, Moment
from tests.models.frcnn.conftest import changed, random_network

from tiir.data.sources import folder, scenes
from tiir.features.scenes import scenes_features
from tiir.features.store import FeatureStore
from tiir.models.scratch import new_clip, new_lxmert
from tiir.scoring.run import Run, RunInfo

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("TIIR_KILL_SEED", "0"))
SMALL = {"width": 16, "heads": 2}
TRAINING = {
    "num_train_epochs": 2, "per_device_train_batch_size": 14, "learning_rate": 1e-3, "report_to": "none",
    "disable_tqdm": True, "logging_steps": 1, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps",
    "eval_steps": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A verb, what it writes, the file by which that counts as finished, and how often it is killed."""

    verb: tuple[Any, ...]
    out: str
    mark: str | None
    kills: int


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    root = tmp_path_factory.mktemp("jobs")
    data = scenes.prepare(root / "data", split="train", n=64)
    data.save(root / "data")
    few = root / "few"
    data.subset(range(40)).save(few)
    store = scenes_features(data, root / "features.h5")
    new_clip(data.captions, root / "clip", **SMALL, image_layers=1, text_layers=1)
    new_lxmert(data.captions, root / "lxmert", feature_width=store.width, **SMALL, language_layers=1,
               vision_layers=1, cross_layers=1)  # fmt: skip
    rng = np.random.default_rng(0)
    shapes = (root / "shapes").resolve()
    shapes.mkdir()
    lines = ["image,caption"]
    for i in range(12):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        small.resize((80 + 8 * (i % 4), 80), Image.Resampling.BICUBIC).save(shapes / f"{i}.png")
        lines.append(f"{i}.png,picture {i}")
    (shapes / "captions.csv").write_text("\n".join(lines))
    folder.prepare(shapes, split="test", images=shapes).save(shapes / "data")
    frcnn = changed(INPUT__MIN_SIZE_TEST=64, INPUT__MAX_SIZE_TEST=96, RPN__POST_NMS_TOPK_TEST=30)
    (root / "frcnn").mkdir()
    (root / "frcnn" / "config.yaml").write_text(json.dumps(frcnn))
    save_file(random_network(frcnn).state_dict(), root / "frcnn" / "model.safetensors")
    a, b = (rng.normal(size=(n, 4)).astype(np.float32) for n in (data.n_images, data.n_captions))
    Run(RunInfo.about(data, root / "data", "first", protocol="own"), a, b).save(root / "first")
    configs = {
        "clip": {"scratch": {**SMALL, "image_layers": 1, "text_layers": 1, "image_size": 20}},
        "lxmert": {
            "scratch": {**SMALL, "language_layers": 1, "vision_layers": 1, "cross_layers": 1},
            "objective": "binary",
            "dropout": 0.1,
            "align": 0.5,
        },
    }
    for name, config in configs.items():
        config |= {"captions": 1, "training": TRAINING}
        (root / f"{name}.json").write_text(json.dumps(config))
    regions, validated = ("--features", root / "features.h5"), ("--validation", few)
    lxmert, first, extract = f"lxmert:{root / 'lxmert'}", root / "first", ("features", "extract")
    device, fours = ("--device", "cpu"), ("--device", "cpu", "--batch-size", 4)
    detections = ("-e", f"frcnn:{root / 'frcnn'}", "--boxes", 6, "--keep-detections")
    return {
        "all pairs": Job(("score", lxmert, root / "data", *regions, *device), "run", "run.json", 14),
        "cascade": Job(("rerank", first, "--with", lxmert, *regions, *device), "run", "run.json", 10),
        "embeddings": Job(
            ("score", root / "clip", root / "data", "--batch-size", 8, *device), "run", "run.json", 12
        ),
        "grid": Job((*extract, few, "-e", f"grid:{root / 'clip'}", *fours), "store.h5", "", 4),
        "detections": Job((*extract, shapes / "data", *detections, *fours), "store.h5", "", 4),
        "training a CLIP": Job(
            ("train", "clip", few, "--config", root / "clip.json", *validated), "model", None, 3
        ),
        "training an LXMERT": Job(
            ("train", "lxmert", few, *regions, "--config", root / "lxmert.json", *validated),
            "model",
            None,
            3,
        ),
    }


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    made = Forks(tmp_path_factory.mktemp("forks"))
    yield made
    made.close()


def content(folder: Path) -> dict[str, Any]:
    """What must be equal: every file's bytes; of files that tell the time, what else they hold."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if "/checkpoints/" in name:  # a torn one may stay
            continue
        if path.is_dir():
            found[name] = None
        elif path.name == "run.json":
            info = json.loads(path.read_text())
            notes = {key: value for key, value in info["notes"].items() if key != "pairs_per_second"}
            found[name] = info | {"notes": notes, "created": "", "seconds": 0}
        elif path.name == "shortlist.npz":
            with np.load(path) as arrays:
                found[name] = {key: arrays[key].tobytes() for key in arrays}
        elif path.suffix == ".h5":
            store = FeatureStore.open(path)
            assert store.verify() == []
            arrays = {"regions": store.regions, "boxes": store.boxes, **store.columns}
            found[name] = store.info.model_dump(exclude={"created"}) | {
                key: array.tobytes() for key, array in arrays.items()
            }
        else:
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize(
    "name",
    ["all pairs", "cascade", "embeddings", "grid", "detections", "training a CLIP", "training an LXMERT"],
)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    forks: Forks, jobs: dict[str, Job], tmp_path: Path, name: str
) -> None:
    job, rng = jobs[name], random.Random(f"{SEED} {name}")

    def run(place: Path, moment: Moment | None = None) -> Ended:
        return forks.run([*job.verb, "--resume", "-o", place / job.out], place, moment)

    place = tmp_path / "whole"
    place.mkdir()
    whole = run(place)
    assert whole.code == 0, forks.log.read_text()
    expected = content(place)

    place = tmp_path / "killed"
    place.mkdir()
    kills = 0
    while True:
        moment = None if kills == job.kills else draw(rng, whole, kills % 2 == 0)
        ended = run(place, moment)
        said = f"{name}, seed {SEED}, after {kills} kills, {moment}"
        assert ended.code in (0, -9 if moment else 0), f"{said}:\n{forks.log.read_text()}"
        kills += ended.code == -9
        if job.mark is not None and (place / job.out / job.mark).exists():
            # From here on it counts as finished, whatever the process had still to do.
            found = content(place)
            assert differences({name: found[name] for name in expected}, expected) == [], said
        if ended.code == 0:
            assert differences(content(place), expected) == [], said
            if moment is None:
                break
            shutil.rmtree(place)  # it was faster than its death
            place.mkdir()


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    return sorted(name for name in {**found, **expected} if found.get(name, b"") != expected.get(name, b""))


def draw(rng: random.Random, whole: Ended, outside: bool) -> Moment:
    if outside:
        return Moment(rng.uniform(0, 0.7 * whole.seconds))  # what is left takes less, mostly
    what = rng.choice(sorted(whole.touched))
    return Moment(rng.choice([0, rng.uniform(0, 0.003)]), what, rng.randint(1, min(3, whole.touched[what])))
