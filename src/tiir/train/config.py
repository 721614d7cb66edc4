"""The configuration of a training run: one YAML or JSON file, every key and value checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tiir.errors import ConfigError
from tiir.io import read_json, read_yaml

__all__ = [
    "LxmertScratchConfig",
    "LxmertTrainConfig",
    "ScratchConfig",
    "TrainConfig",
    "checked",
    "differences",
    "read_config",
    "start_of",
]

Config = TypeVar("Config", bound=BaseModel)
# Keys of `training` that a resumed training may change: they decide what is shown, not what is learnt.
SHOWN = ("logging_", "log_", "report_to", "disable_tqdm", "run_name")


class ScratchConfig(BaseModel):
    """Shape of a small CLIP that starts from random weights.

    Args:
        vocabulary: largest number of tokens.
        text_length: tokens a caption can have, start and end included.
        image_size, patch_size: pixels a side.
        width, heads: of both towers and of the shared space.
        image_layers, text_layers: depth.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(600, ge=300)
    text_length: int = Field(48, ge=4)
    image_size: int = Field(60, ge=8)
    patch_size: int = Field(10, ge=2)
    width: int = Field(128, ge=8)
    heads: int = Field(2, ge=1)
    image_layers: int = Field(3, ge=1)
    text_layers: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _divides(self) -> ScratchConfig:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class TrainConfig(BaseModel):
    """What to train, and how.

    Args:
        model: hub id or directory of the dual encoder to start from, or
        scratch: the shape of a small one with random weights.
        captions: at most so many captions of a picture in an epoch, in turns; all where not given.
        cache_images: keep the prepared pictures in memory (4 bytes a value) instead of reading them again
            every epoch.
        early_stopping: stop after so many evaluations without a better rsum.
        weights: precision of the saved model; training itself follows `training` (such as `bf16: true`).
        training: arguments of transformers' TrainingArguments.

    Example:
        >>> TrainConfig(model="openai/clip-vit-base-patch32", training={"num_train_epochs": 3}).captions is None
        True
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    scratch: ScratchConfig | None = None
    captions: int | None = Field(None, ge=1)
    cache_images: bool = False
    early_stopping: int | None = Field(None, ge=1)
    weights: Literal["float32", "float16"] = "float32"
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_start(self) -> TrainConfig:
        if (self.model is None) == (self.scratch is None):
            raise ValueError("give either 'model' or 'scratch'")
        return self


class LxmertScratchConfig(BaseModel):
    """Shape of an LXMERT that starts from random weights.

    Args:
        language: hub id or directory of a BERT of the same width, whose tokenizer, embeddings and first layers
            start the language side.
        vocabulary: largest number of tokens, without `language`.
        text_length: tokens a caption can have, start and end included, without `language`.
        width, heads: of all layers.
        language_layers, vision_layers, cross_layers: depth.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: str | None = None
    vocabulary: int = Field(600, ge=300)
    text_length: int = Field(48, ge=4)
    width: int = Field(128, ge=8)
    heads: int = Field(4, ge=1)
    language_layers: int = Field(2, ge=0)
    vision_layers: int = Field(1, ge=0)
    cross_layers: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> LxmertScratchConfig:
        if self.language is not None:
            for key in sorted({"vocabulary", "text_length"} & self.model_fields_set):
                raise ValueError(f"scratch.{key} is that of 'language': give only one of them")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class LxmertTrainConfig(BaseModel):
    """What LXMERT to train, and how.

    Args:
        model: hub id or directory to start from, or
        scratch: the shape of one with random weights.
        objective: "binary" (matched or not, one pair at a time) or "contrastive" (all images of a batch against
            all its captions).
        captions: at most so many captions of an image in an epoch, in turns; all where not given.
        negatives: binary: share of pairs that are negatives, half by swapping the image, half the caption.
        loss: contrastive: "hinge" (VSE++) or "infonce".
        margin: of the hinge loss.
        top_violations: of the hinge loss: only so many worst violations count; all where not given.
        scale: inverse temperature of "infonce".
        rivals: contrastive: score each true pair against so many negatives each way only, drawn by how much the
            layers below the cross layers (see `align`) confuse them; the whole block where not given.
        align: weight of a further contrastive loss on the averages of the language and the vision layers, which
            brings both sides together before the cross layers (ALBEF, arXiv:2107.07651).
        hard_share: binary: of the negatives, how many are drawn from those that the Run of `--negatives` confuses.
        hard_partners: contrastive: further images a batch takes for each of its images, from the same.
        hard_depth: how many negatives of each image and caption count as confused.
        dropout: of all layers; the model's own where not given.
        validation_images, validation_captions: validate on the first so many images, and captions of each.
        early_stopping: stop after so many evaluations without a better rsum.
        weights: precision of the saved model; training itself follows `training` (such as `bf16: true`).
        training: arguments of transformers' TrainingArguments; a batch counts images.

    Example:
        >>> LxmertTrainConfig(model="unc-nlp/lxmert-base-uncased", objective="binary").negatives
        0.5
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    scratch: LxmertScratchConfig | None = None
    objective: Literal["binary", "contrastive"]
    captions: int | None = Field(None, ge=1)
    negatives: float = Field(0.5, ge=0, lt=1)
    loss: Literal["hinge", "infonce"] = "hinge"
    margin: float = Field(0.2, gt=0)
    top_violations: int | None = Field(None, ge=1)
    scale: float = Field(1.0, gt=0)
    rivals: int | None = Field(None, ge=1)
    align: float = Field(0.0, ge=0)
    hard_share: float = Field(0.0, ge=0, le=1)
    hard_partners: int = Field(0, ge=0)
    hard_depth: int = Field(20, ge=1)
    dropout: float | None = Field(None, ge=0, lt=1)
    validation_images: int | None = Field(None, ge=2)
    validation_captions: int | None = Field(None, ge=1)
    early_stopping: int | None = Field(None, ge=1)
    weights: Literal["float32", "float16"] = "float32"
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> LxmertTrainConfig:
        if (self.model is None) == (self.scratch is None):
            raise ValueError("give either 'model' or 'scratch'")
        of = {
            "binary": ("negatives", "hard_share"),
            "contrastive": ("loss", "margin", "top_violations", "scale", "rivals", "hard_partners"),
        }
        other = "binary" if self.objective == "contrastive" else "contrastive"
        if foreign := [key for key in of[other] if key in self.model_fields_set]:
            raise ValueError(f"{foreign[0]} belongs to the {other} objective, not to {self.objective}")
        if self.objective == "contrastive":
            foreign = ["scale"] if self.loss == "hinge" else ["margin", "top_violations"]
            if ignored := [key for key in foreign if key in self.model_fields_set]:
                raise ValueError(f"{ignored[0]} does not belong to the loss {self.loss}")
        if self.rivals is not None and not self.align:
            raise ValueError("rivals are drawn by what align learns: set align, such as 1.0")
        return self


def read_config(path: Path | str, kind: type[Config] = TrainConfig) -> Config:  # type: ignore[assignment]
    """Read a YAML (or .json) file.

    Args:
        path: the file.
        kind: TrainConfig or LxmertTrainConfig.

    Raises:
        ConfigError: missing, unreadable, unknown keys or wrong values (each named).
    """
    path = Path(path)
    return checked((read_json if path.suffix == ".json" else read_yaml)(path, error=ConfigError), kind, path)


def start_of(config: TrainConfig | LxmertTrainConfig) -> str | None:
    """The model, or the language side of one, that a training starts from; None where all weights are random.

    Example:
        >>> start_of(TrainConfig(model="openai/clip-vit-base-patch32"))
        'openai/clip-vit-base-patch32'
    """
    return config.model or getattr(config.scratch, "language", None)


def checked(values: Any, kind: type[Config], where: Path | str) -> Config:
    """Values that were read, as a model.

    Args:
        values: a mapping, if all is well.
        kind: the model.
        where: they come from, for messages.

    Raises:
        ConfigError: unknown keys or wrong values (each named).
    """
    try:
        return kind.model_validate(values)
    except ValidationError as problem:
        lines = [_line(error) for error in problem.errors()]
        raise ConfigError(
            f"{where}: {'; '.join(lines)}", hint=f"keys: {', '.join(kind.model_fields)}"
        ) from None


def _line(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown key {where}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return f"{where or 'the file'} is {error['input']!r}: {error['msg']}"


def differences(begun: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """What two records of settings differ in, but for what only decides how much is shown.

    Args:
        begun, now: nested dicts of JSON values.
        name: of them, a prefix.

    Yields:
        dotted name, value of `begun`, value of `now`; None where one has no such key.

    Example:
        >>> list(differences({"training": {"seed": 0, "logging_steps": 5}}, {"training": {"seed": 1}}))
        [('training.seed', 0, 1)]
    """
    if not (isinstance(begun, dict) and isinstance(now, dict)):
        if begun != now:
            yield name, begun, now
        return
    for key in {**begun, **now}:
        if not (name.split(".")[-1] == "training" and key.startswith(SHOWN)):
            yield from differences(begun.get(key), now.get(key), f"{name}.{key}" if name else key)
