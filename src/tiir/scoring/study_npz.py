"""The original study's file of a model's scores: an .npz whose layout its labels tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.data.dataset import Dataset
from tiir.errors import RunError
from tiir.io import load_npz

__all__ = ["study_logits"]

Array = npt.NDArray[Any]
LARGEST = 1 << 32  # bytes: a file of all COCO-5K has half as many, and is then told what data set it is of


def study_logits(path: Path, dataset: Dataset, rows: Any, columns: Any) -> tuple[str, Array]:
    """Read `logits`, in the one layout in which `labels` mark exactly the data set's own pairs.

    Args:
        path: the .npz; images x captions, or captions x images, flat or not.
        dataset: what they are of.
        rows, columns: place of each of its images and captions in the file: an index of NumPy.

    Returns:
        The layout in words, and the logits, (n_images, n_captions).

    Raises:
        RunError: not readable, of another size, or labels that mark other pairs, or do so in both layouts.
    """
    shape = n_images, n_captions = dataset.n_images, dataset.n_captions
    most = max(LARGEST, 16 * n_images * n_captions + (1 << 16))  # both in float64, and the headers
    logits, labels = load_npz(path, ("logits", "labels"), most=most, error=RunError).values()
    if logits.size != n_images * n_captions or labels.size != logits.size:
        raise RunError(
            f"{path} has {logits.size:,} logits and {labels.size:,} labels, the data set {n_images} images x "
            f"{n_captions} captions",
            hint="prepare the data set it was made from (1K: --keys test_img_keys_1k.tsv)",
        )
    if logits.dtype.kind != "f" or labels.dtype.kind not in "biuf":
        raise RunError(f"{path} holds {logits.dtype} logits and {labels.dtype} labels, expected numbers")
    # A model's head writes one column, (pairs, 1): that is flat too.
    arrays = [array.ravel() if array.shape == (array.size, 1) else array for array in (logits, labels)]
    expected = np.zeros(shape, bool)
    expected[dataset.caption_image, np.arange(n_captions)] = True
    fitting: dict[str, Array] = {}
    for layout, given in (("images x captions", shape), ("captions x images", shape[::-1])):
        if all(array.ndim == 1 or array.shape == given for array in arrays):
            scores, marks = (
                (array.reshape(shape) if layout == "images x captions" else array.reshape(given).T)[rows][
                    :, columns
                ]
                for array in arrays
            )
            if np.array_equal(marks > 0, expected):
                fitting[layout] = scores
    if len(fitting) == 2 and 1 in shape:
        fitting.popitem()  # one row: both layouts are the same
    if len(fitting) != 1:
        raise RunError(
            f"{path}: labels mark the data set's own pairs in {'both layouts' if fitting else 'no layout'}",
            hint="save the logits as .npy, with --transpose where they are captions x images"
            if fitting
            else "prepare the data set in the order of the file: the study's image keys, captions in their order",
        )
    (found,) = fitting.items()
    return found
