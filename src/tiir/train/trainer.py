"""Fine-tuning of dual encoders on transformers' Trainer."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, MissingExtraError, ModelError
from tiir.metrics.ranks import rank_embeddings
from tiir.metrics.recall import recall
from tiir.models.scratch import new_clip
from tiir.train.config import TrainConfig
from tiir.train.losses import contrastive_loss
from tiir.train.pairs import Collator, Pairs

__all__ = ["train_clip"]

BATCH = 128  # of the evaluation


def train_clip(
    dataset: Dataset,
    config: TrainConfig,
    *,
    out: Path,
    validation: Dataset | None = None,
    resume: bool = False,
) -> Path:
    """Fine-tune a dual encoder, or train a small CLIP from scratch, with the contrastive loss.

    Args:
        dataset: training pictures and captions.
        config: the model to start from and TrainingArguments.
        out: directory to write the model into; checkpoints and logs go to `out/checkpoints`.
        validation: scored after every epoch; the model with the best rsum is kept. The last one if None.
        resume: continue from the last checkpoint in `out`.

    Returns:
        `out`, an ordinary model directory.

    Raises:
        MissingExtraError: accelerate is not installed.
        ConfigError: TrainingArguments refuses an argument, or `out` holds checkpoints and `resume` is False.
        ModelError: the model to start from cannot be loaded.
    """
    if find_spec("accelerate") is None:
        raise MissingExtraError("accelerate", "train")
    checkpoints = out / "checkpoints"
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    if last and not resume:
        raise ConfigError(f"{out} holds checkpoints of an earlier training", hint="continue it with --resume")
    arguments = _arguments(config, checkpoints, validates=validation is not None)
    set_seed(arguments.seed)
    start = config.model
    if start is None:
        assert config.scratch is not None
        start = str(out / "scratch")
        new_clip(dataset.captions, Path(start), seed=arguments.seed, **config.scratch.model_dump())
    try:
        model = AutoModel.from_pretrained(start)
        images = AutoImageProcessor.from_pretrained(start)
        tokenizer = AutoTokenizer.from_pretrained(start)
    except (OSError, ValueError) as problem:
        raise ModelError(f"cannot load {start} to train it: {problem}") from None
    if not hasattr(model, "get_image_features"):
        raise ModelError(
            f"{start} is a {type(model).__name__}, not a dual encoder", hint="start from a CLIP-type model"
        )

    def prepare(picture: Any) -> Tensor:
        pixels: Tensor = images(picture, return_tensors="pt")["pixel_values"][0]
        return pixels

    stops = [] if config.early_stopping is None else [EarlyStoppingCallback(config.early_stopping)]
    text = getattr(model.config, "text_config", model.config)
    length = min(tokenizer.model_max_length, text.max_position_embeddings)
    collator = Collator(tokenizer, length)
    pairs = Pairs(dataset, prepare, captions=config.captions, seed=arguments.seed, cache=config.cache_images)
    trainer = _ContrastiveTrainer(
        model=model,
        args=arguments,
        train_dataset=pairs,
        eval_dataset=None if validation is None else Pairs(validation, prepare, cache=config.cache_images),
        data_collator=collator,
        callbacks=[_Turns(pairs), *stops],
    )
    trainer.train(resume_from_checkpoint=last)
    for part in (trainer.model, images, tokenizer):
        part.save_pretrained(out)
    history = [entry for entry in trainer.state.log_history if "eval_rsum" in entry or "loss" in entry]
    (out / "history.json").write_text(json.dumps(history, indent=1) + "\n")
    return out


def _arguments(config: TrainConfig, checkpoints: Path, *, validates: bool) -> TrainingArguments:
    defaults: dict[str, Any] = {
        "output_dir": str(checkpoints),
        "save_strategy": "epoch",
        "eval_strategy": "epoch" if validates else "no",
        "load_best_model_at_end": validates,
        "metric_for_best_model": "rsum" if validates else None,
        "save_total_limit": 2,
        "remove_unused_columns": False,
        "report_to": ["tensorboard"] if find_spec("tensorboard") else [],
        "logging_steps": 50,
    }
    reserved = {"output_dir", "remove_unused_columns"} & config.training.keys()
    if reserved:
        raise ConfigError(f"training.{reserved.pop()} cannot be set", hint="the output folder is --out")
    try:
        return TrainingArguments(**{**defaults, **config.training})
    except (TypeError, ValueError) as problem:
        raise ConfigError(
            f"training: {problem}", hint="the keys are those of transformers.TrainingArguments"
        ) from None


class _Turns(TrainerCallback):  # type: ignore[misc]
    """Tells the pairs which epoch it is, also after a resume."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.pairs.epoch = int(state.epoch)


class _ContrastiveTrainer(Trainer):  # type: ignore[misc]
    """Trainer with the contrastive loss, and recall on the whole validation split as its evaluation."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        inputs = dict(inputs)
        owner, pixels = inputs.pop("owner"), inputs.pop("pixel_values")
        core = self.accelerator.unwrap_model(model)
        image_embeds = _tensor(core.get_image_features(pixel_values=pixels))
        text_embeds = _tensor(core.get_text_features(**inputs))
        scale = (
            core.logit_scale.exp().clamp(max=100) if hasattr(core, "logit_scale") else 1 / core.temperature
        )
        loss = contrastive_loss(image_embeds, text_embeds, scale, owner)
        return (loss, {"loss": loss}) if return_outputs else loss

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        metrics = {
            f"{metric_key_prefix}_{k}": v
            for k, v in _validate(self.model, self.eval_dataset, self.data_collator).items()
        }
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


@torch.inference_mode()
def _validate(model: Any, pairs: Pairs, collator: Collator) -> dict[str, float]:
    model.eval()
    data, device = pairs.dataset, model.device
    images, texts = [], []
    for start in range(0, data.n_images, BATCH):
        rows = range(start, min(start + BATCH, data.n_images))
        pixels = torch.stack([pairs.pixels(image) for image in rows]).to(device)
        images.append(_tensor(model.get_image_features(pixel_values=pixels)))
    for start in range(0, data.n_captions, BATCH):
        tokens = collator.tokens(data.captions[start : start + BATCH]).to(device)
        texts.append(_tensor(model.get_text_features(**tokens)))
    sides = [
        torch.nn.functional.normalize(torch.cat(side).float(), dim=-1).cpu().numpy()
        for side in (images, texts)
    ]
    model.train()
    return recall(rank_embeddings(sides[0], sides[1], data.positives))


def _tensor(features: Any) -> Tensor:
    # transformers 5 gives an output object, transformers 4 the tensor itself.
    tensor: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return tensor
