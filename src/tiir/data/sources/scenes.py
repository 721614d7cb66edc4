"""Scenes: small drawn pictures with five captions each, some with a known fault. Demo data, made offline."""

from __future__ import annotations

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal, get_args

import numpy as np

from tiir.data.dataset import Dataset
from tiir.data.dataset_files import HEADER, check_dataset_out, source_of
from tiir.data.sources.scenes_draw import SIDE, render
from tiir.data.sources.scenes_text import ANNOTATORS, Facts, write_caption
from tiir.data.sources.scenes_world import Scene, sample_scene
from tiir.errors import DataError
from tiir.out import begin, check_out
from tiir.progress import track

__all__ = ["Split", "prepare"]

Split = Literal["train", "val", "test"]
SIZES: dict[str, int] = {"train": 8000, "val": 500, "test": 1000}


def prepare(out: Path | str, *, split: Split = "test", n: int | None = None, seed: int = 0) -> Dataset:
    """Draw pictures into `out/images` and write five captions each, as five annotators would.

    About one caption in six has one known fault, named in the caption column `fault`: "typo" (a slip that makes
    no word), "underspecified" (it fits at least three pictures of the split), "abstract" (it names nothing that
    is drawn), "wrong colour", else "none". `fault_detail` is "wrong->right" word for typos and wrong colours. The
    image column `objects` is JSON: the backdrop and, for each thing, kind, colour, size, place, count in its group,
    and box (x1 y1 x2 y2 in [0, 1]).

    Args:
        out: directory of the data set; the pictures are written, the rest by `Dataset.save`. An earlier one there is
            unfinished from then on.
        split: "train" (8,000 pictures), "val" (500) or "test" (1,000): streams of their own.
        n: another number of pictures.
        seed: the same seed gives the same pictures and captions.

    Raises:
        DataError: no such split, no pictures asked for, or `out` holds other files.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = prepare(Path(folder), split="val", n=3)
        >>> data
        Dataset(scenes/val: 3 images, 15 captions)
    """
    if split not in get_args(Split):
        raise DataError(f"Scenes has no split {split!r}", hint=f"it has: {', '.join(get_args(Split))}")
    out, n = Path(out), SIZES[split] if n is None else n
    if n < 1:
        raise DataError(f"n is {n}, but a data set needs a picture", hint="ask for one or more")
    scenes = _different_scenes(Random(f"{seed}/{split}"), n)
    facts = Facts(scenes)
    captions = [
        write_caption(Random(f"{seed}/{split}/{i}/caption/{annotator}"), annotator, scene, facts)
        for i, scene in enumerate(scenes)
        for annotator in range(ANNOTATORS)
    ]
    ids = [f"{split}-{i:06d}" for i in range(n)]
    paths = [f"images/{name}.png" for name in ids]
    check_dataset_out(out, overwrite=True, error=DataError)
    drawn = not (out / HEADER).exists() or source_of(out) == "scenes"
    check_out(out / "images", "Scenes", begun=drawn, error=DataError)
    begin(out / HEADER)
    (out / "images").mkdir(exist_ok=True)
    for old in (out / "images").iterdir():
        if re.fullmatch(rf"{split}-\d{{6,}}\.png", old.name):  # of an earlier, larger data set
            old.unlink()

    def draw(i: int) -> str:
        buffer = BytesIO()
        render(scenes[i], Random(f"{seed}/{split}/{i}/picture")).save(buffer, "png", compress_level=4)
        (out / paths[i]).write_bytes(buffer.getvalue())
        return hashlib.sha256(buffer.getvalue()).hexdigest()

    with ThreadPoolExecutor() as pool:
        hashes = list(track(pool.map(draw, range(n)), total=n, description="drawing", unit="images"))
    return Dataset(
        "scenes",
        split,
        ids,
        [f"{name}#{annotator}" for name in ids for annotator in range(ANNOTATORS)],
        [caption.text for caption in captions],
        np.repeat(np.arange(n), ANNOTATORS),
        image_root=out,
        image_paths=paths,
        image_columns={
            "sha256": hashes,
            "width": [SIDE] * n,
            "height": [SIDE] * n,
            "objects": [_objects(scene) for scene in scenes],
        },
        caption_columns={
            "fault": [caption.fault for caption in captions],
            "fault_detail": [caption.detail for caption in captions],
        },
        source={"source": "scenes", "seed": seed, "n": n},
    )


def _different_scenes(rng: Random, n: int) -> list[Scene]:
    # Two pictures of the same content could not be told apart by any caption.
    seen: set[tuple[object, ...]] = set()

    def fresh() -> Scene:
        while (scene := sample_scene(rng)).content in seen:
            pass
        seen.add(scene.content)
        return scene

    return list(islice(iter(fresh, None), n))


def _objects(scene: Scene) -> str:
    things = [
        {
            "kind": group.kind,
            "colour": group.colour,
            "size": group.size,
            "place": group.place,
            "count": group.count,
            "box": box,
        }
        for group in scene.groups
        for box in group.boxes
    ]
    return json.dumps({"backdrop": scene.backdrop, "things": things})
