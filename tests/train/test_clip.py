from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor

from tiir.data.dataset import Dataset
from tiir.data.sources import scenes
from tiir.errors import ConfigError, DataError, MissingExtraError, ModelError
from tiir.metrics.ranking import rank_embeddings
from tiir.metrics.recall import recall
from tiir.models import load
from tiir.train import trainer as module
from tiir.train.clip import train_clip
from tiir.train.config import TrainConfig

SMALL = {"width": 32, "heads": 2, "image_layers": 1, "text_layers": 1, "image_size": 32, "patch_size": 8}
N = 240


def config(**changes) -> TrainConfig:
    training = {
        "num_train_epochs": 16,
        "per_device_train_batch_size": 24,
        "learning_rate": 3e-3,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "logging_steps": 6,
    }
    training |= changes.pop("training", {})
    return TrainConfig(**{"scratch": SMALL, "cache_images": True, "training": training} | changes)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("scenes")
    for split, n in [("train", N), ("val", 50)]:
        scenes.prepare(root / split, split=split, n=n).save(root / split)
    return root / "train", root / "val"


@pytest.fixture(scope="module")
def trained(splits, tmp_path_factory) -> Path:
    train, val = map(Dataset.load, splits)
    return train_clip(train, config(), out=tmp_path_factory.mktemp("model"), validation=val)


def rsum(model: Path, data: Dataset) -> float:
    encoder = load(str(model), device="cpu")
    images = encoder.encode_images([data.image(i) for i in range(data.n_images)])
    captions = encoder.encode_captions(data.captions)
    return recall(rank_embeddings(images, captions, data.positives))["rsum"]


@pytest.mark.slow
def test_it_learns(splits, trained):
    train, _ = map(Dataset.load, splits)
    history = json.loads((trained / "history.json").read_text())
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]
    chance = 2 * 100 * (1 + 5 + 10) / N  # two directions; several captions an image make i2t a little easier
    assert rsum(trained, train) > 5 * chance


@pytest.mark.slow
def test_the_best_model_by_rsum_is_kept(splits, trained):
    _, val = map(Dataset.load, splits)
    history = json.loads((trained / "history.json").read_text())
    recalls = [entry["eval_rsum"] for entry in history if "eval_rsum" in entry]
    assert len(recalls) == 16
    assert rsum(trained, val) == pytest.approx(max(recalls), abs=0.5)


@pytest.mark.slow
def test_the_result_is_an_ordinary_model_directory(trained):
    model, processor = AutoModel.from_pretrained(trained), AutoProcessor.from_pretrained(trained)
    batch = processor(text=["a red house"], images=np.zeros((20, 20, 3), np.uint8), return_tensors="pt")
    assert model(**batch).logits_per_image.shape == (1, 1)


@pytest.mark.slow
def test_fine_tuning_goes_on_from_a_directory_in_half_precision_storage(splits, trained, tmp_path):
    _, val = map(Dataset.load, splits)
    again = config(scratch=None, model=str(trained), captions=1, weights="float16", training={"max_steps": 2})
    out = train_clip(val, again, out=tmp_path / "out")
    assert AutoModel.from_pretrained(out, dtype="auto").dtype == torch.float16
    assert rsum(out, val) > 0.5 * rsum(trained, val)


@pytest.mark.slow
def test_same_seed_same_weights(splits, tmp_path):
    _, val = map(Dataset.load, splits)
    short = config(captions=2, training={"max_steps": 4})
    other = config(captions=2, training={"max_steps": 4, "seed": 7})
    weights = [
        (train_clip(val, settings, out=tmp_path / name) / "model.safetensors").read_bytes()
        for name, settings in [("a", short), ("b", short), ("c", other)]
    ]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.slow
def test_early_stopping(splits, tmp_path):
    train, val = map(Dataset.load, splits)
    still = config(early_stopping=2, training={"learning_rate": 0.0})
    train_clip(train.subset(range(24)), still, out=tmp_path, validation=val)
    history = json.loads((tmp_path / "history.json").read_text())
    assert len([entry for entry in history if "eval_rsum" in entry]) == 3


