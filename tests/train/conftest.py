"""A few scenes with their regions, and a small LXMERT to train on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiir.data.dataset import Dataset
from tiir.data.sources import scenes
from tiir.features.scenes import scenes_features
from tiir.features.store import FeatureStore
from tiir.train.config import LxmertTrainConfig

SMALL = {"width": 32, "heads": 2, "language_layers": 1, "vision_layers": 1, "cross_layers": 1}


def _config(**changes: Any) -> LxmertTrainConfig:
    training = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 16,
        "learning_rate": 2e-3,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "logging_steps": 2,
    }
    training |= changes.pop("training", {})
    values: dict[str, Any] = {"scratch": SMALL, "objective": "contrastive", "captions": 1, "dropout": 0.0}
    return LxmertTrainConfig(**{**values, "training": training, **changes})


@pytest.fixture(scope="session")
def lxmert_config() -> Callable[..., LxmertTrainConfig]:
    """Makes the configuration of a training of seconds, with changes."""
    return _config


@pytest.fixture(scope="session")
def region_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set directory of 160 scenes, and their region features."""
    root = tmp_path_factory.mktemp("regions")
    data = scenes.prepare(root / "data", split="train", n=160)
    data.save(root / "data")
    scenes_features(data, root / "features.h5")
    return root / "data", root / "features.h5"


@pytest.fixture(scope="session")
def scene_regions(region_data: tuple[Path, Path]) -> tuple[Dataset, FeatureStore]:
    """The same, loaded."""
    return Dataset.load(region_data[0]), FeatureStore.open(region_data[1])


@pytest.fixture
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def without_captions() -> Callable[[Dataset, int], Dataset]:
    """Makes a data set in which one image has no captions, as no source gives it."""

    def made(data: Dataset, image: int) -> Dataset:
        keep = np.flatnonzero(data.caption_image != image)
        return replace(
            data,
            caption_ids=[data.caption_ids[c] for c in keep],
            captions=[data.captions[c] for c in keep],
            caption_image=data.caption_image[keep],
            caption_columns={},
        )

    return made
