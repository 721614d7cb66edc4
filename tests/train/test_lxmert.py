from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tiir.cli import main
from tiir.data.dataset import Dataset
from tiir.data.sources import scenes
from tiir.errors import ConfigError, DataError, ModelError, RunError
from tiir.features import FeatureInfo, FeatureStore
from tiir.features.scenes import scenes_features
from tiir.metrics.ranking import rank_scores
from tiir.metrics.recall import recall
from tiir.models import load
from tiir.models.lxmert import load_matcher
from tiir.scoring.run import Run, RunInfo
from tiir.scoring.shortlist import Shortlist
from tiir.train.lxmert import train_lxmert

pytestmark = pytest.mark.usefixtures("_one_thread")


def rsum(model: Path, data: Dataset, features: FeatureStore) -> float:
    scorer = load(f"lxmert:{model}", device="cpu").bind(data.captions, data.image_ids, features)
    scores = scorer.score_block(np.arange(data.n_images), np.arange(data.n_captions))
    return recall(rank_scores(scores, data.positives))["rsum"]


def confusions(data: Dataset) -> Run:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(data.n_images, data.n_captions)).astype(np.float32)
    return Run(RunInfo.about(data, "x", "by hand"), scores=scores)


COLOURS = ["red", "blue", "green", "black", "white", "pink", "grey", "brown"]
KINDS = ["ball", "house", "boat", "tree", "kite", "lamp", "fish", "sun"]


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> tuple[Dataset, FeatureStore]:
    """64 pictures of two regions, which say the colour and the kind of one toy; a caption names both."""
    colour, kind = (side.ravel() for side in np.indices((8, 8)))
    texts = [f"a {COLOURS[c]} {KINDS[k]}" for c, k in zip(colour, kind, strict=True)]
    ids = [str(i) for i in range(64)]
    data = Dataset("toys", "train", ids, ids, texts, np.arange(64))
    regions = np.stack([np.eye(16)[colour], np.eye(16)[8 + kind]], 1).astype(np.float32)  # (64, 2, 16)
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (64, 2, 1))
    path = tmp_path_factory.mktemp("toys") / "features.h5"
    with FeatureStore.create(path, FeatureInfo(extractor="toys", source="test"), ids, 2, 16) as writer:
        writer.put(np.arange(64), regions, boxes)
    return data, FeatureStore.open(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"loss": "infonce", "rivals": 3, "align": 1.0},
        {"loss": "hinge", "margin": 1.0, "top_violations": 4},
        {"objective": "binary", "captions": None},
    ],
    ids=["rivals", "hinge", "binary"],
)
def test_it_learns_and_keeps_the_best_by_rsum(toys, tmp_path, options, lxmert_config):
    data, features = toys
    training = {"num_train_epochs": 60, "eval_strategy": "steps", "eval_steps": 48}
    settings = lxmert_config(**options, training={**training, "save_strategy": "steps", "save_steps": 48})
    out = train_lxmert(data, settings, features=features, validation=data, out=tmp_path / "m")
    history = json.loads((out / "history.json").read_text())
    recalls = [entry["eval_rsum"] for entry in history if "eval_rsum" in entry]
    assert len(recalls) == 5
    assert rsum(out, data, features) == pytest.approx(max(recalls), abs=0.5)
    chance = 2 * 100 * (1 + 5 + 10) / 64
    assert max(recalls) > 3 * chance


