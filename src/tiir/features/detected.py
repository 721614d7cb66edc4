"""Detected regions: what an object detector finds in every image of a data set, the same number in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tiir.data.dataset import Dataset
from tiir.data.problems import OnBad
from tiir.engine import Engine
from tiir.errors import ImageError
from tiir.features.extract import Batch, check_extraction, extract
from tiir.features.grid import BackboneInfo
from tiir.features.info import FeatureInfo
from tiir.features.store import FeatureStore
from tiir.progress import ahead

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

__all__ = ["Detections", "Detector", "detected_features", "plan_batches"]

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Detections:
    """The regions of one image, best first.

    Args:
        regions: features, float32 (R, D).
        boxes: float32 (R, 4), x1 y1 x2 y2 in [0, 1].
        columns: what else is known, of each region (R,) or of the image ().
    """

    regions: FloatArray
    boxes: FloatArray
    columns: Mapping[str, Any]


class Detector(Protocol):
    """An object detector; `tiir.models.frcnn.Frcnn` and `tiir.models.detr.Detr` are some."""

    kind: str  # as --extractor names it
    width: int  # D
    colour: Literal["rgb", "bgr"]
    names: Mapping[str, Sequence[str]]  # of "objects" and "attributes", by id; without those that are unknown
    per_region: Mapping[str, str]  # column -> dtype
    per_image: Mapping[str, str]
    notes: Mapping[str, Any]  # what else decides the numbers
    padding: (
        float  # share of a batch's pixels that may be padding; 0 where only equal shapes may share a batch
    )

    @property
    def info(self) -> BackboneInfo:
        """Where it came from."""

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) of the tensor that `prepare` makes of a picture of this size."""

    def prepare(self, image: Image) -> Tensor:
        """Bring a picture to the tensor that the model sees, (3, h, w); may run in another thread."""

    def to(self, device: str) -> None:
        """Move the model to another device."""

    def detect(self, pixels: Sequence[Tensor], boxes: int) -> list[Detections]:
        """Exactly `boxes` regions of each prepared picture; the batch that a picture is in changes nothing."""


def detected_features(
    detector: Detector,
    dataset: Dataset,
    out: Path | str,
    *,
    boxes: int = 36,
    dtype: str = "float16",
    batch_size: int = 8,
    threads: int | None = None,
    engine: Engine | None = None,
    keep_detections: bool = False,
    dataset_path: Path | str = "",
    on_bad: OnBad = "error",
    resume: bool = False,
    overwrite: bool = False,
) -> FeatureStore:
    """Make region features of every image: what a detector finds.

    Pictures of similar shape share a batch. Which ones do is decided from the whole data set, and a batch is computed
    whole as long as one of its images is missing: so a killed and resumed run ends with the bytes of an undisturbed one.

    Args:
        detector: from `tiir.models`.
        dataset: with its images.
        out: the store to write.
        boxes: regions an image; LXMERT was trained on 36.
        dtype: "float16" or "float32".
        batch_size: pictures a forward pass, at most.
        threads: that decode, in each worker; by default one a core, at most eight.
        engine: from `tiir.scoring.engines.open_engine`; this process where None.
        keep_detections: store the ids and scores of objects (and attributes), and their names, too.
        dataset_path: where the data set lies, for the record: `tiir features show` finds the photos there.
        on_bad: a picture that cannot be read never stops the others. In the end it is an "error" (repair it, and
            `resume`), or the store goes without it ("skip") and says why.
        resume, overwrite: as in `FeatureStore.create`.

    Raises:
        ConfigError: `boxes`, `batch_size` or `threads` is below 1.
        DataError: the data set has no image files, or is empty; `out` is taken; pictures cannot be read.
        ModelError: the detector finds too few regions in a picture.
    """
    threads = check_extraction(dataset, threads, boxes=boxes, batch_size=batch_size)
    info = FeatureInfo(
        extractor=f"{detector.kind}:{detector.info.name}",
        weights=detector.info.revision,
        colour=detector.colour,
        source=f"{dataset.name}/{dataset.split}",
        dataset_fingerprint=dataset.fingerprint,
        versions=dict(detector.info.versions),
        notes={**detector.notes, "batch_size": batch_size},
        names={kind: tuple(names) for kind, names in detector.names.items()} if keep_detections else {},
        dataset_path=str(Path(dataset_path).resolve()) if dataset_path else "",
    )
    columns: dict[str, tuple[str, tuple[int, ...]]] = {
        name: (kind, ()) for name, kind in detector.per_image.items()
    }
    if keep_detections:
        columns |= {name: (kind, (boxes,)) for name, kind in detector.per_region.items()}
    sizes = [
        detector.input_size(int(width), int(height))
        for width, height in zip(dataset.image_columns["width"], dataset.image_columns["height"], strict=True)
    ]
    batches = plan_batches(sizes, batch_size, detector.padding)
    return extract(
        lambda missing: Detection(detector, dataset, batches, boxes, tuple(columns), threads, missing), batches, dataset, out, info,
        (boxes, detector.width), dtype=dtype, columns=columns, on_bad=on_bad, engine=engine, resume=resume,
        overwrite=overwrite,
    )  # fmt: skip


