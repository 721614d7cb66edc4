"""Photos of a gallery that are nearly the same, told by their pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiir.data.dataset import Dataset
from tiir.progress import track

__all__ = ["near_duplicates"]

SIDE = 16
"""Fingerprint: whether each of 16 x 16 cells is brighter than its right neighbour (a difference hash)."""
DIFFERENT = 0.1
"""Share of differing bits up to which two photos are near duplicates; of unrelated ones about half differ."""
FLAT = 4
"""Steps of 255 between neighbours below which a cell says nothing: plain skies are alike without being duplicates."""


def near_duplicates(dataset: Dataset) -> pd.DataFrame:
    """Pairs of images that look nearly the same, such as frames of one scene or copies in other sizes.

    Args:
        dataset: with photos.

    Returns:
        image, other (ids), different (share of differing bits), most alike first.

    Raises:
        ImageError: a photo is missing or broken.
    """
    bits = np.empty((dataset.n_images, SIDE * SIDE), bool)
    firm = np.empty_like(bits)
    for n in track(range(dataset.n_images), total=dataset.n_images, description="photos", unit="images"):
        bits[n], firm[n] = _fingerprint(dataset, n)
    rows = []
    for n in range(dataset.n_images - 1):
        both = firm[n] & firm[n + 1 :]
        different = ((bits[n] != bits[n + 1 :]) & both).sum(1) / np.maximum(both.sum(1), 1)
        for m in np.flatnonzero((different <= DIFFERENT) & (both.sum(1) >= SIDE * SIDE / 4)):
            rows.append((dataset.image_ids[n], dataset.image_ids[n + 1 + m], float(different[m])))
    table = pd.DataFrame(rows, columns=["image", "other", "different"])
    return table.sort_values(["different", "image", "other"], ignore_index=True)


def _fingerprint(dataset: Dataset, n: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    from PIL import Image

    small = dataset.image(n).convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    steps = np.diff(np.asarray(small, np.int16), axis=1).ravel()
    return steps > 0, np.abs(steps) >= FLAT
