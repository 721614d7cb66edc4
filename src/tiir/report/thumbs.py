"""Thumbnails of a data set's photos: made once, by several threads, and kept while the photos stay the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tiir.data.dataset import Dataset
from tiir.errors import DataError
from tiir.io import atomic_write, read_json, write_json
from tiir.progress import ahead, track

__all__ = ["QUALITY", "SIDE", "make_thumbs"]

SIDE = 256
"""Longest side, pixels; smaller photos stay as they are."""
QUALITY = 70
"""WebP: about 9 kB a photo."""
SOURCE = "source.json"
NAME = re.compile(r"\d+\.webp")


def make_thumbs(
    dataset: Dataset, folder: Path, images: Iterable[int] | None = None, *, workers: int | None = None
) -> int:
    """Write `N.webp` for the photo at each position N; those that are there already from the same photos stay.

    `source.json` says what they were made from and is written before the first, each of them whole or not at all:
    so a killed run goes on where it was.

    Args:
        dataset: with photos.
        folder: of thumbnails alone: others that it holds are removed.
        images: positions of the photos that have one then; all where None.
        workers: threads, as many as cores where None (Pillow works beside the interpreter's lock).

    Returns:
        How many were made now.

    Raises:
        DataError: no photos.
        ImageError: a photo is missing, broken, or has changed since the data set was prepared.
    """
    if dataset.image_root is None:
        raise DataError(f"{dataset!r} has no photos", hint="prepare it with --images FOLDER")
    source = {"photos": _digest(dataset), "side": SIDE, "quality": QUALITY}
    folder.mkdir(parents=True, exist_ok=True)
    wanted = set(range(dataset.n_images) if images is None else images)
    same = _same(folder / SOURCE, source)
    if not same:
        (folder / SOURCE).unlink(missing_ok=True)
    for path in folder.iterdir():
        if NAME.fullmatch(path.name) and not (same and int(path.stem) in wanted):
            path.unlink()
    if not same:
        write_json(folder / SOURCE, source)
    missing = [n for n in sorted(wanted) if not (folder / f"{n}.webp").is_file()]
    made = ahead(lambda n: _make(dataset, n, folder / f"{n}.webp"), missing, workers or os.cpu_count() or 1)
    for _ in track(made, total=len(missing), description="thumbnails", unit="photos"):
        pass
    return len(missing)


def _digest(dataset: Dataset) -> str | None:
    # The photos in their order, by the hashes they were prepared with; without hashes nothing can be kept.
    hashes = dataset.image_columns.get("sha256")
    return None if hashes is None else hashlib.sha256(json.dumps(list(hashes)).encode()).hexdigest()


def _same(path: Path, source: dict[str, Any]) -> bool:
    try:
        return source["photos"] is not None and bool(read_json(path) == source)
    except DataError:
        return False


def _make(dataset: Dataset, n: int, path: Path) -> None:
    from PIL import Image

    photo = dataset.prepared_image(n)
    photo.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    with atomic_write(path) as temporary:
        photo.save(temporary, "WEBP", quality=QUALITY)