def test_checkpoints_of_others_are_no_training(splits, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(ConfigError, match="not part of a training, such as checkpoints"):
            train_clip(Dataset.load(splits[1]), config(), out=tmp_path, resume=resume)
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints", "best.ckpt"]


@pytest.mark.slow
@pytest.mark.parametrize("torn", ["trainer_state.json", "model.safetensors", "optimizer.pt", None])
def test_a_torn_checkpoint_is_passed_over(splits, tmp_path, torn):
    val = Dataset.load(splits[1]).subset(range(24))
    settings = config(captions=1, training={"num_train_epochs": 2})
    out = train_clip(val, settings, out=tmp_path, validation=val)
    weights = (out / "model.safetensors").read_bytes()
    first, last = (out / "checkpoints" / f"checkpoint-{step}" for step in (1, 2))
    assert module._last_checkpoint(out / "checkpoints") == str(last)
    if torn is None:  # cut off before its last file
        (last / "trainer_state.json").unlink()
    else:
        whole = (last / torn).read_bytes()
        (last / torn).write_bytes(whole[: len(whole) // 2])
    assert module._last_checkpoint(out / "checkpoints") == str(first)
    with pytest.raises(ConfigError, match="earlier training"):
        train_clip(val, settings, out=out, validation=val)
    (out / "model.safetensors").unlink()
    train_clip(val, settings, out=out, validation=val, resume=True)
    assert (out / "model.safetensors").read_bytes() == weights


def test_validation_images_without_captions_are_passed_over(splits, without_captions, tmp_path):
    val = Dataset.load(splits[1]).subset(range(12))
    settings = config(training={"num_train_epochs": 1})
    train_clip(val, settings, out=tmp_path, validation=without_captions(val, 0))
    assert "eval_rsum" in (tmp_path / "history.json").read_text()


@pytest.mark.slow
def test_a_resumed_training_says_what_differs(splits, tmp_path):
    val = Dataset.load(splits[1]).subset(range(12))
    out = train_clip(val, config(training={"num_train_epochs": 1}), out=tmp_path, validation=val)
    for changes, what in [
        ({"num_train_epochs": 2}, "another config.training.num_train_epochs: 1, now it is 2"),
        ({"num_train_epochs": 1, "weight_decay": 0.1}, "weight_decay: None, now it is 0.1"),
    ]:
        with pytest.raises(ConfigError, match=what):
            train_clip(val, config(training=changes), out=out, validation=val, resume=True)
    with pytest.raises(ConfigError, match=r"another validation: .*, now it is None"):
        train_clip(val, config(training={"num_train_epochs": 1}), out=out, resume=True)
    record = out / "training.json"
    whole = json.loads(record.read_text())
    for damage, what in [
        (["start"], "is not a record of a training"),
        (whole | {"config": None}, "another config: None"),
        (whole | {"start": 5}, "another start: 5, now it is None"),
    ]:
        record.write_text(json.dumps(damage))
        with pytest.raises(ConfigError, match=what):
            train_clip(val, config(training={"num_train_epochs": 1}), out=out, validation=val, resume=True)
    record.write_text(json.dumps(whole))
    quiet = config(training={"num_train_epochs": 1, "logging_steps": 1, "disable_tqdm": False})
    train_clip(val, quiet, out=out, validation=val, resume=True)


def test_errors_name_what_is_wrong(splits, tmp_path, monkeypatch):
    data = Dataset.load(splits[1])
    with pytest.raises(ModelError, match="no such model directory"):
        train_clip(data, config(scratch=None, model=str(tmp_path / "none")), out=tmp_path / "a")
    empty = Dataset("x", "val", [], [], [], np.empty(0, np.int64))
    with pytest.raises(DataError, match="no captions to train on"):
        train_clip(empty, config(), out=tmp_path / "b")
    with pytest.raises(DataError, match=r"validation split.*has no captions"):
        train_clip(data, config(), out=tmp_path / "b", validation=empty)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="accelerate"):
        train_clip(data, config(), out=tmp_path / "c")
