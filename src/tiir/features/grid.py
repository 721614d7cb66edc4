"""Grid features: the last feature map of any vision backbone, pooled to cells that stand in for detected regions.

After "In Defense of Grid Features for Visual Question Answering" (Jiang et al., CVPR 2020).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, DataError
from tiir.features.layout import FeatureInfo
from tiir.features.store import FeatureStore
from tiir.progress import ahead, track

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Backbone", "BackboneInfo", "cell_boxes", "check_extraction", "grid_features"]

FloatArray = npt.NDArray[np.float32]


class BackboneInfo(Protocol):
    """Where a backbone came from; `tiir.models.base.ModelInfo` is one."""

    @property
    def name(self) -> str:
        """Hub id or directory."""

    @property
    def revision(self) -> str:
        """Commit or content hash."""

    @property
    def versions(self) -> dict[str, str]:
        """Of the libraries that took part."""


class Backbone(Protocol):
    """A vision model with features on a grid; `tiir.models.backbone.VisionBackbone` is one."""

    size: int  # pixels a side of its input
    grid: tuple[int, int]  # rows and columns of its feature map
    width: int
    colour: Literal["rgb", "bgr"]

    @property
    def info(self) -> BackboneInfo:
        """Where it came from."""

    def prepare(self, images: Sequence[Image]) -> Any:
        """Bring whole pictures to the tensor that the model sees; may run in another thread."""

    def encode_cells(self, pixels: Any, cells: int) -> FloatArray:
        """Mean features of a grid of `cells` x `cells`, row by row: float32 (n, cells * cells, D)."""


def grid_features(
    backbone: Backbone,
    dataset: Dataset,
    out: Path | str,
    *,
    cells: int = 6,
    dtype: str = "float16",
    batch_size: int = 32,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> FeatureStore:
    """Make region features of every image: cells of the backbone's last feature map.

    Pictures are decoded and prepared by threads while the model works on earlier ones.

    Args:
        backbone: from `tiir.models.backbone`.
        dataset: with its images.
        out: the store to write.
        cells: a side of the grid: 6 gives 36 regions, as many as LXMERT saw of each picture.
        dtype: "float16" or "float32".
        batch_size: pictures a forward pass.
        workers: threads that decode; by default one a core, at most eight.
        resume, overwrite: as in `FeatureStore.create`; after a kill, `resume` goes on with what is missing.

    Raises:
        ConfigError: `cells`, `batch_size` or `workers` is below 1.
        DataError: the data set has no image files, or is empty; `out` is taken.
        ImageError: a picture cannot be read, or is not the one that was prepared; what was done stays.
        ModelError: the backbone's map is coarser than `cells`.
    """
    workers = check_extraction(dataset, workers, cells=cells, batch_size=batch_size)
    info = FeatureInfo(
        extractor=f"grid:{backbone.info.name}",
        weights=backbone.info.revision,
        colour=backbone.colour,
        source=f"{dataset.name}/{dataset.split}",
        dataset_fingerprint=dataset.fingerprint,
        versions=dict(backbone.info.versions),
        notes={
            "input": f"the whole picture resized to {backbone.size} x {backbone.size}, no crop",
            "map": list(backbone.grid),
            "cells": cells,
            "pooling": "mean",
        },
    )
    boxes = cell_boxes(backbone.grid, cells)  # (R, 4)
    with FeatureStore.create(
        out,
        info,
        dataset.image_ids,
        cells * cells,
        backbone.width,
        dtype=dtype,
        image_sha256=dataset.image_columns.get("sha256", ()),
        resume=resume,
        overwrite=overwrite,
    ) as writer:
        missing = writer.missing
        batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
        prepared = ahead(
            lambda rows: (rows, backbone.prepare([dataset.prepared_image(int(row)) for row in rows])),
            batches,
            workers,
        )
        bar = track(
            prepared, total=len(missing), description="extracting features", unit="images", step=batch_size
        )
        for rows, pixels in bar:
            regions = backbone.encode_cells(pixels, cells)  # (k, R, D)
            writer.put(rows, regions, np.broadcast_to(boxes, (len(rows), *boxes.shape)))
    return FeatureStore.open(out)


def check_extraction(dataset: Dataset, workers: int | None, **options: int) -> int:
    """Refuse what cannot be extracted from, and options below 1; by default a thread a core, at most eight.

    Raises:
        ConfigError: an option is below 1.
        DataError: the data set is empty, or has no image files.
    """
    workers = min(8, os.cpu_count() or 1) if workers is None else workers
    for option, value in (options | {"workers": workers}).items():
        if value < 1:
            raise ConfigError(f"{option.replace('_', ' ')} {value}", hint="it must be at least 1")
    if not dataset.n_images:
        raise DataError(f"{dataset!r} is empty", hint="there is nothing to extract")
    if dataset.image_root is None:
        raise DataError(
            f"{dataset!r} was prepared without images",
            hint="prepare it with images, or convert features made elsewhere",
        )
    return workers


def cell_boxes(grid: tuple[int, int], cells: int) -> FloatArray:
    """The part of the picture that each cell is the mean of: float32 (cells * cells, 4), row by row.

    Where the map's rows do not divide by `cells`, neighbours share a row, as adaptive pooling does it.

    Args:
        grid: rows and columns of the feature map.
        cells: a side of the grid of cells.

    Example:
        >>> cell_boxes((4, 4), 2).tolist()
        [[0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 0.5], [0.0, 0.5, 0.5, 1.0], [0.5, 0.5, 1.0, 1.0]]
    """
    (top, bottom), (left, right) = (
        (i * side // cells / side, -(-(i + 1) * side // cells) / side)
        for side in grid
        for i in [np.arange(cells)]
    )  # (cells,) each
    rows, columns = np.divmod(np.arange(cells * cells), cells)
    return np.stack([left[columns], top[rows], right[columns], bottom[rows]], axis=1).astype(np.float32)
