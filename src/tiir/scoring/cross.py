"""Score every image of a data set against every distinct caption with a cross encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tiir.data.dataset import Dataset
from tiir.io import atomic_write, write_json
from tiir.models.base import PairModel
from tiir.scoring.run import Run
from tiir.scoring.tiles import Tiles
from tiir.scoring.work import MEMORY, Say, Work

if TYPE_CHECKING:
    from tiir.features.store import FeatureStore

__all__ = ["score_cross"]

FloatArray = npt.NDArray[np.float32]

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
    resume: bool = False,
    overwrite: bool = False,
    say: Say = lambda text: None,
) -> Run:
    """Score all pairs, and write a Run with the score matrix.

    Blocks of images x captions are tiles on disk: a killed run continues with `resume` and ends with the same
    bytes. Under torchrun the processes share the tiles, and process 0 puts them together: the same bytes again.

    Args:
        model: from `tiir.models.load("lxmert:NAME")`.
        dataset: whose images and captions; its pictures are not opened.
        dataset_path: where it lies, for the Run's provenance.
        features: region features of its images.
        out: directory of the Run.
        memory: bytes that the model may take for images, captions and pairs, besides its weights.
        tile: images and captions of a tile; by the device where None.
        resume: continue a killed run; a finished one is returned as it is.
        overwrite: replace a Run or an unfinished run in `out`.
        say: called with the number of pairs and the expected time before the long work.

    Raises:
        DataError: the data set is empty, or `features` lack an image of it.
        ModelError: a score is NaN or infinite.
        RunError: `out` is taken, or was begun with another model, data set, features or options.
    """
    work = Work(model, dataset, dataset_path, features, out, memory, "all pairs")
    height, width = tile or TILE.get(work.plan["device"], GPU_TILE)
    work.plan["tile"] = [height, width]
    n_images, n_texts = dataset.n_images, len(work.texts)
    tops, lefts = range(0, n_images, height), range(0, n_texts, width)
    # Column by column: neighbours hold captions of the same lengths, so that processes share the work evenly.
    blocks = [
        (np.arange(top, min(top + height, n_images)), np.arange(left, min(left + width, n_texts)))
        for left in lefts
        for top in tops
    ]
    keys = [f"scores-{n % len(tops):06d}-{n // len(tops):06d}" for n in range(len(blocks))]

    def compute(n: int) -> FloatArray:
        images, texts = blocks[n]
        return work.check(work.encoder.score_block(images, texts), images[:, None], texts)

    def finish(tiles: Tiles, notes: dict[str, Any]) -> None:
        shape = (n_images, dataset.n_captions)
        with atomic_write(work.out / "scores.npy") as temporary:
            scores = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
            for row, top in enumerate(tops):  # one row of tiles in memory
                numbers = range(row, len(blocks), len(tops))
                band = np.concatenate([work.tile(tiles, keys[n], n, compute) for n in numbers], axis=1)
                scores[top : top + height] = band[:, work.texts.of_caption]
            scores.flush()
            del scores
        for stale in ("image_embeds.npy", "text_embeds.npy", "shortlist.npz"):
            (work.out / stale).unlink(missing_ok=True)
        write_json(work.out / "run.json", work.info(model.info.name, notes).model_dump())

    sizes = [len(images) * len(texts) for images, texts in blocks]
    return work.run(keys, sizes, compute, finish, resume=resume, overwrite=overwrite, say=say)
