from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tiir.data.dataset import Dataset
from tiir.scoring.run import Run, RunInfo


@pytest.fixture(scope="session")
def flickr8k(shared: Path) -> Dataset:
    lines = (shared / "flickr8k" / "Flickr_8k.testImages.txt").read_text().split()
    place = {name: i for i, name in enumerate(lines)}
    rows = [
        line.split("\t")
        for line in (shared / "flickr8k" / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines()
    ]
    rows = [row for row in rows if row[0].split("#")[0] in place]
    return Dataset(
        "flickr8k",
        "test",
        lines,
        [key for key, _ in rows],
        [text for _, text in rows],
        np.array([place[key.split("#")[0]] for key, _ in rows]),
    )


@pytest.fixture(scope="session")
def load_run(shared: Path):
    """A Run from a folder of embeddings, its rows joined to the data set by id."""

    def load(name: str, dataset: Dataset) -> Run:
        folder = shared / "runs" / name

        def side(stem: str, wanted: list[str]) -> np.ndarray:
            rows = np.load(folder / f"{stem}_embeds.npy")
            ids = (folder / f"{'image' if stem == 'image' else 'caption'}_ids.txt").read_text().split("\n")
            place = {key: i for i, key in enumerate(ids)}
            return rows[[place[key] for key in wanted]].astype(np.float32)

        return Run(
            RunInfo.about(dataset, name, name),
            image_embeds=side("image", list(dataset.image_ids)),
            text_embeds=side("text", list(dataset.caption_ids)),
        )

    return load
