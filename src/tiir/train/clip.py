"""Fine-tuning of dual encoders on transformers' Trainer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tiir.data.dataset import Dataset
from tiir.errors import ModelError
from tiir.metrics.ranking import rank_embeddings
from tiir.metrics.recall import recall
from tiir.models.dual import load_parts
from tiir.models.loading import caption_limit
from tiir.models.scratch import new_clip
from tiir.models.source import Source
from tiir.train.config import TrainConfig
from tiir.train.losses import contrastive_loss
from tiir.train.pairs import Collator, Pairs
from tiir.train.trainer import RecallTrainer, begin, run

__all__ = ["train_clip"]

BATCH = 128  # of the evaluation
LONGEST = 512  # tokens of a caption, where neither tokenizer nor model has a limit


def train_clip(
    dataset: Dataset,
    config: TrainConfig,
    *,
    out: Path | str,
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
        DataError: no captions to train on, or to validate on.
        ModelError: the model to start from cannot be loaded, or has no temperature to learn.
    """
    out = Path(out)
    arguments, last, source = begin(dataset, config, out, validation=validation, resume=resume)
    if config.scratch is not None:
        source = Source(str(out / "scratch"))
        with arguments.main_process_first(desc="writing a new model"):
            if arguments.process_index == 0:
                new_clip(
                    dataset.captions, Path(source.name), seed=arguments.seed, **config.scratch.model_dump()
                )
    assert source is not None
    model, images, tokenizer = load_parts(source)
    if not (hasattr(model, "logit_scale") or hasattr(model, "temperature")):
        raise ModelError(
            f"{source.name} is a {type(model).__name__} without a temperature",
            hint="start from a CLIP-type model",
        )

    def prepare(picture: Any) -> Tensor:
        pixels: Tensor = images(picture, return_tensors="pt")["pixel_values"][0]
        return pixels

    pairs = Pairs(dataset, prepare, captions=config.captions, seed=arguments.seed, cache=config.cache_images)
    collator = Collator(tokenizer, caption_limit(model, tokenizer) or LONGEST)
    held_out = None if validation is None else Pairs(validation, prepare, cache=config.cache_images)
    trainer = _ContrastiveTrainer(
        model=_Towers(model),
        args=arguments,
        train_dataset=pairs,
        data_collator=collator,
        turns=pairs.turns,
        validate=None if held_out is None else lambda towers: _validate(towers, held_out, collator),
        early_stopping=config.early_stopping,
    )
    return run(trainer, last, out, model, tokenizer, images, weights=config.weights)


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


class _ContrastiveTrainer(RecallTrainer):
    """The loss is computed outside the module: data parallel wrappers gather the embeddings first."""

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], **_: Any) -> Tensor:
        tokens = {key: value for key, value in inputs.items() if key not in ("pixel_values", "owner")}
        image_embeds, text_embeds, scale = model(inputs["pixel_values"], tokens)
        return contrastive_loss(image_embeds, text_embeds, scale.mean(), inputs["owner"])


def _validate(towers: _Towers, pairs: Pairs, collator: Collator) -> dict[str, float]:
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
    return recall(rank_embeddings(image_embeds, text_embeds, data.positives, empty="exclude"))
