"""Regions of Scenes from what is known to be drawn: a perfect detector with noisy features, for demo and tests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tiir import __version__
from tiir.data.dataset import Dataset
from tiir.data.sources.scenes_world import BACKDROPS, COLOURS, KINDS
from tiir.errors import ConfigError, DataError
from tiir.features.info import FeatureInfo
from tiir.features.store import FeatureStore

__all__ = ["N_REGIONS", "WIDTH", "scenes_features"]

BLOCKS: dict[str, tuple[object, ...]] = {
    "kind": tuple(KINDS),
    "colour": tuple(COLOURS),
    "size": ("small", "big"),
    "count": tuple(range(1, 1 + max(max(kind.counts) for kind in KINDS.values()))),
    "backdrop": tuple(BACKDROPS),
}
WIDTH = sum(map(len, BLOCKS.values()))
N_REGIONS = 3 * len(BLOCKS["count"]) + 1  # three groups of things at most, and the backdrop
_COLUMN = {
    (block, value): column
    for column, (block, value) in enumerate((block, value) for block, values in BLOCKS.items() for value in values)
}  # fmt: skip


def scenes_features(
    dataset: Dataset,
    out: Path | str,
    *,
    noise: float = 0.2,
    seed: int = 0,
    dtype: str = "float16",
    resume: bool = False,
    overwrite: bool = False,
) -> FeatureStore:
    """Make region features of a Scenes data set without looking at its pictures.

    A thing is one region: its box, and one-hot blocks of its kind, colour, size and the count of its group. The
    backdrop is a region of the whole picture; it fills the rows that are left, so every picture has `N_REGIONS`.
    Where a thing is (left, up, ...) is told by its box alone. Gaussian noise, drawn from the image's id, makes every
    region different.

    Args:
        dataset: from `tiir prepare scenes`.
        out: the store to write.
        noise: standard deviation of what is added to every number.
        seed: of the noise.
        dtype: "float16" or "float32".
        resume, overwrite: as in `FeatureStore.create`.

    Raises:
        ConfigError: `noise` is negative.
        DataError: not a Scenes data set, or damaged; `out` is taken.
    """
    if not 0 <= noise < np.inf:
        raise ConfigError(f"noise {noise}", hint="it must be 0 or more")
    objects = dataset.image_columns.get("objects")
    if objects is None:
        raise DataError(
            f"{dataset!r} has no column 'objects', which says what is drawn",
            hint="only Scenes has it; for photos use --extractor grid:MODEL",
        )
    info = FeatureInfo(
        extractor="scenes",
        source=f"{dataset.name}/{dataset.split}",
        dataset_fingerprint=dataset.fingerprint,
        versions={"tiir": __version__, "numpy": np.__version__},
        notes={
            "noise": noise,
            "seed": seed,
            "blocks": {name: list(values) for name, values in BLOCKS.items()},
        },
    )
    ids = dataset.image_ids
    with FeatureStore.create(
        out,
        info,
        ids,
        N_REGIONS,
        WIDTH,
        dtype=dtype,
        image_sha256=dataset.image_columns.get("sha256", ()),
        resume=resume,
        overwrite=overwrite,
    ) as writer:
        for start in range(0, len(missing := writer.missing), 256):
            rows = missing[start : start + 256]
            pairs = [_regions(ids[row], objects[row]) for row in rows]
            regions = np.stack([region for region, _ in pairs])  # (k, R, D)
            for row, region in zip(rows, regions, strict=True):
                digest = hashlib.sha256(f"{seed}/{ids[row]}".encode("utf-8", "surrogatepass")).digest()
                rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
                region += noise * rng.standard_normal(region.shape, np.float32)
            writer.put(rows, regions, np.stack([box for _, box in pairs]))
    return FeatureStore.open(out)


def _regions(image_id: str, text: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    # One-hot features (R, D) and boxes (R, 4): the things in their order, then the backdrop again and again.
    features = np.zeros((N_REGIONS, WIDTH), np.float32)
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (N_REGIONS, 1))
    try:
        scene = json.loads(text)
        for row, thing in enumerate(scene["things"]):
            boxes[row] = thing["box"]
            for block in ("kind", "colour", "size", "count"):
                features[row, _COLUMN[block, thing[block]]] = 1
        features[len(scene["things"]) :, _COLUMN["backdrop", scene["backdrop"]]] = 1
        if len(scene["things"]) >= N_REGIONS:
            raise ValueError(f"{len(scene['things'])} things")
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as problem:
        raise DataError(
            f"image {image_id!r}: its 'objects' are not those of a scene: {type(problem).__name__} {problem}",
            hint="prepare the data set again",
        ) from None
    return features, boxes
