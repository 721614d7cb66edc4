from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tiir.data.dataset import Dataset
from tiir.scoring.run import Run, RunInfo


@pytest.fixture
def make() -> Callable[..., tuple[Run, Dataset]]:
    """A Run of a score matrix (images x captions) and its data set."""

    def made(scores, owner, texts=None, name="by hand"):  # type: ignore[no-untyped-def]
        scores, owner = np.asarray(scores, np.float32), np.asarray(owner)
        n_images, n_captions = scores.shape
        data = Dataset(
            "made",
            "test",
            [f"i{n}" for n in range(n_images)],
            [f"c{n}" for n in range(n_captions)],
            list(texts) if texts is not None else [f"caption {n}" for n in range(n_captions)],
            owner,
        )
        return Run(RunInfo.about(data, "made", name), scores=scores), data

    return made
