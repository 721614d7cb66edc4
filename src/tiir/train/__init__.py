"""Training of dual encoders and of LXMERT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiir.lazy import lazy

if TYPE_CHECKING:
    from tiir.train.clip import train_clip
    from tiir.train.config import (
        LxmertScratchConfig,
        LxmertTrainConfig,
        ScratchConfig,
        TrainConfig,
        read_config,
    )
    from tiir.train.lxmert import train_lxmert
    from tiir.train.negatives import HardNegatives, hard_negatives

__all__ = [
    "HardNegatives",
    "LxmertScratchConfig",
    "LxmertTrainConfig",
    "ScratchConfig",
    "TrainConfig",
    "hard_negatives",
    "read_config",
    "train_clip",
    "train_lxmert",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "tiir.train.clip": ["train_clip"],
        "tiir.train.config": [
            "LxmertScratchConfig",
            "LxmertTrainConfig",
            "ScratchConfig",
            "TrainConfig",
            "read_config",
        ],
        "tiir.train.lxmert": ["train_lxmert"],
        "tiir.train.negatives": ["HardNegatives", "hard_negatives"],
    },
)
