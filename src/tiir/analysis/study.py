"""Hard and easy queries, and what chosen queries retrieve, in the JSON of the original study and beyond it.

The study wrote three kinds of files: samples (`{"i2t": {"hard": [...], "easy": [...]}, "t2i": ...}`), retrievals for
chosen queries and comparisons of two models (`{"i2t": [...], "t2i": [...]}`). Entries name captions by their text, and in
the samples images by their position in a list that is not in the file. tiir writes the same keys with image ids in
their place, and more keys beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tiir.analysis.words import tokens
from tiir.data.dataset import Dataset
from tiir.data.protocols import Gallery
from tiir.errors import ConfigError
from tiir.metrics.retrieve import retrieve
from tiir.scoring.run import Run
from tiir.scoring.shortlist import Direction

__all__ = ["SIDES", "chosen", "samples"]

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
