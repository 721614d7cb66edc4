"""Reading the original study's JSON files, and those of `tiir.analysis.study`: whom their texts and positions name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from tiir.analysis.study import SIDES
from tiir.data.dataset import Dataset
from tiir.errors import DataError, several
from tiir.io import read_json

__all__ = ["read_study"]

COLUMNS = [
    "direction",
    "kind",
    "query",
    "images",
    "captions",
    "retrieved",
    "positive",
    "ranks",
]  # of read_study


def read_study(path: Path | str, dataset: Dataset) -> pd.DataFrame:
    """Read a file of the original study, or one of `samples` or `chosen`, and find its queries in a data set.

    Captions are found by their text (white space at the ends apart). Where several images have a caption of one text,
    the image is told by the entry's ground truth, or the entry stands for all of them. Images named by a
    position are told by their captions: the ground truth of an image query, or the query itself.

    Args:
        path: the file.
        dataset: with the images and captions that the file names.

    Returns:
        A row a query: direction, kind ("hard", "easy", "retrieved", "comparison"), query (text or image id), images (ids
        of the image or images it can be of), captions (ids that it can be, of a caption query), retrieved (a list of lists:
        the ids that each place can be; of a position that nothing tells an image for, an empty one), positive (one
        of the places can only be the query's own), ranks (of a comparison: model to 0-based rank).

    Raises:
        DataError: no such format, or captions and images that the data set does not have, all listed.
    """
    content = read_json(Path(path))
    if not isinstance(content, dict) or not set(content) <= set(SIDES) or not content:
        raise DataError(f"{path} is no file of the study", hint='it must hold {"i2t": ..., "t2i": ...}')
    reader = _Reader(dataset)
    entries = []
    for side, part in content.items():
        kinds = part.items() if isinstance(part, dict) else [("", part)]
        for kind, listed in kinds:
            if not isinstance(listed, list):
                raise DataError(
                    f"{path}: {' '.join([side, kind]).strip()} is no list of entries",
                    hint="see tiir.analysis.study",
                )
            entries += [(side, kind, entry) for entry in listed]
    for number, (side, kind, entry) in enumerate(entries, 1):
        if problem := _problem(side, entry):
            where = f"{path}: entry {number} ({' '.join([side, kind]).strip()})"
            raise DataError(f"{where} {problem}", hint="see tiir.analysis.study")
        reader.learn(side, entry)  # positions are told by any entry that holds their captions
    rows = [reader.row(side, kind, entry) for side, kind, entry in entries]
    if reader.missing:
        shown = "\n".join(f"  {text!r}" for text in sorted(reader.missing)[:20])
        raise DataError(
            f"{path}: {several(len(reader.missing), 'caption or image', 'captions or images')} not in {dataset!r}:\n{shown}",
            hint="prepare the data set that the file was made of, all of its split",
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _problem(side: str, entry: Any) -> str | None:
    # What keeps an entry from being read: values are names, or (images only) positions.
    def named(value: Any, *kinds: type) -> bool:
        return isinstance(value, kinds) and not isinstance(value, bool)

    if not isinstance(entry, dict) or "query" not in entry:
        return "has no query"
    if not named(entry["query"], *((str, int) if side == "i2t" else (str,))):
        return f"has a query that names nothing: {entry['query']!r}"
    truth, retrieved = entry.get("ground_truth"), entry.get("retrieved", [])
    if side == "i2t":
        if not (truth is None or (isinstance(truth, list) and all(named(text, str) for text in truth))):
            return "has a ground_truth that is no list of captions"
    elif not (truth is None or named(truth, str, int)):
        return "has a ground_truth that is no image"
    if not all(named(one, str, int) for one in (retrieved if isinstance(retrieved, list) else [retrieved])):
        return "has a retrieved that is neither a name nor a list of names"
    return None


class _Reader:
    def __init__(self, dataset: Dataset) -> None:
        self._dataset, self.missing = dataset, set[str]()
        self._by_text: dict[str, list[int]] = {}
        for n, text in enumerate(dataset.captions):
            self._by_text.setdefault(" ".join(text.split()), []).append(n)
        self._positions: dict[int, set[int]] = {}  # images that a position can stand for

    def learn(self, side: str, entry: dict[str, Any]) -> None:
        position = entry["query"] if side == "i2t" else entry.get("ground_truth")
        if not isinstance(position, int):
            return
        texts = entry.get("ground_truth") or [] if side == "i2t" else [entry["query"]]
        images = self._images_of(texts)
        self._positions[position] = self._positions.get(position, images) & images

    def row(self, side: str, kind: str, entry: dict[str, Any]) -> dict[str, Any]:
        data, query, truth = self._dataset, entry["query"], entry.get("ground_truth")
        retrieved = entry.get("retrieved", [])
        retrieved = [retrieved] if isinstance(retrieved, str | int) else retrieved
        captions: list[int] = []
        if side == "i2t":
            images = self._image(query)
            places = [self._captions(text) for text in retrieved]
            own = {n for image in images for n in data.captions_of(image).tolist()}
            ids = data.caption_ids
        else:
            captions = self._captions(query)
            images = {int(data.caption_image[n]) for n in captions}
            if truth is not None:
                images = (self._image(truth) & images) or self._image(truth)
                captions = [n for n in captions if int(data.caption_image[n]) in images]
            places = [sorted(self._image(name)) for name in retrieved]
            own, ids = images, data.image_ids
            if (
                kind == "easy" and not places
            ):  # the study does not write an easy query's one candidate: its image
                places = [sorted(images)]
        ranks = {name: rank for name, rank in entry.items() if name != "query" and isinstance(rank, int)}
        return {
            "direction": side,
            "kind": kind or ("retrieved" if "retrieved" in entry else "comparison"),
            "query": str(query),
            "images": [data.image_ids[n] for n in sorted(images)],
            "captions": [data.caption_ids[n] for n in captions],
            "retrieved": [[ids[n] for n in place] for place in places],
            "positive": truth in retrieved or any(bool(place) and set(place) <= own for place in places),
            "ranks": {} if kind or "retrieved" in entry else ranks,
        }

    def _captions(self, text: str) -> list[int]:
        found = self._by_text.get(" ".join(str(text).split()), [])
        if not found:
            self.missing.add(str(text))
        return found

    def _images_of(self, texts: Iterable[str]) -> set[int]:
        owners = [{int(self._dataset.caption_image[n]) for n in self._captions(text)} for text in texts]
        return set.intersection(*owners) if owners else set()

    def _image(self, name: str | int) -> set[int]:
        if isinstance(name, int):
            return self._positions.get(name, set())  # of a retrieved position nothing need be known
        if name not in self._dataset.image_position:
            self.missing.add(name)
            return set()
        return {self._dataset.image_position[name]}
