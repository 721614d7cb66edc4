"""Hard and easy queries, and what chosen queries retrieve, in the JSON of the original study and beyond it.

The study wrote three kinds of files: samples (`{"i2t": {"hard": [...], "easy": [...]}, "t2i": ...}`), retrievals for
chosen queries and comparisons of two models (`{"i2t": [...], "t2i": [...]}`). Entries name captions by their text, and in
the samples images by their position in a list that is not in the file. tiir writes the same keys with image ids in
their place, and more keys beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiir.analysis.words import tokens
from tiir.data.dataset import Dataset
from tiir.data.protocols import Gallery
from tiir.errors import ConfigError, DataError
from tiir.io import read_json
from tiir.metrics.retrieve import retrieve
from tiir.scoring.run import Run
from tiir.scoring.shortlist import Direction

__all__ = ["chosen", "read_study", "samples"]

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
SIDES: tuple[Direction, Direction] = ("i2t", "t2i")


def samples(table: pd.DataFrame, dataset: Dataset, *, number: int = 40, seed: int = 0) -> dict[str, Any]:
    """Hard and easy queries of both directions, drawn at random.

    Args:
        table: a query table.
        dataset: its data set.
        number: of each kind; all where there are fewer.
        seed: the same seed draws the same queries.

    Returns:
        Ready for JSON: the study's `query`, `ground_truth`, `retrieved` (an easy image query's is one caption, as
        there), and beside them `query_id`, `ground_truth_ids`, `retrieved_ids`, `scores`, `positive`, `rank`,
        `margin`.
    """
    made: dict[str, Any] = {}
    for side in SIDES:
        made[side] = {}
        for kind in ("hard", "easy"):
            part = table[(table["direction"] == side) & (table["difficulty"] == kind)]
            rng = np.random.default_rng([seed, SIDES.index(side), kind == "easy"])
            picked = np.sort(rng.choice(len(part), min(number, len(part)), replace=False))
            made[side][kind] = [_entry(dataset, row, kind) for row in part.iloc[picked].to_dict("records")]
    return made


def _entry(dataset: Dataset, row: dict[str, Any], kind: str) -> dict[str, Any]:
    i2t = row["direction"] == "i2t"
    image = dataset.image_position[row["image"]]
    truths = [dataset.caption_ids[n] for n in dataset.captions_of(image)] if i2t else [row["best_positive"]]
    entry = {
        "query": row["query"] if i2t else row["text"],
        "ground_truth": _shown(dataset, truths) if i2t else truths[0],
        "retrieved": _shown(dataset, row["top"]) if i2t else list(row["top"]),
        "query_id": row["query"],
        "ground_truth_ids": truths,
        "retrieved_ids": list(row["top"]),
        "scores": list(row["top_scores"]),
        "positive": list(row["top_positive"]),
        "rank": int(row["rank"]),
        "margin": None if pd.isna(row["margin"]) else float(row["margin"]),
    }
    if i2t and kind == "easy":
        entry["retrieved"] = entry["retrieved"][0]
    return entry


def _shown(dataset: Dataset, ids: Iterable[str]) -> list[str]:
    return [dataset.captions[dataset.caption_position[name]] for name in ids]


def chosen(
    run: Run,
    dataset: Dataset,
    galleries: Sequence[Gallery],
    *,
    ids: Sequence[str] = (),
    search: Sequence[str] = (),
    depth: int = 10,
) -> dict[str, Any]:
    """What chosen queries retrieve.

    Args:
        run: the scores.
        dataset: its data set.
        galleries: of the protocol.
        ids: image or caption ids; one that names both an image and a caption stands for both.
        search: texts; each stands for the captions that hold all its words, in any order.
        depth: candidates a query.

    Returns:
        Ready for JSON: {"i2t": [...], "t2i": [...]} with the study's `query` (an image id, or a caption's text) and
        `retrieved` (captions' texts, or image ids), and `query_id`, `retrieved_ids`, `scores`, `positive`, and
        `fold` where there are several galleries.

    Raises:
        ConfigError: an id or a search that nothing in the galleries answers to.
    """
    run.check(dataset)
    images = {dataset.image_position[name] for name in ids if name in dataset.image_position}
    captions = {dataset.caption_position[name] for name in ids if name in dataset.caption_position}
    unknown = [n for n in ids if n not in dataset.image_position and n not in dataset.caption_position]
    if unknown:
        raise ConfigError(
            f"{dataset.name} has no image or caption {', '.join(unknown)}", hint="check the ids"
        )
    asked = {name: {name} for name in ids}
    for text in search:
        wanted = set(tokens(text))
        found = {n for n, caption in enumerate(dataset.captions) if wanted and wanted <= set(tokens(caption))}
        if not found:
            raise ConfigError(f"no caption holds all of: {text}", hint="search for fewer words")
        captions |= found
        asked[text] = {dataset.caption_ids[n] for n in found}
    made: dict[str, Any] = {side: [] for side in SIDES}
    for fold, gallery in enumerate(galleries):
        for side, wanted_here in zip(SIDES, (images, captions), strict=True):
            entries = _retrieved(run, dataset, gallery, side, sorted(wanted_here), depth)
            made[side] += [entry | ({"fold": fold} if len(galleries) > 1 else {}) for entry in entries]
    answered = {entry["query_id"] for side in SIDES for entry in made[side]}
    if outside := [text for text, names in asked.items() if not names & answered]:
        raise ConfigError(
            f"not in the protocol's gallery: {', '.join(outside)}", hint="leave it out, or use --protocol own"
        )
    return made


def _retrieved(
    run: Run, dataset: Dataset, gallery: Gallery, side: Direction, wanted: Sequence[int], depth: int
) -> list[dict[str, Any]]:
    own, other = gallery.images, gallery.captions
    own_ids, other_ids, positives = dataset.image_ids, dataset.caption_ids, gallery.i2t
    if side == "t2i":
        own, other, own_ids, other_ids, positives = other, own, other_ids, own_ids, gallery.t2i.T
    queries = np.flatnonzero(np.isin(own, np.array(wanted, np.int64)))
    found, scores = retrieve(run, gallery, side, queries, depth=depth)
    entries = []
    for query, candidates, values in zip(queries, found, scores, strict=True):
        name, names = own_ids[own[query]], [other_ids[other[n]] for n in candidates]
        relevant = positives.caption[positives.image == query]
        entries.append(
            {
                "query": name if side == "i2t" else dataset.captions[own[query]],
                "retrieved": _shown(dataset, names) if side == "i2t" else names,
                "query_id": name,
                "retrieved_ids": names,
                "scores": values.tolist(),
                "positive": np.isin(candidates, relevant).tolist(),
            }
        )
    return entries


def read_study(path: Path, dataset: Dataset) -> pd.DataFrame:
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
    content = read_json(path)
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
            f"{path}: {len(reader.missing)} captions or images are not in {dataset!r}:\n{shown}",
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
        texts = entry.get("ground_truth", []) if side == "i2t" else [entry["query"]]
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
