"""Karpathy's splits: `dataset_coco.json`, `dataset_flickr30k.json`, `dataset_flickr8k.json`.

Karpathy and Fei-Fei (2015), "Deep Visual-Semantic Alignments for Generating Image Descriptions",
https://cs.stanford.edu/people/karpathy/deepimagesent/.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from pathlib import Path
from typing import Any

from tiir.data.build import CaptionRecord, ImageRecord, build_dataset
from tiir.data.dataset import Dataset
from tiir.data.problems import OnBad, check_split
from tiir.errors import DataError
from tiir.io import read_json

__all__ = ["prepare"]


def prepare(
    file: Path | str, *, split: str, images: Path | str | None, restval: bool = True, on_bad: OnBad = "error"
) -> Dataset:
    """Read one split of Karpathy's JSON.

    The image id is the COCO id where there is one, else the file name; the caption id is `sentid`, or
    `IMAGE#N` where the file has none. Images lie below `images` as in the file: `train2014/`, `val2014/` for COCO.

    Args:
        file: `dataset_coco.json` or one of its siblings.
        split: "train", "restval" (COCO), "val" or "test".
        images: the image folder, or None for captions only.
        restval: "train" includes "restval" (COCO: 113,287 images), as in the literature.
        on_bad: see `build_dataset`.

    Returns:
        The split in the file's order. The image column "split" is the one the file states.

    Raises:
        DataError: not such a file, no such split, or bad records.
    """
    file = Path(file)
    records, name = _read(file)
    counts = Counter(_field(record, "split", str, file, i) for i, record in enumerate(records))
    check_split(split, counts, file)
    wanted = {split, "restval"} if split == "train" and restval else {split}
    image_records: list[ImageRecord] = []
    captions: list[CaptionRecord] = []
    for i, record in enumerate(records):
        if record["split"] not in wanted:
            continue
        filename = _field(record, "filename", str, file, i)
        image = _id(record["cocoid"], "cocoid", file, i) if "cocoid" in record else filename
        path = posixpath.join(_field({"filepath": ""} | record, "filepath", str, file, i), filename)
        image_records.append(ImageRecord(image, path, {"split": record["split"]}))
        for n, sentence in enumerate(_field(record, "sentences", list, file, i)):
            if not isinstance(sentence, dict):
                raise DataError(f"{file}: images[{i}].sentences[{n}] is not an object")
            sentid = _id(sentence["sentid"], "sentid", file, i) if "sentid" in sentence else f"{image}#{n}"
            captions.append(CaptionRecord(sentid, image, _field(sentence, "raw", str, file, i)))
    return build_dataset(
        name,
        split,
        image_records,
        captions,
        image_root=images,
        on_bad=on_bad,
        source={"source": "karpathy", "file": file.name, "splits": sorted(wanted & counts.keys())},
    )


def _read(file: Path) -> tuple[list[dict[str, Any]], str]:
    contents = read_json(file)
    records = contents.get("images") if isinstance(contents, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(
            f"{file} is not one of Karpathy's files: it has no list 'images'",
            hint="expected dataset_coco.json, dataset_flickr30k.json or dataset_flickr8k.json",
        )
    name = contents.get("dataset")
    return records, name if name and isinstance(name, str) else file.stem.removeprefix("dataset_")


def _field(record: dict[str, Any], key: str, kind: type, file: Path, i: int) -> Any:
    value = record.get(key)
    if not isinstance(value, kind):
        found = "" if value is None else f", but a {type(value).__name__}"
        raise DataError(f"{file}: images[{i}] has no {key!r} of type {kind.__name__}{found}")
    return value


def _id(value: Any, key: str, file: Path, i: int) -> str:
    if not isinstance(value, str | int):
        raise DataError(f"{file}: images[{i}] has a {key!r} that is a {type(value).__name__}, no id")
    return str(value)
