"""The configuration of a training run: one YAML or JSON file, every key and value checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tiir.errors import ConfigError

__all__ = ["ScratchConfig", "TrainConfig", "read_config"]


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
            raise ValueError(f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
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


def read_config(path: Path) -> TrainConfig:
    """Read a YAML (or .json) file.

    Raises:
        ConfigError: missing, unreadable, unknown keys or wrong values (each named).
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise ConfigError(f"no such file: {path}") from None
    except OSError as problem:
        raise ConfigError(f"cannot read {path}: {problem.strerror}") from None
    except (yaml.YAMLError, json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} cannot be read: {problem}", hint="it must be YAML or JSON") from None
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as problem:
        lines = [_line(error) for error in problem.errors()]
        raise ConfigError(
            f"{path}: {'; '.join(lines)}", hint=f"keys: {', '.join(TrainConfig.model_fields)}"
        ) from None


def _line(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown key {where}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return f"{where or 'the file'} is {error['input']!r}: {error['msg']}"