@pytest.mark.slow
def test_same_seed_same_weights_as_any_model_directory(scene_regions, tmp_path, lxmert_config):
    data, features = scene_regions
    few = data.subset(range(48))
    weights = []
    for name, seed in [("a", 0), ("b", 0), ("c", 7)]:
        settings = lxmert_config(
            rivals=1, align=0.5, weights="float16", training={"max_steps": 2, "seed": seed}
        )
        out = train_lxmert(few, settings, features=features, out=tmp_path / name)
        weights.append((out / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]
    stored = load_file(out / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert not any("project" in key for key in stored)  # the helpers of align are not part of the model
    assert load(f"lxmert:{out}", device="cpu").matcher.config.hidden_size == 32


@pytest.mark.slow
def test_it_goes_on_from_a_directory_with_hard_negatives(scene_regions, tmp_path, lxmert_config):
    data, features = scene_regions
    few = data.subset(range(48))
    first = train_lxmert(few, lxmert_config(training={"max_steps": 1}), features=features, out=tmp_path / "a")
    run = confusions(few)
    for name, options in [
        ("binary", {"objective": "binary", "hard_share": 0.5}),
        ("contrastive", {"hard_partners": 1}),
    ]:
        again = lxmert_config(scratch=None, model=str(first), **options, training={"max_steps": 1})
        out = train_lxmert(few, again, features=features, negatives=run, out=tmp_path / name)
        assert (out / "model.safetensors").exists()


def test_errors_come_before_the_work(scene_regions, tmp_path, lxmert_config):
    data, features = scene_regions
    few = data.subset(range(48))
    out = tmp_path / "m"
    with pytest.raises(ConfigError, match="no Run of negatives is given"):
        train_lxmert(few, lxmert_config(hard_partners=1), features=features, out=out)
    with pytest.raises(ConfigError, match="a Run of negatives is given"):
        train_lxmert(few, lxmert_config(), features=features, negatives=confusions(few), out=out)
    with pytest.raises(RunError, match="fingerprint"):
        train_lxmert(
            few, lxmert_config(hard_partners=1), features=features, negatives=confusions(data), out=out
        )
    scenes_features(data.subset(range(10)), tmp_path / "ten.h5")
    ten = FeatureStore.open(tmp_path / "ten.h5")
    with pytest.raises(DataError, match="train-000010"):
        train_lxmert(few, lxmert_config(), features=ten, out=out)
    with pytest.raises(DataError, match="train-000010"):
        train_lxmert(few.subset(range(10)), lxmert_config(), features=ten, validation=few, out=out)
    empty = Dataset("x", "val", [], [], [], np.empty(0, np.int64))
    with pytest.raises(DataError, match="no captions to train on"):
        train_lxmert(empty, lxmert_config(), features=features, out=out)
    part = lxmert_config(validation_images=5, validation_captions=1)
    with pytest.raises(DataError, match=r"validation split.*has no captions"):
        train_lxmert(few, part, features=features, validation=empty, out=out)
    with pytest.raises(ConfigError, match="no validation split"):
        train_lxmert(few, lxmert_config(), features=features, validation_features=ten, out=out)
    cascade = replace(confusions(few), shortlist=Shortlist.of([0], [0], [1.0], [0.5], [True], [True]))
    with pytest.raises(ConfigError, match=r"cascade(.|\n)*first stage"):
        train_lxmert(few, lxmert_config(hard_partners=1), features=features, negatives=cascade, out=out)
    other = scenes.prepare(tmp_path / "other", split="train", n=48, seed=5)  # the same ids
    with pytest.raises(DataError, match="is not the picture"):
        train_lxmert(other, lxmert_config(), features=features, out=out)
    with pytest.raises(DataError, match="is not the picture"):
        train_lxmert(few, lxmert_config(), features=features, validation=other, out=out)
    assert not out.exists()
    with pytest.raises(ModelError, match="no such model directory"):
        train_lxmert(few, lxmert_config(scratch=None, model=str(out / "x")), features=features, out=out)


def test_a_model_knows_which_features_it_saw(scene_regions, tmp_path, lxmert_config):
    data, features = scene_regions
    few = data.subset(range(16))
    first = train_lxmert(few, lxmert_config(training={"max_steps": 1}), features=features, out=tmp_path / "a")
    record = {
        "extractor": features.info.extractor,
        "weights": features.info.weights,
        "colour": features.info.colour,
    }
    assert load_matcher(str(first))[0].config.region_features == record
    other = tmp_path / "other.h5"
    info = FeatureInfo(extractor="by hand")
    with FeatureStore.create(other, info, few.image_ids, features.n_regions, features.width) as writer:
        writer.put(np.arange(16), *features.read(np.arange(16)))
    again = lxmert_config(scratch=None, model=str(first), training={"max_steps": 1})
    with pytest.raises(ConfigError, match=r"extractor by hand, .* was trained on those of scenes"):
        train_lxmert(few, again, features=FeatureStore.open(other), out=tmp_path / "b")
    with pytest.raises(ConfigError, match=r"other\.h5 has features of extractor by hand, .* those of scenes"):
        train_lxmert(
            few,
            lxmert_config(),
            features=features,
            validation=few,
            validation_features=FeatureStore.open(other),
            out=tmp_path / "c",
        )


def test_validation_images_without_captions_are_passed_over(
    scene_regions, without_captions, tmp_path, lxmert_config
):
    data, features = scene_regions
    few = data.subset(range(16))
    lonely = without_captions(few, 3)
    settings = lxmert_config(training={"num_train_epochs": 1})
    out = train_lxmert(few, settings, features=features, validation=lonely, out=tmp_path)
    assert "eval_rsum" in (out / "history.json").read_text()


HEAD = "match_head.logit_fc.0.weight"
SCRIPT = """
import sys, torch
from pathlib import Path
from tiir.data.dataset import Dataset
from tiir.features.store import FeatureStore
from tiir.train.config import LxmertTrainConfig
from tiir.train.lxmert import train_lxmert
torch.set_num_threads(1)
config = LxmertTrainConfig.model_validate_json(sys.argv[1])
data, features = Dataset.load(sys.argv[2]), FeatureStore.open(sys.argv[3])
train_lxmert(data, config, features=features, out=Path(sys.argv[4]), validation=data, resume=True)
"""


def arguments(settings, region_data, out: Path) -> list[str]:
    return [settings.model_dump_json(exclude_defaults=True), *map(str, region_data), str(out)]


def test_a_resumed_training_reads_the_same_features(scene_regions, tmp_path, lxmert_config):
    data, features = scene_regions
    few, settings = data.subset(range(16)), lxmert_config(training={"max_steps": 1})
    out = train_lxmert(few, settings, features=features, out=tmp_path / "out")
    scenes_features(few, tmp_path / "other.h5", seed=1)
    other = FeatureStore.open(tmp_path / "other.h5")
    with pytest.raises(ConfigError, match="another features"):
        train_lxmert(few, settings, features=other, out=out, resume=True)


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_whole_batch(region_data, scene_regions, tmp_path, lxmert_config):
    data, features = scene_regions
    settings = lxmert_config(
        objective="binary",
        captions=2,
        validation_images=20,
        training={
            "max_steps": 6,
            "optim": "sgd",  # Adam would make steps of rounding errors
            "learning_rate": 0.1,
            "logging_steps": 1,
            "eval_strategy": "steps",
            "eval_steps": 6,
            "save_strategy": "steps",
            "save_steps": 6,
        },
    )
    one = train_lxmert(data, settings, features=features, validation=data, out=tmp_path / "one")
    half = settings.model_copy(
        update={"training": {**settings.training, "per_device_train_batch_size": 8, "ddp_backend": "gloo"}}
    )
    (tmp_path / "script.py").write_text(SCRIPT)
    out = tmp_path / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(tmp_path / "script.py"), *arguments(half, region_data, out)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((path / "history.json").read_text()) for path in (tmp_path / "one", out))
    losses = [[entry["loss"] for entry in history if "loss" in entry] for history in (first, second)]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert second[-1]["eval_rsum"] == pytest.approx(first[-1]["eval_rsum"], abs=1e-6)
    weights = [load_file(path / "model.safetensors") for path in (one, out)]
    assert all(torch.allclose(weights[0][key], weights[1][key], atol=1e-5) for key in weights[0])
    start = load_file(out / "scratch" / "model.safetensors")
    assert not torch.allclose(start[HEAD], weights[1][HEAD], atol=1e-3)


def test_the_verb(region_data, tmp_path, capsys, lxmert_config):
    config = tmp_path / "config.json"
    settings = lxmert_config(validation_images=20, training={"max_steps": 1, "eval_strategy": "no"})
    config.write_text(settings.model_dump_json(exclude_defaults=True))
    data, features = map(str, region_data)
    with pytest.raises(SystemExit) as end:
        main(
            [
                "train",
                "lxmert",
                data,
                "--features",
                features,
                "--config",
                str(config),
                "--out",
                str(tmp_path / "m"),
            ]
        )
    assert not end.value.code
    assert "next: tiir score lxmert:" in capsys.readouterr().out
    assert (tmp_path / "m" / "model.safetensors").exists()
