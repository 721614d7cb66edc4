"""mAP@R and R-Precision, for queries with many positives.

With R positives, only the first R places matter: R-Precision is the share of positives among them, AP@R is
1/R times the sum, over the places p <= R that hold a positive, of the precision at p. (K. Musgrave, S. Belongie
and S. Lim, A Metric Learning Reality Check, ECCV 2020; S. Chun et al., ECCV Caption, ECCV 2022.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tiir.data.positives import Positives
from tiir.errors import RanksError
from tiir.metrics.ranks import Ties
from tiir.metrics.recall import Metric
from tiir.scoring.embeddings import Embeddings
from tiir.scoring.order import best
from tiir.scoring.pairs import Matrix, Pairs, pairs_of
from tiir.scoring.shortlist import Direction, Listed

if TYPE_CHECKING:
    from tiir.data.dataset import Dataset
    from tiir.data.protocols import Gallery
    from tiir.scoring.run import Run

__all__ = ["graded_embeddings", "graded_run", "graded_scores"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def graded_scores(
    scores: npt.NDArray[Any], positives: Any, *, ties: Ties = "pessimistic"
) -> dict[str, float]:
    """mAP@R and R-Precision both ways, in percent, from a score matrix.

    Queries without a positive are left out.

    Args:
        scores, positives: as in `rank_scores`.
        ties: "pessimistic" or "optimistic".

    Raises:
        RanksError: NaN or infinite scores, wrong shapes, or ties="expected".

    Example:
        >>> scores = np.array([[0.9, 0.5, 0.7], [0.2, 0.8, 0.6]])
        >>> graded_scores(scores, np.array([[1, 1, 0], [0, 1, 1]]))
        {'i2t_mAP@R': 75.0, 'i2t_R-Precision': 75.0, 't2i_mAP@R': 66.66..., 't2i_R-Precision': 66.66...}
    """
    return _graded(Matrix(scores), positives, ties)


def graded_embeddings(
    image_embeds: npt.NDArray[Any],
    text_embeds: npt.NDArray[Any],
    positives: Any,
    *,
    ties: Ties = "pessimistic",
) -> dict[str, float]:
    """mAP@R and R-Precision both ways, in percent, from embeddings; exact as in `rank_embeddings`.

    Args:
        image_embeds, text_embeds, positives: as in `rank_embeddings`.
        ties: "pessimistic" or "optimistic".
    """
    return _graded(Embeddings(image_embeds, text_embeds), positives, ties)


def graded_run(
    run: Run, dataset: Dataset, galleries: Sequence[Gallery], *, ties: Ties = "pessimistic"
) -> dict[str, Metric]:
    """mAP@R and R-Precision of a Run, query by query, in percent.

    Args:
        run: scores or embeddings of the whole data set.
        dataset: the data set that the Run was made from.
        galleries: what `tiir.data.protocols.resolve` gave.
        ties: "pessimistic" or "optimistic".
    """
    run.check(dataset)
    parts: dict[str, list[Metric]] = {}
    for fold, gallery in enumerate(galleries):
        pairs = pairs_of(run, gallery)
        owner = dataset.caption_image[gallery.captions]
        sides: tuple[tuple[Direction, Pairs, Positives, IntArray, IntArray], ...] = (
            ("i2t", pairs, gallery.i2t, gallery.image_queries, gallery.images),
            ("t2i", pairs.T, gallery.t2i.T, gallery.caption_queries, owner),
        )
        for side, one, relevant, queries, image in sides:
            listed = None if run.shortlist is None else run.shortlist.listed(side, gallery)
            queries = queries[relevant.per_image[queries] > 0]
            number = np.full(len(queries), fold)
            for name, values in _precisions(one, relevant, queries, ties, listed).items():
                parts.setdefault(f"{side}_{name}", []).append(Metric(values, image[queries], number))
    return {
        name: Metric(
            np.concatenate([part.values for part in folds]),
            np.concatenate([part.image for part in folds]),
            np.concatenate([part.fold for part in folds]),
        )
        for name, folds in parts.items()
    }


def _graded(pairs: Pairs, positives: Any, ties: Ties) -> dict[str, float]:
    positives = Positives.of(positives, n_images=pairs.shape[0], n_captions=pairs.shape[1])
    found = {}
    for side, one, relevant in (("i2t", pairs, positives), ("t2i", pairs.T, positives.T)):
        queries = np.flatnonzero(relevant.per_image)
        for name, values in _precisions(one, relevant, queries, ties).items():
            found[f"{side}_{name}"] = float(values.mean())
    return found


def _precisions(
    pairs: Pairs, positives: Positives, queries: IntArray, ties: Ties, listed: Listed | None = None
) -> dict[str, FloatArray]:
    # AP@R and R-Precision of each query (a row of `pairs`), in percent.
    if ties not in ("pessimistic", "optimistic"):
        raise RanksError(f"mAP@R with ties={ties!r} is not defined here", hint="pessimistic or optimistic")
    average, precision = np.empty(len(queries)), np.empty(len(queries))
    start = np.searchsorted(positives.image, np.arange(pairs.shape[0] + 1))
    number = np.diff(start)[queries]
    first = best(pairs, queries, number, positives=positives, favour=ties == "optimistic", listed=listed)
    for i, (query, r, (found, _)) in enumerate(zip(queries, number, first, strict=True)):
        hit = np.isin(found, positives.caption[start[query] : start[query + 1]])
        average[i] = (hit * np.cumsum(hit) / np.arange(1, r + 1)).sum() / r
        precision[i] = hit.mean()
    return {"mAP@R": 100 * average, "R-Precision": 100 * precision}
