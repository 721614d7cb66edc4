"""Score a data set with a dual encoder: each image and each distinct caption is encoded once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tiir.data.dataset import Dataset
from tiir.data.protocols import default_protocol
from tiir.errors import ConfigError, DataError
from tiir.models.base import DualEncoder
from tiir.progress import ahead, track
from tiir.scoring.run import Run, RunInfo, finished_run
from tiir.scoring.tiles import Tiles, plan_hash

if TYPE_CHECKING:
    pass

__all__ = ["score_dual"]

FloatArray = npt.NDArray[np.float32]


def score_dual(
    model: DualEncoder,
    dataset: Dataset,
    dataset_path: Path | str,
    out: Path | str,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Run:
    """Embed every image and every distinct caption, and write a Run.

    Pictures are decoded and prepared by threads while the model works on earlier ones. Captions are sorted by
    length, so that a tile holds captions of few lengths. Each batch is a tile on disk: a killed run
    continues with `resume` and ends with the same bytes.

    Args:
        model: from `tiir.models.load`.
        dataset: with its images.
        dataset_path: where it lies, for the Run's provenance.
        out: directory of the Run.
        batch_size: images a forward pass, and a tile; tiles of captions hold four times as many.
        workers: threads that decode; by default one a core, at most eight.
        resume: continue a killed run; a finished one is returned as it is.
        overwrite: replace a Run or an unfinished run in `out`.

    Raises:
        ConfigError: `batch_size` or `workers` is below 1.
        DataError: the data set has no image files, or is empty.
        ImageError: a picture cannot be read, or is not the one that was prepared; what was done stays, and
            `resume` goes on.
        RunError: `out` is taken, or was begun with another model, data set or options.
    """
    started, out = time.monotonic(), Path(out)
    workers = min(8, os.cpu_count() or 1) if workers is None else workers
    for option, value in (("batch size", batch_size), ("workers", workers)):
        if value < 1:
            raise ConfigError(f"{option} {value}", hint="it must be at least 1")
    if not dataset.n_images or not dataset.n_captions:
        raise DataError(f"{dataset!r} is empty", hint="there is nothing to score")
    if dataset.image_root is None:
        raise DataError(
            f"{dataset!r} was prepared without images",
            hint="prepare it with images, or import scores made elsewhere",
        )
    parts = out / ".parts"
    texts = list(dict.fromkeys(dataset.captions))
    row_of = {text: row for row, text in enumerate(texts)}
    lengths = model.caption_lengths(texts)
    order = np.argsort(lengths, kind="stable")
    plan = {
        "model": model.info.name,
        "revision": model.info.revision,
        "dataset": dataset.fingerprint,
        "precision": model.info.precision,
        "device": model.info.device,
        "captions": model.info.captions,
        "batch_size": batch_size,
        "versions": model.info.versions,
    }
    if (run := finished_run(out, plan, resume=resume, overwrite=overwrite)) is not None:
        return run
    with Tiles.open(parts, plan, resume=resume, overwrite=overwrite) as tiles:
        (out / "run.json").unlink(
            missing_ok=True
        )  # from here on there is no earlier Run to mistake for this one
        image_batches = _batches(np.arange(dataset.n_images), batch_size)
        caption_batches = _batches(order, 4 * batch_size)

        def prepare(batch: npt.NDArray[np.int64]) -> Any:
            return model.prepare([dataset.prepared_image(int(i)) for i in batch])

        image_embeds = _encode(
            tiles,
            "images",
            image_batches,
            prepare,
            model.encode_prepared,
            workers,
        )
        distinct = _encode(
            tiles,
            "captions",
            caption_batches,
            lambda batch: [texts[i] for i in batch],
            model.encode_captions,
            1,
        )
        text_embeds = np.empty_like(distinct)
        text_embeds[order] = distinct
        info = RunInfo.about(
            dataset,
            dataset_path,
            model.info.name,
            revision=model.info.revision,
            precision=model.info.precision,
            protocol=default_protocol(dataset),
            seconds=round(time.monotonic() - started, 3),
            versions=model.info.versions,
            notes={
                "plan": plan_hash(plan),
                "device": model.info.device,
                "captions": model.info.captions,
                "batch_size": batch_size,
                "distinct_captions": len(texts),
                "truncated_captions": 0
                if model.max_length is None
                else int((lengths > model.max_length).sum()),
            },
        )
        rows = np.fromiter((row_of[text] for text in dataset.captions), np.int64, dataset.n_captions)
        run = Run(info, image_embeds, text_embeds[rows]).save(out, overwrite=overwrite)
        tiles.remove()
    return run


def _batches(index: npt.NDArray[np.int64], size: int) -> list[npt.NDArray[np.int64]]:
    return [index[start : start + size] for start in range(0, len(index), size)]


def _encode(
    tiles: Tiles,
    side: str,
    batches: Sequence[npt.NDArray[np.int64]],
    prepare: Callable[[npt.NDArray[np.int64]], Any],
    encode: Callable[[Any], FloatArray],
    workers: int,
) -> FloatArray:
    # The rows of all batches, in the order of the batches.
    keys = [f"{side}-{n:06d}" for n in range(len(batches))]
    there = tiles.keys()
    done = {key: tile for key in keys if key in there and (tile := tiles.get(key)) is not None}
    missing = [(key, batch) for key, batch in zip(keys, batches, strict=True) if key not in done]
    batches_ahead = ahead(lambda job: (job[0], prepare(job[1])), missing, workers)
    step = len(batches[0]) if batches else 1
    total = sum(len(batch) for _, batch in missing)
    for key, prepared in track(
        batches_ahead, total=total, description=f"encoding {side}", unit=side, step=step
    ):
        done[key] = encode(prepared)
        tiles.put(key, done[key])
    return np.concatenate([done[key] for key in keys])