class Detection:
    """A job (see `tiir.engine`): what the detector finds in batches of pictures.

    Args:
        detector, dataset, boxes, threads: see `detected_features`.
        batches: positions of the images of each.
        columns: names of what is kept beside regions and boxes.
        missing: images whose regions are asked for, bool (n_images,).
    """

    chunk = 8  # so that pictures are decoded while the model works on the ones before

    def __init__(
        self,
        detector: Detector,
        dataset: Dataset,
        batches: Sequence[Sequence[int]],
        boxes: int,
        columns: Sequence[str],
        threads: int,
        missing: npt.NDArray[np.bool_],
    ) -> None:
        self.missing = missing
        self.detector, self.dataset, self.batches = detector, dataset, batches
        self.boxes, self.columns, self.threads = boxes, columns, threads

    def results(self, numbers: Sequence[int]) -> Iterator[tuple[int, Batch]]:
        """The regions of some batches."""
        for n, pictures in ahead(self._prepared, numbers, self.threads):
            bad = {row: pixels for row, pixels in pictures.items() if isinstance(pixels, str)}
            good = {row: pixels for row, pixels in pictures.items() if not isinstance(pixels, str)}
            arrays: dict[str, npt.NDArray[Any]] = {}
            if any(self.missing[row] for row in good):
                found = self.detector.detect(list(good.values()), self.boxes)
                arrays = {"regions": np.stack([one.regions for one in found])}
                arrays["boxes"] = np.stack([one.boxes for one in found])
                arrays |= {name: np.stack([one.columns[name] for one in found]) for name in self.columns}
            yield n, Batch(list(good) if arrays else [], arrays, bad)

    def to(self, device: str) -> None:
        """Move the detector."""
        self.detector.to(device)

    def _prepared(self, n: int) -> tuple[int, dict[int, Tensor | str]]:
        return n, {row: _prepared(self.detector, self.dataset, row) for row in self.batches[n]}


def plan_batches(sizes: Sequence[tuple[int, int]], batch_size: int, padding: float) -> list[list[int]]:
    """Put pictures of similar shape together.

    Args:
        sizes: (height, width) of each.
        batch_size: pictures a batch, at most.
        padding: share of a batch's pixels that may be padding.

    Returns:
        Positions of the pictures of each batch; every picture is in one.

    Example:
        >>> plan_batches([(2, 3), (3, 2), (2, 3), (2, 3)], batch_size=2, padding=0.0)
        [[0, 2], [3], [1]]
    """
    batches: list[list[int]] = []
    height = width = area = 0
    for i in sorted(range(len(sizes)), key=lambda i: (sizes[i], i)):
        h, w = sizes[i]
        tall, wide, filled = max(height, h), max(width, w), area + h * w
        n = len(batches[-1]) + 1 if batches else 0
        if batches and n <= batch_size and n * tall * wide * (1 - padding) <= filled:
            batches[-1].append(i)
            height, width, area = tall, wide, filled
        else:
            batches.append([i])
            height, width, area = h, w, h * w
    return batches


def _prepared(detector: Detector, dataset: Dataset, row: int) -> Tensor | str:
    # The reason where a picture cannot be read: one of them must not stop the others.
    try:
        return detector.prepare(dataset.prepared_image(row))
    except (ImageError, OSError) as problem:
        return problem.message if isinstance(problem, ImageError) else str(problem)
