"""Fine-tuning of dual encoders on transformers' Trainer."""

from __future__ import annotations

import dataclasses
import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, DataError, MissingExtraError, ModelError
from tiir.io import read_json, write_json
from tiir.metrics.ranks import rank_embeddings
from tiir.metrics.recall import recall
from tiir.models.dual import caption_limit, load_parts
from tiir.models.scratch import new_clip
from tiir.train.config import TrainConfig
from tiir.train.losses import contrastive_loss
from tiir.train.pairs import Collator, Pairs

__all__ = ["train_clip"]

BATCH = 128  # of the evaluation
LONGEST = 512  # tokens of a caption, where neither tokenizer nor model has a limit

HOLDS = {"dataset.json": "data set", "run.json": "Run", "config.json": "model"}


def train_clip(
    dataset: Dataset,
    config: TrainConfig,
    *,
    out: Path,
    validation: Dataset | None = None,
    resume: bool = False,
) -> Path:
    """Fine-tune a dual encoder, or train a small CLIP from scratch, with the contrastive loss.

    Under torchrun each process takes its share of a batch, and the negatives of a pair are those of its process.

    Args:
        dataset: training pictures and captions.
        config: the model to start from and TrainingArguments.
        out: directory to write the model into; checkpoints and TensorBoard logs go to `out/checkpoints`,
            losses and recalls to `out/history.json`.
        validation: scored after every epoch; the model with the best rsum is kept. The last one if None.
        resume: continue from the last whole checkpoint in `out`, from the start if there is none.

    Returns:
        `out`, an ordinary model directory.

    Raises:
        MissingExtraError: accelerate is not installed.
        ConfigError: a wrong training argument, or `out` holds checkpoints and `resume` is False.
        DataError: no captions to train on.
        ModelError: the model to start from cannot be loaded, or has no temperature to learn.
    """
    if find_spec("accelerate") is None:
        raise MissingExtraError("accelerate", "train")
    if not dataset.n_captions:
        raise DataError(f"{dataset!r} has no captions to train on")
    checkpoints = out / "checkpoints"
    last = _last_checkpoint(checkpoints)
    if last and not resume:
        raise ConfigError(
            f"{out} holds checkpoints of an earlier training",
            hint="continue it with --resume, or choose another --out",
        )
    held = next((name for name in ("dataset.json", "run.json", "config.json") if (out / name).exists()), None)
    if held and not last:
        raise ConfigError(f"{out} already holds a {HOLDS[held]}", hint="choose another --out")
    arguments = _arguments(config, checkpoints, validates=validation is not None)
    _check_same(out, config, dataset, resume=last is not None)
    set_seed(arguments.seed)
    start = config.model
    if config.scratch is not None:
        start = str(out / "scratch")
        with arguments.main_process_first(desc="writing a new model"):
            if arguments.process_index == 0:
                new_clip(dataset.captions, Path(start), seed=arguments.seed, **config.scratch.model_dump())
    assert start is not None
    model, images, tokenizer = load_parts(start)
    if not (hasattr(model, "logit_scale") or hasattr(model, "temperature")):
        raise ModelError(
            f"{start} is a {type(model).__name__} without a temperature", hint="start from a CLIP-type model"
        )

    def prepare(picture: Any) -> Tensor:
        pixels: Tensor = images(picture, return_tensors="pt")["pixel_values"][0]
        return pixels

    pairs = Pairs(dataset, prepare, captions=config.captions, seed=arguments.seed, cache=config.cache_images)
    callbacks: list[TrainerCallback] = [_Turns(pairs)]
    if config.early_stopping is not None:
        callbacks.append(EarlyStoppingCallback(config.early_stopping))
    trainer = _ContrastiveTrainer(
        model=_Towers(model),
        args=arguments,
        train_dataset=pairs,
        eval_dataset=None if validation is None else Pairs(validation, prepare, cache=config.cache_images),
        data_collator=Collator(tokenizer, caption_limit(model, tokenizer) or LONGEST),
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=last)
    if trainer.is_world_process_zero():
        model.to(getattr(torch, config.weights))
        for part in (model, images, tokenizer):
            part.save_pretrained(out)
        history = [entry for entry in trainer.state.log_history if "eval_rsum" in entry or "loss" in entry]
        write_json(out / "history.json", history)
    return out


def _check_same(out: Path, config: TrainConfig, dataset: Dataset, *, resume: bool) -> None:
    # What a resumed training must share with the one it continues.
    path, now = out / "training.json", {"config": config.model_dump(), "dataset": dataset.fingerprint}
    if not resume:
        write_json(path, now)
        return
    begun = read_json(path, error=ConfigError)
    for key, value in now.items():
        if begun.get(key) != value:
            raise ConfigError(
                f"{out} was begun with another {key}", hint="resume with the same, or choose another --out"
            )


def _last_checkpoint(folder: Path) -> str | None:
    # The Trainer writes trainer_state.json last: a checkpoint without it was cut off by a kill.
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


