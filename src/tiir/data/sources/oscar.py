"""The `coco_ir` folder of Oscar (Li et al., 2020, https://arxiv.org/abs/2004.06165), which the original study used.

It holds `{split}_captions.pt` and `{split}_img_keys.tsv`, in the folder itself or in one folder a split, and
`test_img_keys_1k.tsv`, the 1,000 test images of the "1K" numbers.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tiir.data.build import CaptionRecord, ImageRecord, build_dataset
from tiir.data.dataset import Dataset
from tiir.data.problems import OnBad, check_split
from tiir.errors import DataError
from tiir.io import read_text

__all__ = ["prepare"]

SPLITS = ("train", "minival", "val", "test")


def prepare(
    folder: Path | str,
    *,
    split: str,
    images: Path | str | None,
    keys: Path | str | None = None,
    on_bad: OnBad = "error",
) -> Dataset:
    """Read one split of the `coco_ir` folder.

    The image id is the COCO id without leading zeros; the caption id is `IMAGE#N`.

    Args:
        folder: the `coco_ir` folder.
        split: "train", "minival", "val" or "test".
        images: the folder of COCO's images, or None for captions only. The files may be called `COCO_val2014_%012d.jpg`
            or `%012d.jpg` (or by the bare id), in the folder itself or in `train2014/`, `val2014/`, `train2017/`, `val2017/`.
        keys: a file of image ids, such as `test_img_keys_1k.tsv`: keep just those, in its order.
        on_bad: see `build_dataset`.

    Raises:
        DataError: not such a folder, no such split, ids in `keys` that the split does not have, or bad records.
    """
    folder = Path(folder)
    files = {name: path for name in SPLITS if (path := _find(folder, name, f"{name}_captions.pt"))}
    if split not in files:
        check_split(split, {name: len(_read_captions(path)) for name, path in files.items()}, folder)
    captions = _read_captions(files[split])
    order = list(captions)
    listed = _find(folder, split, f"{split}_img_keys.tsv")
    if keys is not None:
        order = _read_keys(Path(keys))
        absent = [key for key in order if key not in captions]
        if absent:
            raise DataError(
                f"{len(absent):,} of the {len(order):,} image ids in {keys} are not in split {split}, such as {absent[0]}",
                hint="give the key file of this split",
            )
        captions = {key: captions[key] for key in order}
    elif listed:
        order = _read_keys(listed)
    paths = _paths(Path(images)) if images is not None else {}
    return build_dataset(
        "coco",
        split,
        [ImageRecord(key, paths.get(key) or f"COCO_val2014_{key:0>12}.jpg") for key in order],
        [
            CaptionRecord(f"{key}#{n}", key, text)
            for key in dict.fromkeys([*order, *captions])
            for n, text in enumerate(captions.get(key, ()))
        ],
        image_root=images,
        on_bad=on_bad,
        source={"source": "oscar", "file": files[split].name, "keys": keys and Path(keys).name},
    )


def _find(folder: Path, split: str, name: str) -> Path | None:
    return next((path for path in (folder / split / name, folder / name) if path.is_file()), None)


def _read_captions(path: Path) -> dict[str, list[str]]:
    import torch

    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # whatever the unpickler meets in a damaged or hostile file
        raise DataError(
            f"{path} cannot be read as plain data: {type(problem).__name__}",
            hint="only dicts, lists, strings and numbers are loaded, never Python objects; download it again",
        ) from None
    if not isinstance(contents, dict):
        raise DataError(f"{path} holds a {type(contents).__name__}, expected a dict of captions by image id")
    captions: dict[str, list[str]] = {}
    for key, value in contents.items():
        if not isinstance(key, str) and not (isinstance(key, int) and 0 <= key < 2**63):
            raise DataError(f"{path}: an image id is neither text nor a number from 0: {type(key).__name__}")
        image = _image_id(key)
        if image in captions:
            raise DataError(f"{path}: two keys stand for image {image}")
        captions[image] = _texts(value, f"{path}: image {image}")
    return captions


def _texts(value: Any, where: str) -> list[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as problem:
            raise DataError(f"{where}: captions are not valid JSON: {problem}") from None
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{where}: captions are not a list of texts, but a {type(value).__name__}")
    return value


def _image_id(key: object) -> str:
    text = str(key).strip()
    return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else text


def _read_keys(path: Path) -> list[str]:
    lines = read_text(path).splitlines()
    return [_image_id(line.split("\t")[0]) for line in lines if line.strip()]


def _paths(root: Path) -> dict[str, str]:
    # From image id to path below the root; the first place that has it wins.
    paths: dict[str, str] = {}
    for folder in ("", "train2014", "val2014", "train2017", "val2017"):
        if not (root / folder).is_dir():
            continue
        for entry in os.scandir(root / folder):
            stem, suffix = os.path.splitext(entry.name)
            digits = stem.rpartition("_")[2]
            if suffix.lower() in (".jpg", ".jpeg", ".png") and digits.isdecimal():
                paths.setdefault(str(int(digits)), f"{folder}/{entry.name}" if folder else entry.name)
    return paths
