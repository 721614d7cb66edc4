"""The configuration of a training run: one YAML or JSON file, every key checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tiir.errors import ConfigError

__all__ = ["ScratchConfig", "TrainConfig", "read_config"]


class ScratchConfig(BaseModel):
    """Shape of a small CLIP that starts from random weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(600, ge=64)
    text_length: int = Field(48, ge=4)
    image_size: int = Field(64, ge=16)
    patch_size: int = Field(8, ge=2)
    width: int = Field(128, ge=8)
    heads: int = Field(4, ge=1)
    image_layers: int = Field(4, ge=1)
    text_layers: int = Field(3, ge=1)


class TrainConfig(BaseModel):
    """What to train, and how.

    Args:
        model: hub id or directory of the dual encoder to start from, or
        scratch: the shape of a small one with random weights.
        captions: at most so many captions of a picture in an epoch, in turns; all where not given.
        cache_images: keep the prepared pictures in memory (4 bytes a value) instead of reading them again
            every epoch.
        early_stopping: stop after so many evaluations without a better rsum.
        training: arguments of transformers' TrainingArguments.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    scratch: ScratchConfig | None = None
    captions: int | None = Field(None, ge=1)
    cache_images: bool = False
    early_stopping: int | None = Field(None, ge=1)
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_start(self) -> TrainConfig:
        if (self.model is None) == (self.scratch is None):
            raise ValueError("give either 'model' or 'scratch'")
        return self


def read_config(path: Path) -> TrainConfig:
    """Read a YAML (or .json) file.

    Raises:
        ConfigError: missing, not YAML, unknown keys or wrong values (each named).
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise ConfigError(f"no such file: {path}") from None
    except (yaml.YAMLError, json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} cannot be read: {problem}") from None
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as problem:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in problem.errors()]
        raise ConfigError(
            f"{path}: " + "; ".join(lines), hint=f"keys: {', '.join(TrainConfig.model_fields)}"
        ) from None
