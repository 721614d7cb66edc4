"""Grid features: the last feature map of any vision backbone, pooled to cells that stand in for detected regions.

After "In Defense of Grid Features for Visual Question Answering" (Jiang et al., CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tiir.data.dataset import Dataset
from tiir.engine import Engine
from tiir.errors import ModelError
from tiir.features.extract import Batch, check_extraction, extract
from tiir.features.info import FeatureInfo
from tiir.features.store import FeatureStore
from tiir.progress import ahead

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Backbone", "BackboneInfo", "cell_boxes", "grid_features"]

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

    def to(self, device: str) -> None:
        """Move the model to another device."""

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
    threads: int | None = None,
    engine: Engine | None = None,
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
        threads: that decode, in each worker; by default one a core, at most eight.
        engine: from `tiir.scoring.engines.open_engine`; this process where None.
        resume, overwrite: as in `FeatureStore.create`; after a kill, `resume` goes on with what is missing.

    Raises:
        ConfigError: `cells`, `batch_size` or `threads` is below 1.
        DataError: the data set has no image files, or is empty; `out` is taken.
        ImageError: a picture cannot be read, or is not the one that was prepared; what was done stays.
        ModelError: the backbone's map is coarser than `cells`.
    """
    threads = check_extraction(dataset, threads, cells=cells, batch_size=batch_size)
    if cells > min(backbone.grid):
        height, width = backbone.grid
        raise ModelError(
            f"{backbone.info.name} has a grid of {height} x {width} features at {backbone.size} pixels, fewer than "
            f"{cells} a side",
            hint=f"use --cells {min(backbone.grid)}, or a larger --size",
        )
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
    batches = [
        range(i, min(i + batch_size, dataset.n_images)) for i in range(0, dataset.n_images, batch_size)
    ]
    return extract(
        lambda missing: Cells(backbone, dataset, batches, cells, threads), batches, dataset, out, info,
        (cells * cells, backbone.width), dtype=dtype, engine=engine, resume=resume, overwrite=overwrite,
    )  # fmt: skip


class Cells:
    """A job (see `tiir.engine`): the cells of batches of pictures.

    Args:
        backbone, dataset, cells, threads: see `grid_features`.
        batches: positions of the images of each.
    """

    chunk = 16  # so that pictures are decoded while the model works on the ones before

    def __init__(
        self, backbone: Backbone, dataset: Dataset, batches: Sequence[range], cells: int, threads: int
    ) -> None:
        self.backbone, self.dataset, self.batches = backbone, dataset, batches
        self.cells, self.threads = cells, threads
        self.boxes = cell_boxes(backbone.grid, cells)  # (R, 4)

    def results(self, numbers: Sequence[int]) -> Iterator[tuple[int, Batch]]:
        """The features of some batches."""
        for n, pixels in ahead(self._prepared, numbers, self.threads):
            regions = self.backbone.encode_cells(pixels, self.cells)  # (k, R, D)
            boxes = np.broadcast_to(self.boxes, (len(regions), *self.boxes.shape))
            yield n, Batch(self.batches[n], {"regions": regions, "boxes": boxes})

    def to(self, device: str) -> None:
        """Move the backbone."""
        self.backbone.to(device)

    def _prepared(self, n: int) -> tuple[int, Any]:
        return n, self.backbone.prepare([self.dataset.prepared_image(row) for row in self.batches[n]])


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