def _arguments(config: TrainConfig, checkpoints: Path, *, validates: bool) -> TrainingArguments:
    if config.early_stopping is not None and not validates:
        raise ConfigError("early_stopping needs a validation split", hint="give --validation")
    defaults: dict[str, Any] = {
        "save_strategy": "epoch",
        "eval_strategy": "epoch" if validates else "no",
        "save_total_limit": 2,
        "logging_steps": 50,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "disable_tqdm": not sys.stderr.isatty(),  # a bar for people, lines for log files
        "report_to": ["tensorboard"] if find_spec("tensorboard") else [],
    }
    ours: dict[str, Any] = {
        "output_dir": str(checkpoints),
        "remove_unused_columns": False,
        "load_best_model_at_end": validates,
        "metric_for_best_model": "rsum" if validates else None,
    }
    fields = {field.name: field for field in dataclasses.fields(TrainingArguments) if field.init}
    given = {}
    for key, value in config.training.items():
        if key in ours:
            raise ConfigError(f"training.{key} cannot be set: the training decides it", hint="remove it")
        if key not in fields:
            raise ConfigError(
                f"unknown key training.{key}", hint="the keys are those of transformers.TrainingArguments"
            )
        given[key] = _number(key, value, fields[key].default)
    try:
        return TrainingArguments(**{**defaults, **given, **ours})
    except (TypeError, ValueError) as problem:
        raise ConfigError(f"training: {problem}") from None


def _number(key: str, value: Any, default: Any) -> Any:
    # TrainingArguments takes any type and fails much later; YAML reads 1e-3 as text.
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"training.{key} is {value!r}", hint="true or false")
        return value
    if isinstance(default, (int, float)):
        try:
            number = float(value if not isinstance(value, bool) else "a truth value is no number")
        except (TypeError, ValueError):
            raise ConfigError(f"training.{key} is {value!r}", hint="it must be a number") from None
        # Defaults such as save_steps: 500.0 are floats: a whole number is given on as an int either way.
        if isinstance(default, int) and not number.is_integer() and key != "warmup_steps":
            raise ConfigError(f"training.{key} is {value!r}", hint="it must be a whole number")
        return int(number) if number.is_integer() and isinstance(default, int) else number
    if isinstance(value, str) and key.endswith(("_steps", "_ratio")):
        raise ConfigError(f"training.{key} is the text {value!r}", hint="write a number such as 10 or 0.1")
    return value


class _Turns(TrainerCallback):  # type: ignore[misc]
    """Tells the pairs which epoch it is, also after a resume."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.pairs.epoch = int(state.epoch)


class _Towers(torch.nn.Module):
    """Both towers as one forward pass, so that data parallel wrappers see it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        # CLIP keeps the scale at 100 at most; a model that starts above keeps its own.
        self.limit = (
            max(math.log(100), float(model.logit_scale.detach())) if hasattr(model, "logit_scale") else 0.0
        )

    def forward(self, pixel_values: Tensor, tokens: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of the pictures (B, d), of the captions (M, d), and the inverse temperature."""
        model = self.model
        if hasattr(model, "logit_scale"):
            # The parameter is clamped, not the scale: beyond the limit the scale would have no gradient to come back by.
            model.logit_scale.data.clamp_(max=self.limit)
            scale = model.logit_scale.exp()
        else:
            scale = 1 / model.temperature
        return self.images(pixel_values), self.captions(tokens), scale

    def images(self, pixel_values: Tensor) -> Tensor:
        return _tensor(self.model.get_image_features(pixel_values=pixel_values))

    def captions(self, tokens: dict[str, Tensor]) -> Tensor:
        return _tensor(self.model.get_text_features(**tokens))


def _tensor(features: Any) -> Tensor:
    # transformers 5 gives an output object, transformers 4 the tensor itself.
    tensor: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return tensor


class _ContrastiveTrainer(Trainer):  # type: ignore[misc]
    """Trainer with the contrastive loss, and recall on the whole validation split as its evaluation."""

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], **_: Any) -> Tensor:
        tokens = {key: value for key, value in inputs.items() if key not in ("pixel_values", "owner")}
        image_embeds, text_embeds, scale = model(inputs["pixel_values"], tokens)
        return contrastive_loss(image_embeds, text_embeds, scale.mean(), inputs["owner"])

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        towers = self.accelerator.unwrap_model(self.model)
        values = _validate(towers, self.eval_dataset, self.data_collator)
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in values.items()}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


@torch.no_grad()
def _validate(towers: _Towers, pairs: Pairs, collator: Collator) -> dict[str, float]:
    towers.eval()
    data, device = pairs.dataset, towers.model.device
    images, texts = [], []
    for start in range(0, data.n_images, BATCH):
        rows = range(start, min(start + BATCH, data.n_images))
        images.append(towers.images(torch.stack([pairs.pixels(image) for image in rows]).to(device)))
    for start in range(0, data.n_captions, BATCH):
        texts.append(towers.captions(collator.tokens(data.captions[start : start + BATCH]).to(device)))
    image_embeds, text_embeds = (
        torch.nn.functional.normalize(torch.cat(side).float(), dim=-1).cpu().numpy()
        for side in (images, texts)
    )
    towers.train()
    return recall(rank_embeddings(image_embeds, text_embeds, data.positives))
