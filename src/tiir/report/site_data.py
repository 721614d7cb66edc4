"""The explorer's queries and lists: from analyses of Runs to plain values, positions instead of ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiir.analysis.captions import CAPTION_TAGS
from tiir.analysis.diagnose import Diagnosis
from tiir.analysis.typos import Typo, correct
from tiir.data.dataset import Dataset
from tiir.metrics.evaluate import Evaluation
from tiir.report.chunks import rounded
from tiir.scoring.run import Run

__all__ = [
    "CHUNK",
    "DEPTH",
    "HARD_AFTER",
    "SIDES",
    "RunView",
    "captions_data",
    "images_data",
    "lists_data",
    "queries_data",
    "sample_rows",
    "sampled",
    "shown_images",
    "tags_of",
    "wrong_data",
]

CHUNK = 500
"""Queries (or images) of a chunk: one file."""
DEPTH = 10
"""Candidates listed a query."""
HARD_AFTER = 10
"""A query is hard with no positive in the first so many."""
TAGS = (*CAPTION_TAGS, "missing label", "near duplicate", "hub", "anti-hub")
JUDGED = {"right": 1, "wrong": -1, "": 0}
SIDES = ("i2t", "t2i")
PLACES = 1 << np.arange(DEPTH)  # a bit a place


@dataclass(frozen=True, eq=False)
class RunView:
    """All that a site shows of a Run.

    Args:
        name: as shown, unlike the others'.
        run: the scores.
        evaluation: its numbers.
        diagnosis: its queries (`table`, the rows of all directions and folds), tags and suspects.
    """

    name: str
    run: Run
    evaluation: Evaluation
    diagnosis: Diagnosis

    @property
    def table(self) -> pd.DataFrame:
        """The query table."""
        return self.diagnosis.table


def sample_rows(table: pd.DataFrame, number: int | None, seed: int = 0) -> npt.NDArray[np.int64]:
    """Rows of a query table to show: all, or a seeded sample of so many in each direction, in order.

    Example:
        >>> sample_rows(pd.DataFrame({"direction": ["i2t"] * 3 + ["t2i"] * 2}), 2).tolist()
        [1, 2, 3, 4]
    """
    rng, kept = np.random.default_rng(seed), []
    for side in SIDES:
        rows = np.flatnonzero(table["direction"] == side)
        if number is not None and len(rows) > number:
            rows = np.sort(rng.choice(rows, number, replace=False))
        kept.append(rows)
    return np.concatenate(kept)


def sampled(table: pd.DataFrame, rows: npt.NDArray[np.int64]) -> dict[str, list[int]] | None:
    """How many queries of how many are shown, by direction; None where all are.

    Example:
        >>> sampled(pd.DataFrame({"direction": ["i2t"] * 3 + ["t2i"] * 2}), np.array([1, 2, 3, 4]))
        {'i2t': [2, 3], 't2i': [2, 2]}
    """
    if len(rows) == len(table):
        return None
    shown = table.iloc[rows]
    return {side: [int((frame["direction"] == side).sum()) for frame in (shown, table)] for side in SIDES}


def shown_images(views: Sequence[RunView], dataset: Dataset, rows: npt.NDArray[np.int64]) -> list[int]:
    """Positions of the images that shown queries are about, or that their lists hold (of captions: their images)."""
    names: set[str] = set()
    captions: set[str] = set()
    for view in views:
        table = view.table.iloc[rows]
        names.update(table["image"])
        for side, best, top in zip(table["direction"], table["best_positive"], table["top"], strict=True):
            (captions if side == "i2t" else names).update([best, *top])
    places = {dataset.image_position[name] for name in names}
    places.update(int(dataset.caption_image[dataset.caption_position[name]]) for name in captions)
    return sorted(places)


def images_data(dataset: Dataset, *, photos: bool) -> dict[str, Any]:
    """Block `images`: ids and sizes; without photos no sizes either."""
    sizes = {
        side: list(map(int, dataset.image_columns.get(side, ()))) if photos else []
        for side in ("width", "height")
    }
    return {
        "id": list(dataset.image_ids),
        **{side: size or [0] * dataset.n_images for side, size in sizes.items()},
    }


def captions_data(dataset: Dataset) -> dict[str, Any]:
    """Block `captions`: ids, texts, positions of their images."""
    return {
        "id": list(dataset.caption_ids),
        "text": list(dataset.captions),
        "image": dataset.caption_image.tolist(),
    }


def tags_of(views: Sequence[RunView]) -> list[str]:
    """The tags that occur, in a fixed order."""
    found = {tag for view in views for tag in view.diagnosis.tags["tag"].unique()}
    return [tag for tag in TAGS if tag in found]


def queries_data(
    views: Sequence[RunView], dataset: Dataset, rows: npt.NDArray[np.int64], tags: Sequence[str]
) -> dict[str, Any]:
    """Block `queries`: a query is numbered by its place in `rows`.

    Args:
        views: of the Runs.
        dataset: theirs.
        rows: of the query tables that are shown.
        tags: bit n of a mask is tag n.
    """
    table = views[0].table.iloc[rows]
    return {
        "direction": [SIDES.index(side) for side in table["direction"]],
        "fold": table["fold"].tolist(),
        "query": [_position(dataset, side, name) for side, name in zip(table["direction"], table["query"], strict=True)],
        "positives": table["positives"].tolist(),
        "runs": [_of_run(view, rows, tags) for view in views],
    }  # fmt: skip


def _position(dataset: Dataset, side: str, name: str) -> int:
    return dataset.image_position[name] if side == "i2t" else dataset.caption_position[name]


def _of_run(view: RunView, rows: npt.NDArray[np.int64], tags: Sequence[str]) -> dict[str, Any]:
    found = view.diagnosis.suspects
    # What people judged wrong is no suspect any more.
    doubt = found[(found["judged"] != "wrong") & found["suspicion"].notna()].groupby("row")["suspicion"].max()
    masks = np.zeros(len(view.table), np.int64)
    tagged = view.diagnosis.tags
    bits = tagged["tag"].map({tag: 1 << n for n, tag in enumerate(tags)}).to_numpy()
    np.bitwise_or.at(masks, tagged["row"].to_numpy(), bits)
    shown = view.table.iloc[rows]
    return {
        "rank": shown["rank"].tolist(),
        "margin": rounded(shown["margin"]),
        "tags": masks[rows].tolist(),
        "suspicion": rounded(doubt.reindex(shown.index).fillna(-1), 3),
    }


def lists_data(
    view: RunView,
    dataset: Dataset,
    rows: npt.NDArray[np.int64],
    tags: Sequence[str],
    typos: Mapping[int, Sequence[Typo]],
) -> Iterator[dict[str, Any]]:
    """Blocks `lists-R-C` of a Run, one after the other.

    Args:
        view: of the Run.
        dataset: its.
        rows: of the query table that are shown.
        tags: numbered as in the masks.
        typos: of each caption that has any, by its position.
    """
    suspects = view.diagnosis.suspects
    cells = suspects["row"].to_numpy(), suspects["place"].to_numpy() - 1
    suspicion, judged = np.full((len(view.table), DEPTH), -1.0), np.zeros((len(view.table), DEPTH), np.int64)
    suspicion[cells] = suspects["suspicion"].fillna(-1)
    judged[cells] = sum(mark * (suspects["judged"] == word).to_numpy() for word, mark in JUDGED.items())
    number = {tag: n for n, tag in enumerate(tags)}
    evidence: dict[int, list[list[Any]]] = {}
    tagged = view.diagnosis.tags
    for row, tag, text in zip(*_columns(tagged, "row", "tag", "evidence"), strict=True):
        evidence.setdefault(row, []).append([number[tag], text])
    for start in range(0, len(rows), CHUNK):
        shown = rows[start : start + CHUNK]
        chunk = view.table.iloc[shown]
        sides, queries, texts = _columns(chunk, "direction", "query", "text")
        best, tops = _columns(chunk, "best_positive", "top")
        listed = [dataset.caption_position if side == "i2t" else dataset.image_position for side in sides]
        slips = [
            typos.get(dataset.caption_position[query], ()) if side == "t2i" else ()
            for side, query in zip(sides, queries, strict=True)
        ]
        lengths = np.fromiter(map(len, tops), np.int64)
        yield {
            "start": start,
            "best": [position[name] for position, name in zip(listed, best, strict=True)],
            "best_score": rounded(chunk["best_positive_score"]),
            "top": [[position[name] for name in top] for position, top in zip(listed, tops, strict=True)],
            "score": _cut(rounded(_by_place(chunk["top_scores"], lengths)), lengths),
            "positive": (_by_place(chunk["top_positive"], lengths).astype(np.int64) @ PLACES).tolist(),
            "suspicion": _cut(rounded(suspicion[shown], 3), lengths),
            "judged": _cut(judged[shown].tolist(), lengths),
            "evidence": [evidence.get(row, []) for row in shown.tolist()],
            "corrected": [correct(text, slip) if slip else None for text, slip in zip(texts, slips, strict=True)],
        }  # fmt: skip


def _by_place(lists: pd.Series, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    # Queries x places; 0 beyond the end of a list.
    made = np.zeros((len(lists), DEPTH))
    made[np.arange(DEPTH) < lengths[:, None]] = np.fromiter(chain.from_iterable(lists), np.float64)
    return made


def _cut(lists: list[list[Any]], lengths: npt.NDArray[np.int64]) -> list[list[Any]]:
    if (lengths == DEPTH).all():
        return lists
    return [values[:end] for values, end in zip(lists, lengths.tolist(), strict=True)]


def _columns(frame: pd.DataFrame, *names: str) -> list[npt.NDArray[Any]]:
    # As arrays of Python's objects: pandas' own columns of text are slow to go through.
    return [frame[name].to_numpy(object) for name in names]


def wrong_data(view: RunView, dataset: Dataset, rows: npt.NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """Blocks `wrong-R-C` of a Run: for each image the shown caption queries whose list holds it wrongly."""
    table = view.table.iloc[rows]
    asked = np.flatnonzero(table["direction"] == "t2i")
    table = table.iloc[asked]
    query = np.repeat(asked, np.fromiter(map(len, table["top"]), np.int64))
    names, hits = (chain.from_iterable(table[name]) for name in ("top", "top_positive"))
    image = np.fromiter(map(dataset.image_position.__getitem__, names), np.int64)
    wrong = ~np.fromiter(hits, np.bool_)
    query, image = query[wrong], image[wrong]
    by_image = np.argsort(image, kind="stable")
    ends = np.searchsorted(image[by_image], np.arange(dataset.n_images + 1))
    found = query[by_image].tolist()
    for start in range(0, dataset.n_images, CHUNK):
        edges = ends[start : start + CHUNK + 1].tolist()
        yield {"start": start, "rows": [found[a:b] for a, b in pairwise(edges)]}
