"""Missing labels: retrieved candidates that are right although nobody said so."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiir.analysis.similarity import CaptionFit
from tiir.data.dataset import Dataset
from tiir.data.protocols import resolve
from tiir.errors import MissingExtraError, ProtocolError

__all__ = ["SUSPECT", "judged_pairs", "suspects", "with_suspects"]

SUSPECT = 0.6
"""Suspicion from which a candidate counts as a suspected positive: of such pairs of Flickr8k that experts graded
88% describe the image (21% of those that do are found; see benchmarks/BY_HAND.md)."""
IntArray = npt.NDArray[np.int64]
YES = {"expert": 3.0, "crowd": 0.5}
"""Grades from which people said yes, by source: experts grade 1 to 4, of the crowd half must agree."""


def judged_pairs(dataset: Dataset, run_protocol: str = "") -> pd.DataFrame:
    """Pairs of an image and another image's caption that people judged.

    Args:
        dataset: with judgements of its own (Flickr8k: experts, else the crowd), or COCO's test split: then the
            positives that ECCV Caption and CxC added, where the extra `coco` is installed.
        run_protocol: the protocol in use; what it counts as positives already is of no interest.

    Returns:
        image, caption (positions), right (bool), source; one row a pair, the first source of expert, crowd, eccv,
        cxc decides. Empty where nobody judged.
    """
    rows: list[pd.DataFrame] = []
    if dataset.judgements is not None:
        judged = dataset.judgements
        for source, least in YES.items():
            here = np.array([name == source for name in judged.source], bool)
            grade = judged.grade[here]
            right = grade >= least if source == "expert" else grade > least
            rows.append(_frame(judged.image[here], judged.caption[here], right, source))
    for protocol in ("eccv", "cxc"):
        if protocol != run_protocol:
            try:
                (gallery,) = resolve(protocol, dataset)
            except (MissingExtraError, ProtocolError):
                continue  # another data set, or the extra is not installed
            for pairs in (gallery.i2t, gallery.t2i):
                images, captions = gallery.images[pairs.image], gallery.captions[pairs.caption]
                rows.append(_frame(images, captions, np.ones(len(images), bool), protocol))
    if not rows:
        return _frame(np.empty(0, int), np.empty(0, int), np.empty(0, bool), "")
    table = pd.concat(rows, ignore_index=True).drop_duplicates(["image", "caption"])
    own = dataset.caption_image[table["caption"]] == table["image"]
    return table[~own].reset_index(drop=True)


def _frame(images: IntArray, captions: IntArray, right: npt.NDArray[np.bool_], source: str) -> pd.DataFrame:
    return pd.DataFrame({"image": images, "caption": captions, "right": right, "source": source})


def suspects(
    table: pd.DataFrame, dataset: Dataset, fit: CaptionFit | None, judged: pd.DataFrame
) -> pd.DataFrame:
    """What is known and suspected about each wrong candidate that a query retrieved.

    Args:
        table: a query table.
        dataset: its data set.
        fit: gives the suspicion; None where it cannot be learnt (one caption an image).
        judged: from `judged_pairs`.

    Returns:
        A row a query and wrong candidate of its list: row (of `table`), direction, query, candidate (id), place
        (1-based), suspicion (NaN without `fit`), judged ("right", "wrong" or "" where nobody judged), source.
    """
    rows = list(_wrong(table))
    found = pd.DataFrame(rows, columns=["row", "direction", "query", "candidate", "place"])
    i2t = found["direction"] == "i2t"
    image_ids = np.where(i2t, found["query"], found["candidate"])
    caption_ids = np.where(i2t, found["candidate"], found["query"])
    images = np.array([dataset.image_position[name] for name in image_ids], np.int64)
    captions = np.array([dataset.caption_position[name] for name in caption_ids], np.int64)
    found["suspicion"] = np.nan if fit is None else fit(images, captions)
    keys = images * dataset.n_captions + captions
    known = judged["image"].to_numpy() * dataset.n_captions + judged["caption"].to_numpy()
    right = pd.Series(np.where(judged["right"], "right", "wrong"), index=known)
    found["judged"] = right.reindex(keys).fillna("").to_numpy()
    found["source"] = pd.Series(judged["source"].to_numpy(), index=known).reindex(keys).fillna("").to_numpy()
    return found


def _wrong(table: pd.DataFrame) -> Iterator[tuple[int, str, str, str, int]]:
    columns = (table[name] for name in ("direction", "query", "top", "top_positive"))
    for row, direction, query, top, positive in zip(table.index, *columns, strict=True):
        for place, (candidate, hit) in enumerate(zip(top, positive, strict=True), 1):
            if not hit:
                yield row, direction, query, candidate, place


def with_suspects(table: pd.DataFrame, found: pd.DataFrame, threshold: float = SUSPECT) -> pd.DataFrame:
    """Ranks under three ways to count, side by side and never mixed.

    Args:
        table: a query table.
        found: from `suspects`.
        threshold: suspicion from which a candidate that nobody judged counts.

    Returns:
        With the index of `table`: labelled (its rank), judged (the rank when candidates that people judged right
        count too), suspected (when suspected positives count as well; what people judged wrong never does).
        Ranks beyond the lists can only be lowered by what the lists hold.
    """
    ranks = pd.DataFrame({"labelled": table["rank"]})
    right = found["judged"] == "right"
    suspected = right | ((found["judged"] == "") & (found["suspicion"] >= threshold))
    for name, counts in (("judged", right), ("suspected", suspected)):
        first = found[counts].groupby("row")["place"].min().reindex(table.index).astype(float)
        ranks[name] = np.minimum(ranks["labelled"], first.fillna(np.inf)).astype(np.int64)
    return ranks
