"""Score a data set with a dual encoder: each image and each distinct caption is encoded once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.data.dataset import Dataset
from tiir.data.protocols import default_protocol
from tiir.engine import Engine
from tiir.errors import ConfigError, DataError
from tiir.io import atomic_write
from tiir.models.base import DualEncoder
from tiir.progress import ahead
from tiir.scoring.plan import carry_out, tile_of
from tiir.scoring.run import Run, RunInfo, finish_run
from tiir.scoring.texts import Texts
from tiir.scoring.tiles import Tiles, plan_hash

__all__ = ["score_dual"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def score_dual(
    model: DualEncoder,
    dataset: Dataset,
    dataset_path: Path | str,
    out: Path | str,
    *,
    batch_size: int = 64,
    threads: int | None = None,
    engine: Engine | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Run:
    """Embed every image and every distinct caption, and write a Run.

    Pictures are decoded and prepared by threads while the model works on earlier ones. Captions are sorted by
    length, so that a tile holds captions of few lengths. Each batch is a tile on disk: a killed run
    continues with `resume` and ends with the same bytes, whichever engine computes them.

    Args:
        model: from `tiir.models.load`.
        dataset: with its images.
        dataset_path: where it lies, for the Run's provenance.
        out: directory of the Run.
        batch_size: images a forward pass, and a tile; tiles of captions hold four times as many.
        threads: that decode, in each worker; by default one a core, at most eight.
        engine: from `tiir.scoring.engines.open_engine`; where None, this process or those that torchrun started.
        resume: continue a killed run; a finished one is returned as it is.
        overwrite: replace a Run or an unfinished run in `out`.

    Raises:
        ConfigError: `batch_size` or `threads` is below 1.
        DataError: the data set has no image files, or is empty.
        ImageError: a picture cannot be read, or is not the one that was prepared; what was done stays, and
            `resume` goes on.
        RunError: `out` is taken, or was begun with another model, data set or options.
    """
    started, out = time.monotonic(), Path(out)
    threads = min(8, os.cpu_count() or 1) if threads is None else threads
    for option, value in (("batch size", batch_size), ("threads", threads)):
        if value < 1:
            raise ConfigError(f"{option} {value}", hint="it must be at least 1")
    if not dataset.n_images or not dataset.n_captions:
        raise DataError(f"{dataset!r} is empty", hint="there is nothing to score")
    if dataset.image_root is None:
        raise DataError(
            f"{dataset!r} was prepared without images",
            hint="prepare it with images, or import scores made elsewhere",
        )
    info, device = model.info, (engine and engine.device) or model.info.device
    texts = Texts(dataset, model)
    plan = {
        "model": info.name,
        "revision": info.revision,
        "dataset": dataset.fingerprint,
        "precision": info.precision,
        "device": device.split(":")[0],  # not which one: processes of torchrun have different ones
        "captions": info.captions,
        "batch_size": batch_size,
        "versions": info.versions,
    }
    job = Embedding(model, dataset, texts.texts, batch_size, threads)
    sides = ["image"] * len(job.images) + ["caption"] * len(job.captions)
    keys = [f"{side}s-{n if side == 'image' else n - len(job.images):06d}" for n, side in enumerate(sides)]

    def finish(tiles: Tiles, left: int, seconds: float) -> None:
        n_batches = len(job.images)
        _assemble(out / "image_embeds.npy", tiles, keys[:n_batches], job.images, np.arange(dataset.n_images))
        _assemble(out / "text_embeds.npy", tiles, keys[n_batches:], job.captions, texts.of_caption)
        notes = {
            "plan": plan_hash(plan),
            "device": device,
            "captions": info.captions,
            "batch_size": batch_size,
            "distinct_captions": len(texts),
            "truncated_captions": texts.truncated,
        }
        about = RunInfo.about(
            dataset,
            dataset_path,
            info.name,
            revision=info.revision,
            precision=info.precision,
            protocol=default_protocol(dataset),
            seconds=round(time.monotonic() - started, 3),
            versions=info.versions,
            notes=notes,
        )
        finish_run(out, about, ("image_embeds.npy", "text_embeds.npy"))

    return carry_out(
        out,
        plan,
        job,
        keys,
        [len(batch) for batch in (*job.images, *job.captions)],
        finish,
        unit="images and captions",
        description="encoding",
        engine=engine,
        resume=resume,
        overwrite=overwrite,
    )


class Embedding:
    """A job (see `tiir.engine`): vectors of batches, first those of images, then those of captions.

    Args:
        model, dataset, batch_size, threads: see `score_dual`.
        texts: the captions.
    """

    chunk = 16  # so that pictures are decoded while the model works on the one before

    def __init__(
        self, model: DualEncoder, dataset: Dataset, texts: Sequence[str], batch_size: int, threads: int
    ) -> None:
        self.model, self.dataset, self.texts, self.threads = model, dataset, texts, threads
        self.images = _ranges(dataset.n_images, batch_size)
        self.captions = _ranges(len(texts), 4 * batch_size)

    def results(self, numbers: Sequence[int]) -> Iterator[tuple[int, FloatArray]]:
        """Vectors, float32 (batch, d)."""
        of_images = [n for n in numbers if n < len(self.images)]
        for n, pixels in ahead(lambda n: (n, self._prepared(n)), of_images, self.threads):
            yield n, self.model.encode_prepared(pixels)
        for n in numbers:
            if n >= len(self.images):
                batch = self.captions[n - len(self.images)]
                yield n, self.model.encode_captions(self.texts[batch.start : batch.stop])

    def to(self, device: str) -> None:
        """Move the model."""
        self.model.to(device)

    def _prepared(self, n: int) -> Any:
        return self.model.prepare([self.dataset.prepared_image(i) for i in self.images[n]])


def _ranges(n: int, size: int) -> list[range]:
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def _assemble(
    path: Path, tiles: Tiles, keys: Sequence[str], batches: Sequence[range], row_of: IntArray
) -> None:
    # Write what every entry shows: row `row_of` of all batches one after another. One batch in memory.
    entries = np.argsort(row_of, kind="stable")
    width = tile_of(tiles, keys[0]).shape[1]
    with atomic_write(path) as temporary:
        whole = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=(len(row_of), width))
        for key, batch in zip(keys, batches, strict=True):
            first, last = np.searchsorted(row_of[entries], [batch.start, batch.stop])
            here = entries[first:last]
            whole[here] = tile_of(tiles, key)[row_of[here] - batch.start]
        whole.flush()
        del whole
