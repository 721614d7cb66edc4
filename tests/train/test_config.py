from __future__ import annotations

import json

import pytest

from tiir.errors import ConfigError
from tiir.train.config import LxmertTrainConfig, TrainConfig, read_config
from tiir.train.trainer import training_arguments

SCRATCH = "scratch: {width: 16}\n"


def test_yaml_and_json_say_the_same(tmp_path):
    values = {"scratch": {"width": 32, "heads": 4}, "captions": 2, "training": {"seed": 3}}
    (tmp_path / "a.json").write_text(json.dumps(values))
    (tmp_path / "a.yaml").write_text("scratch:\n  width: 32\n  heads: 4\ncaptions: 2\ntraining:\n  seed: 3\n")
    assert read_config(tmp_path / "a.json") == read_config(tmp_path / "a.yaml") == TrainConfig(**values)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (SCRATCH + "caching: true\n", "unknown key caching"),
        ("scratch: {widht: 16}\n", "unknown key scratch.widht"),
        ("scratch: {width: wide}\n", "scratch.width is 'wide'"),
        (SCRATCH + "captions: 0\n", "captions is 0"),
        (SCRATCH + "weights: int8\n", "weights is 'int8'"),
        ("scratch: {image_size: 64, patch_size: 10}\n", "image_size 64 is not a multiple of patch_size 10"),
        ("scratch: {width: 16, heads: 3}\n", "width 16 is not a multiple of heads 3"),
        ("captions: 1\n", "give either 'model' or 'scratch'"),
        ("model: a\n" + SCRATCH, "give either 'model' or 'scratch'"),
        ("", "the file is None"),
        ("- 1\n", r"the file is \[1\]"),
        ("a: [\n", "cannot be read"),
    ],
)
def test_wrong_files_are_explained(tmp_path, text, what):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=what) as caught:
        read_config(path)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("training", "what"),
    [
        ({"learning_rat": 1}, "unknown key training.learning_rat"),
        ({"learning_rate": "fast"}, "training.learning_rate is 'fast'"),
        ({"bf16": "maybe"}, "training.bf16 is 'maybe'"),
        ({"output_dir": "x"}, "training.output_dir cannot be set"),
        ({"save_strategy": "sometimes"}, "sometimes"),
        ({"seed": -1}, "training.seed is -1"),
        ({"eval_strategy": "steps", "eval_steps": 5}, "training.eval_strategy needs a validation split"),
        ({"eval_on_start": True}, "training.eval_on_start needs a validation split"),
    ],
)
def test_wrong_training_arguments_are_named(tmp_path, training, what):
    config = TrainConfig(model="m", training=training)
    with pytest.raises(ConfigError, match=what):
        training_arguments(config, tmp_path, validates=False)


def test_yaml_reads_1e_3_as_text_but_it_is_a_number(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(SCRATCH + "training: {learning_rate: 1e-3, num_train_epochs: 2}\n")
    arguments = training_arguments(read_config(path), tmp_path, validates=True)
    assert arguments.learning_rate == 0.001
    assert arguments.num_train_epochs == 2
    assert arguments.metric_for_best_model == "rsum"
    assert arguments.greater_is_better


def test_early_stopping_needs_validation(tmp_path):
    with pytest.raises(ConfigError, match="needs a validation split"):
        training_arguments(TrainConfig(model="m", early_stopping=2), tmp_path, validates=False)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("scratch: {}\n", "objective is .*Field required"),
        ("objective: ranking\nscratch: {}\n", "objective is 'ranking'"),
        ("objective: binary\n", "give either 'model' or 'scratch'"),
        ("objective: binary\nmodel: m\nnegatives: 1.0\n", "negatives is 1.0"),
        (
            "objective: binary\nmodel: m\nmargin: 0.3\n",
            "margin belongs to the contrastive objective, not to binary",
        ),
        ("objective: contrastive\nmodel: m\nhard_share: 0.5\n", "hard_share belongs to the binary objective"),
        ("objective: contrastive\nmodel: m\nrivals: 2\n", "set align"),
        ("objective: contrastive\nmodel: m\nscale: 2\n", "scale does not belong to the loss hinge"),
        (
            "objective: contrastive\nmodel: m\nloss: infonce\nmargin: 0.3\n",
            "margin does not belong to the loss infonce",
        ),
        ("objective: binary\nscratch: {language: b, text_length: 9}\n", "scratch.text_length is that of"),
        ("objective: binary\nscratch: {width: 16, heads: 3}\n", "width 16 is not a multiple of heads 3"),
        ("objective: binary\nscratch: {layers: 3}\n", "unknown key scratch.layers"),
    ],
)
def test_wrong_lxmert_files_are_explained(tmp_path, text, what):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=what) as caught:
        read_config(path, LxmertTrainConfig)
    assert str(path) in str(caught.value)
