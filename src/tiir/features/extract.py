"""Extraction: a store filled with what a job (see `tiir.engine`) makes of batches of pictures, wherever it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.data.dataset import Dataset
from tiir.data.problems import OnBad, Problems
from tiir.engine import Engine, Job
from tiir.errors import ConfigError, DataError
from tiir.features.info import FeatureInfo
from tiir.features.store import FeatureStore
from tiir.features.writer import FeatureWriter

__all__ = ["Batch", "check_extraction", "extract"]


@dataclass(frozen=True)
class Batch:
    """What a job gives for a batch of pictures.

    Args:
        rows: their positions in the data set, (k,).
        arrays: "regions" (k, R, D), "boxes" (k, R, 4) and columns (k, ...).
        bad: pictures of the batch that cannot be read, by position, and why.
    """

    rows: Sequence[int]
    arrays: Mapping[str, npt.NDArray[Any]]
    bad: Mapping[int, str] = field(default_factory=dict)


def extract(
    job_of: Callable[[npt.NDArray[np.bool_]], Job],
    batches: Sequence[Sequence[int]],
    dataset: Dataset,
    out: Path | str,
    info: FeatureInfo,
    shape: tuple[int, int],
    *,
    dtype: str,
    columns: Mapping[str, tuple[str, tuple[int, ...]]] = {},
    on_bad: OnBad = "error",
    engine: Engine | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> FeatureStore:
    """Fill a store with the features of every image.

    Batches are computed whole as long as one of their images is missing: so a killed and resumed run ends with the
    bytes of an undisturbed one, whichever engine computes them.

    Args:
        job_of: makes the job that gives the `Batch` of number n, told which images are missing, bool (n_images,).
        batches: positions of the images of each; every image is in one.
        dataset: whose images.
        out: the store to write.
        info: where the features come from.
        shape: (R, D) of an image's features.
        dtype, columns: as in `FeatureStore.create`.
        on_bad: pictures that cannot be read never stop the others; in the end they are an "error" or left out ("skip").
        engine: from `tiir.scoring.engines.open_engine`; this process where None.
        resume, overwrite: as in `FeatureStore.create`.

    Raises:
        DataError: `out` is taken; pictures cannot be read.
        RunError: a process of torchrun failed.
    """
    engine, bad = engine or Engine(), {}
    engine.agree(info.origin)
    with ExitStack() as stack:
        missing = np.ones(dataset.n_images, bool)
        if engine.first:
            writer = stack.enter_context(
                FeatureStore.create(
                    out,
                    info,
                    dataset.image_ids,
                    *shape,
                    dtype=dtype,
                    image_sha256=dataset.image_columns.get("sha256", ()),
                    columns=columns,
                    resume=resume,
                    overwrite=overwrite,
                )
            )
            missing = np.isin(np.arange(dataset.n_images), writer.missing)
        missing = engine.told(missing)
        weights = [int(missing[batch].sum()) for batch in batches]
        numbers = np.flatnonzero(weights).tolist()
        if not engine.first and numbers:  # rows go to their own places of the one file
            writer = stack.enter_context(FeatureWriter.beside(Path(out)))

        def put(n: int, batch: Batch) -> None:
            bad.update({row: reason for row, reason in batch.bad.items() if missing[row]})
            new = [i for i, row in enumerate(batch.rows) if missing[row]]
            if new:
                arrays = {name: array[new] for name, array in batch.arrays.items()}
                writer.put([batch.rows[i] for i in new], arrays.pop("regions"), arrays.pop("boxes"), arrays)

        engine.run(
            job_of(missing), numbers, put, weights=weights, unit="images", description="extracting features"
        )
        if numbers:
            writer.sync()
        others = engine.gathered(bad)
        if engine.first:
            for found in others:
                bad |= found
            if len(others) > 1 and numbers:
                writer.refresh()
            if bad and on_bad == "error":
                raise _unreadable(bad, dataset)
            for row, reason in bad.items():
                writer.skip(row, reason)
    engine.wait()
    return FeatureStore.open(out)


def _unreadable(bad: Mapping[int, str], dataset: Dataset) -> DataError:
    problems = Problems()
    for row in sorted(bad):
        problems.add("unreadable image", dataset.image_ids[row], bad[row])
    return DataError(
        f"{len(bad):,} of {dataset.n_images:,} images cannot be read; the features of the others are kept:\n{problems}",
        hint="repair them and continue with --resume, or leave them out with --resume --on-bad skip",
    )


def check_extraction(dataset: Dataset, threads: int | None, **options: int) -> int:
    """Refuse what cannot be extracted from, and options below 1; by default a thread a core, at most eight.

    Raises:
        ConfigError: an option is below 1.
        DataError: the data set is empty, or has no image files.
    """
    threads = min(8, os.cpu_count() or 1) if threads is None else threads
    for option, value in (options | {"threads": threads}).items():
        if value < 1:
            raise ConfigError(f"{option.replace('_', ' ')} {value}", hint="it must be at least 1")
    if not dataset.n_images:
        raise DataError(f"{dataset!r} is empty", hint="there is nothing to extract")
    if dataset.image_root is None:
        raise DataError(
            f"{dataset!r} was prepared without images",
            hint="prepare it with images, or convert features made elsewhere",
        )
    return threads
