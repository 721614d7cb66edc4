"""Score every image of a data set against every distinct caption with a cross encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiir.data.dataset import Dataset
from tiir.engine import Engine
from tiir.io import atomic_write
from tiir.models.base import PairModel
from tiir.scoring.plan import tile_of
from tiir.scoring.run import Run, finish_run
from tiir.scoring.tiles import Tiles, cut
from tiir.scoring.work import MEMORY, Say, Work

if TYPE_CHECKING:
    from tiir.features.store import FeatureStore

__all__ = ["score_cross"]

# Images and captions of a tile: minutes of LXMERT-base, which a kill may cost; each tile encodes both sides anew.
TILE = {"cpu": (256, 64)}
GPU_TILE = (256, 512)


def score_cross(
    model: PairModel,
    dataset: Dataset,
    dataset_path: Path | str,
    features: FeatureStore,
    out: Path | str,
    *,
    memory: int = MEMORY,
    tile: tuple[int, int] | None = None,
    engine: Engine | None = None,
    resume: bool = False,
    overwrite: bool = False,
    say: Say = lambda text: None,
) -> Run:
    """Score all pairs, and write a Run with the score matrix.

    Blocks of images x captions are tiles on disk: a killed run continues with `resume` and ends with the same
    bytes, whichever engine computes them. Captions are sorted by length, and tiles cost about the same.

    Args:
        model: from `tiir.models.load("lxmert:NAME")`.
        dataset: whose images and captions; its pictures are not opened.
        dataset_path: where it lies, for the Run's provenance.
        features: region features of its images.
        out: directory of the Run.
        memory: bytes that the model may take for images, captions and pairs, besides its weights.
        tile: images, and captions on average, of a tile; by the device where None.
        engine: from `tiir.scoring.engines.open_engine`; where None, this process or those that torchrun started.
        resume: continue a killed run; a finished one is returned as it is.
        overwrite: replace a Run or an unfinished run in `out`.
        say: called with the number of pairs and the expected time before the long work.

    Raises:
        DataError: the data set is empty, or `features` lack an image of it.
        ModelError: a score is NaN or infinite.
        RunError: `out` is taken, or was begun with another model, data set, features or options.
    """
    work = Work(model, dataset, dataset_path, features, out, memory, "all pairs", engine)
    height, width = tile or TILE.get(work.plan["device"], GPU_TILE)
    work.plan["tile"] = [height, width]
    n_images = dataset.n_images
    rows = [np.arange(top, min(top + height, n_images)) for top in range(0, n_images, height)]
    columns = [
        np.arange(part.start, part.stop) for part in cut(work.texts.lengths + features.n_regions, width)
    ]
    # Column by column: neighbours hold captions of the same lengths, so that processes share the work evenly.
    blocks = [(images[:, None], texts) for texts in columns for images in rows]
    keys = [f"scores-{row:06d}-{column:06d}" for column in range(len(columns)) for row in range(len(rows))]

    def finish(tiles: Tiles, notes: dict[str, Any]) -> None:
        shape = (n_images, dataset.n_captions)
        with atomic_write(work.out / "scores.npy") as temporary:
            scores = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
            for row, images in enumerate(rows):  # one row of tiles in memory
                band = np.concatenate([tile_of(tiles, key) for key in keys[row :: len(rows)]], axis=1)
                scores[images[0] : images[-1] + 1] = band[:, work.texts.of_caption]
            scores.flush()
            del scores
        finish_run(work.out, work.info(model.info.name, notes), ("scores.npy",))

    return work.run(keys, blocks, finish, engine=engine, resume=resume, overwrite=overwrite, say=say)
