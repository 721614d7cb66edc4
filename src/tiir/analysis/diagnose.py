"""Why queries fail: every query gets tags with evidence, and every tag its recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiir.analysis.background import Background, background
from tiir.analysis.captions import caption_tags
from tiir.analysis.concreteness import concreteness, image_vectors
from tiir.analysis.hubs import k_occurrence, skewness
from tiir.analysis.missing import SUSPECT, suspects, with_suspects
from tiir.analysis.queries import galleries_of, query_table
from tiir.analysis.slices import counted_recall, slices
from tiir.data.dataset import Dataset
from tiir.data.protocols import Gallery
from tiir.errors import ConfigError, several
from tiir.notebook import card
from tiir.scoring.run import Run
from tiir.scoring.shortlist import Direction

__all__ = ["Diagnosis", "diagnose"]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found about a Run's queries.

    Args:
        table: the query table that the rows of the others point into.
        tags: a row a query and tag: row, direction, fold, query, tag, evidence, strength.
        slices: see `tiir.analysis.slices.slices`.
        recall: as labelled, with what people judged right, and with suspected positives too; see
            `tiir.analysis.slices.counted_recall`.
        suspects: the wrong candidates of every list, with suspicion and judgement; see `tiir.analysis.missing`.
        typos: caption (id), start, end, wrong, right.
        concreteness: of the words; see `tiir.analysis.concreteness`.
        hubs: k-occurrence of the candidates of both directions; see `tiir.analysis.hubs`.
        skew: of the k-occurrence, by direction.
        notes: what could not be looked at, and why.
    """

    table: pd.DataFrame
    tags: pd.DataFrame
    slices: pd.DataFrame
    recall: pd.DataFrame
    suspects: pd.DataFrame
    typos: pd.DataFrame
    concreteness: pd.DataFrame
    hubs: pd.DataFrame
    skew: dict[str, float]
    notes: list[str]

    def __repr__(self) -> str:
        hard = int((self.table["difficulty"] == "hard").sum())
        tagged = self.tags["row"].nunique()
        return f"Diagnosis({len(self.table):,} queries, {hard:,} hard, {tagged:,} with tags, {several(len(self.notes), 'note')})"

    def _repr_html_(self) -> str:
        counts = self.tags.groupby(["tag", "direction"]).size().unstack(fill_value=0).reset_index()
        return card(repr(self), {}, counts.to_dict("records"), *self.notes)


def diagnose(
    run: Run,
    dataset: Dataset,
    protocol: str | Sequence[Gallery] | None = None,
    *,
    table: pd.DataFrame | None = None,
    text_vectors: npt.NDArray[np.float32] | None = None,
    shared: Background | None = None,
    suspicion: float = SUSPECT,
    ks: Sequence[int] = (1, 5, 10),
    resamples: int = 1000,
    seed: int = 0,
) -> Diagnosis:
    """Tag every query of a Run, and measure recall on each tag's queries.

    Caption queries get the tags of `tiir.analysis.captions`; queries of both directions:

    - missing label: the list holds a candidate that is labelled wrong, but that people judged right, or that is a
      suspected positive.
    - near duplicate: the query's own image and another of the gallery are nearly the same photo.
    - hub: the first candidate is wrong, and wrong for very many other queries (R@1 is 0 by definition).
    - anti-hub: no positive of the query is ever in the list of a query that it does not belong to.

    Args:
        run: the scores.
        dataset: its data set.
        protocol: a name or galleries; by the data set where None.
        table: its query table, where it is made already (with the same protocol).
        text_vectors: of the captions, (n_captions, n_dims), as more evidence of missing labels.
        shared: from `background`, where several Runs are diagnosed (the text vectors are given there then).
        suspicion: from which a candidate counts as a suspected positive.
        ks: of R@k.
        resamples, seed: of the bootstrap over images.

    Raises:
        ConfigError: text vectors beside `shared`, which would not be looked at.

    Example:
        >>> from tiir.scoring.run import RunInfo
        >>> texts = ["a black cat", "a cat asleep", "a dgo runs", "the dog is running"]
        >>> data = Dataset("pets", "test", ["a", "b"], list("klmn"), texts, np.array([0, 0, 1, 1]))
        >>> scores = np.array([[0.9, 0.2, 0.7, 0.1], [0.1, 0.3, 0.2, 0.8]], np.float32)
        >>> made = diagnose(Run(RunInfo.about(data, "pets", "by hand"), scores=scores), data, resamples=0)
        >>> made.tags.loc[made.tags["tag"] == "colour", ["query", "evidence"]].values.tolist()
        [['k', 'black']]
    """
    galleries = galleries_of(dataset, protocol)
    if table is None:
        table = query_table(run, dataset, galleries)
    if shared is None:
        shared = background(dataset, protocol if isinstance(protocol, str) else "", text_vectors=text_vectors)
    elif text_vectors is not None:
        raise ConfigError("text vectors beside `shared`", hint="give them to `background`")
    concrete = concreteness(shared.words, image_vectors(run))
    found = suspects(table, dataset, shared.fit, shared.judged)
    sides: tuple[Direction, Direction] = ("i2t", "t2i")
    hubs = {side: _hubs(table, dataset, galleries, side) for side in sides}
    parts = [
        _of_captions(table, dataset, caption_tags(shared.words, shared.typos, concrete)),
        _missing(found, suspicion),
        _duplicates(table, dataset, galleries, shared.duplicates),
        *(_hub_tags(table, dataset, hubs[side], side) for side in sides),
    ]
    tags = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    tags = tags.join(table[["direction", "fold", "query"]], on="row")
    tags = tags[["row", "direction", "fold", "query", "tag", "evidence", "strength"]]
    tags = tags.sort_values(["row", "tag"], ignore_index=True)
    ranks = with_suspects(table, found, suspicion)
    notes, listed = list(shared.notes), int(table["top"].map(len).max())
    if listed < min(max(ks), max(max(len(g.images), len(g.captions)) for g in galleries)):
        notes.append(f"lists hold {listed} candidates: missing labels beyond them are not counted")
    return Diagnosis(
        table=table,
        tags=tags,
        slices=slices(table, tags, ks=ks, resamples=resamples, seed=seed),
        recall=counted_recall(table, ranks, ks=ks, resamples=resamples, seed=seed),
        suspects=found,
        typos=pd.DataFrame(
            [(dataset.caption_ids[t.caption], t.start, t.end, t.wrong, t.right) for t in shared.typos],
            columns=["caption", "start", "end", "wrong", "right"],
        ),
        concreteness=concrete,
        hubs=pd.concat([hubs[side].assign(direction=side) for side in sides], ignore_index=True),
        skew={side: skewness(hubs[side]) for side in sides},
        notes=notes,
    )


