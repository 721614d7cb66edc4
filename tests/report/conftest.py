from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiir.data.dataset import Dataset
from tiir.scoring.run import Run, RunInfo


@pytest.fixture
def colours(tmp_path: Path) -> tuple[Dataset, Run]:
    """Twelve flat pictures, two captions each, random scores: hits and misses both occur."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(12):
        Image.new("RGB", (8, 6), tuple(int(v) for v in rng.integers(0, 256, 3))).save(folder / f"{n}.png")
    data = Dataset(
        "colours",
        "test",
        [f"{n}.png" for n in range(12)],
        [f"c{n}" for n in range(24)],
        [f"caption {n}, costs $5_{n}" for n in range(24)],
        np.repeat(np.arange(12), 2),
        folder,
        [f"{n}.png" for n in range(12)],
    )
    data.save(tmp_path / "data")
    info = RunInfo.about(data, tmp_path / "data", "random")
    scores = rng.integers(0, 40, (12, 24)).astype(np.float32)  # integers, so that ties occur
    return data, Run(info, scores=scores).save(tmp_path / "run")
