"""Damaged model directories and checkpoints: loaded whole, or refused in one message; pickles never run."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertModel

from tiir.data.dataset import Dataset
from tiir.data.sources import scenes
from tiir.errors import ModelError, TiirError
from tiir.models import load
from tiir.models.frcnn import Frcnn
from tiir.models.scratch import new_lxmert
from tiir.models.sentence import SentenceEncoder
from tiir.train.clip import train_clip
from tiir.train.config import TrainConfig

WORDS = "a the man woman dog cat red blue green runs sits on in with grass water street two three people"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path) -> dict[str, Path]:
    """A small directory of each kind."""
    root = tmp_path_factory.mktemp("kinds")
    new_lxmert([WORDS] * 3, root / "lxmert", feature_width=4, vocabulary=300, width=16, heads=2,
               language_layers=1, vision_layers=1, cross_layers=1)  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tiny_clip)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    BertModel(config).save_pretrained(root / "sentence")
    tokenizer.save_pretrained(root / "sentence")
    (root / "sentence" / "1_Pooling").mkdir()
    (root / "sentence" / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (root / "sentence" / "modules.json").write_text('[{"type": "sentence_transformers.models.Pooling"}]')
    return {"dual": tiny_clip, "lxmert": root / "lxmert", "sentence": root / "sentence"}


LOAD: dict[str, Callable[[Path], Any]] = {
    "dual": lambda path: load(str(path), device="cpu"),
    "lxmert": lambda path: load(f"lxmert:{path}", device="cpu"),
    "sentence": lambda path: SentenceEncoder(str(path), device="cpu").encode(["a dog"]),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[: len(raw) // 2 : 97] = bytes(len(raw[: len(raw) // 2 : 97]))
    path.write_bytes(bytes(raw))


def another(path: Path) -> None:
    path.write_text('[{"x": ["y"]}]')


def claims(path: Path) -> None:
    """The header of a safetensors file, or a text, that says terabytes."""
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])


def lacking(path: Path) -> None:
    """One tensor less."""
    if path.name == WEIGHTS:
        tensors = load_file(path)
        tensors.pop(sorted(key for key in tensors if key.endswith("weight"))[0])
        save_file(tensors, path, {"format": "pt"})
    else:
        path.unlink()


DAMAGE = [cut, empty, flipped, another, claims, lacking]


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("kind", LOAD)
def test_a_damaged_directory_is_refused(
    models: dict[str, Path], tmp_path: Path, kind: str, damage: Callable[[Path], None]
) -> None:
    """Every file of it in turn; a model that loads anyway is never one with random weights."""
    names = sorted(p.relative_to(models[kind]) for p in models[kind].rglob("*") if p.is_file())
    for name in names:
        folder = tmp_path / "model"
        shutil.copytree(models[kind], folder)
        damage(folder / name)
        if name.name in (WEIGHTS, "config.json") and len(name.parts) == 1:
            with pytest.raises(ModelError):
                LOAD[kind](folder)
        else:
            with contextlib.suppress(TiirError):
                LOAD[kind](folder)
        shutil.rmtree(folder)


class Payload:
    """What a pickle may do when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("kind", LOAD)
def test_a_pickle_in_a_directory_is_not_run(models: dict[str, Path], tmp_path: Path, kind: str) -> None:
    folder, target = tmp_path / "model", tmp_path / "executed"
    shutil.copytree(models[kind], folder)
    (folder / WEIGHTS).unlink()
    torch.save({"embeddings.word_embeddings.weight": Payload(target)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError):
        LOAD[kind](folder)
    assert not target.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("RESNETS.DEPTH", ".inf"),
        ("RESNETS.DEPTH", "2023-99-99"),
        ("MODEL.PIXEL_MEAN", "7"),
        ("ANCHOR_GENERATOR.SIZES", "[]"),
    ],
)
def test_a_config_of_a_detector_with_odd_values(tmp_path: Path, key: str, value: str) -> None:
    config = {"RESNETS": {"STEM_OUT_CHANNELS": 8}}
    (tmp_path / "config.yaml").write_text(json.dumps(config)[:-1] + f', "{key}": {value}}}')
    with pytest.raises(ModelError, match=r"config\.yaml"):
        Frcnn(str(tmp_path), device="cpu")


@pytest.mark.slow
def test_a_pickle_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    """Of the generators and the optimizer, when a training is resumed."""
    scenes.prepare(tmp_path / "data", split="train", n=6).save(tmp_path / "data")
    data, out, target = Dataset.load(tmp_path / "data"), tmp_path / "out", tmp_path / "executed"
    shape = {"width": 16, "heads": 2, "image_layers": 1, "text_layers": 1, "image_size": 16, "patch_size": 8}
    steps = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 2}
    training = {**steps, "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    settings = TrainConfig(scratch=shape, training=training)
    train_clip(data, settings, out=out)
    shutil.rmtree(out / "checkpoints" / "checkpoint-2")
    for name in ("rng_state.pth", "optimizer.pt"):
        file = out / "checkpoints" / "checkpoint-1" / name
        held = file.read_bytes()
        torch.save({"cpu": Payload(target), "state": Payload(target)}, file)
        with pytest.raises(ModelError, match=r"cannot continue from .*checkpoint-1"):
            train_clip(data, settings, out=out, resume=True)
        assert not target.exists()
        file.write_bytes(held)