def _of_captions(table: pd.DataFrame, dataset: Dataset, tags: pd.DataFrame) -> pd.DataFrame:
    queries = table[table["direction"] == "t2i"]
    rows = pd.DataFrame({"row": queries.index, "query": queries["query"]})
    tags = tags.assign(query=[dataset.caption_ids[n] for n in tags["caption"]])
    return rows.merge(tags, on="query")[["row", "tag", "evidence", "strength"]]


def _missing(found: pd.DataFrame, threshold: float) -> pd.DataFrame:
    sure = found["judged"] == "right"
    held = found[sure | ((found["judged"] == "") & (found["suspicion"] >= threshold))]
    held = held.assign(sure=held["judged"] == "right")
    best = held.sort_values(["row", "sure", "suspicion"], ascending=[True, False, False]).drop_duplicates(
        "row"
    )
    evidence = [
        f"{candidate} at place {place}: " + (f"judged right ({source})" if sure else f"suspicion {doubt:.2f}")
        for candidate, place, sure, source, doubt in zip(
            best["candidate"], best["place"], best["sure"], best["source"], best["suspicion"], strict=True
        )
    ]
    strength = np.where(best["sure"], 1.0, best["suspicion"])
    return pd.DataFrame(
        {"row": best["row"], "tag": "missing label", "evidence": evidence, "strength": strength}
    )


def _duplicates(
    table: pd.DataFrame, dataset: Dataset, galleries: Sequence[Gallery], pairs: pd.DataFrame | None
) -> pd.DataFrame:
    if pairs is None:
        return pd.DataFrame(columns=["row", "tag", "evidence", "strength"])
    both = pd.concat([pairs, pairs.rename(columns={"image": "other", "other": "image"})], ignore_index=True)
    there = pd.DataFrame(
        [(fold, dataset.image_ids[n]) for fold, gallery in enumerate(galleries) for n in gallery.images],
        columns=["fold", "other"],
    )
    both = both.merge(there, on="other").sort_values("different").drop_duplicates(["fold", "image"])
    rows = table[["fold", "image"]].assign(row=table.index).merge(both, on=["fold", "image"])
    return pd.DataFrame(
        {
            "row": rows["row"],
            "tag": "near duplicate",
            "evidence": [
                f"{o} differs in {d:.0%}" for o, d in zip(rows["other"], rows["different"], strict=True)
            ],
            "strength": 1 - rows["different"],
        }
    )


def _hubs(
    table: pd.DataFrame, dataset: Dataset, galleries: Sequence[Gallery], side: Direction
) -> pd.DataFrame:
    if side == "i2t":
        ids = (dataset.caption_ids[n] for gallery in galleries for n in gallery.captions)
    else:
        ids = (dataset.image_ids[n] for gallery in galleries for n in gallery.images)
    return k_occurrence(table, ids, side)


def _hub_tags(table: pd.DataFrame, dataset: Dataset, hubs: pd.DataFrame, side: Direction) -> pd.DataFrame:
    wrong = dict(zip(hubs["candidate"], hubs["wrong"], strict=True))
    is_hub = set(hubs.loc[hubs["hub"], "candidate"])
    rows: list[tuple[int, str, str, float]] = []
    queries = table[table["direction"] == side]
    for row, image, top, positive, best in zip(
        queries.index,
        queries["image"],
        queries["top"],
        queries["top_positive"],
        queries["best_positive"],
        strict=True,
    ):
        if not positive[0] and top[0] in is_hub:
            rows.append((row, "hub", f"{top[0]} is wrong in {wrong[top[0]]} lists", float(wrong[top[0]])))
        if side == "i2t":
            own = [dataset.caption_ids[n] for n in dataset.captions_of(dataset.image_position[image])]
        else:
            own = [best]
        if not any(wrong.get(candidate, 0) for candidate in own):
            rows.append((row, "anti-hub", "its positives are in no list of another query", 0.0))
    return pd.DataFrame(rows, columns=["row", "tag", "evidence", "strength"])
