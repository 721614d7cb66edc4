"""Placeholder by the coordinator: builder B replaces this whole file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Detections:
    """Regions of one image."""

    regions: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    columns: Mapping[str, npt.NDArray[Any]]
