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
from tiir.metrics.pairs import Embeddings, Matrix, Pairs
from tiir.metrics.ranks import Ties, pairs_of
from tiir.metrics.recall import Metric

if TYPE_CHECKING:
    from tiir.data.dataset import Dataset
    from tiir.data.protocols import Gallery
    from tiir.scoring.run import Run

__all__ = ["graded_embeddings", "graded_run", "graded_scores"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

ROWS = 64  # queries at a time: 6 MB of scores against 25,000 captions


def graded_scores(
    scores: npt.NDArray[Any], positives: Any, *, ties: Ties = "pessimistic"
) -> dict[str, float]:
    """mAP@R and R-Precision both ways, in percent, from a score matrix (see `rank_scores`).

    Queries without a positive are left out.

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
    """mAP@R and R-Precision both ways, in percent, from embeddings; exact as in `rank_embeddings`."""
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
        for side, one, relevant, queries, image in (
            ("i2t", pairs, gallery.i2t, gallery.image_queries, gallery.images),
            ("t2i", pairs.T, gallery.t2i.T, gallery.caption_queries, owner),
        ):
            queries = queries[relevant.per_image[queries] > 0]
            number = np.full(len(queries), fold)
            for name, values in _precisions(one, relevant, queries, ties).items():
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


def _precisions(pairs: Pairs, positives: Positives, queries: IntArray, ties: Ties) -> dict[str, FloatArray]:
    # AP@R and R-Precision of each query (a row of `pairs`), in percent.
    if ties not in ("pessimistic", "optimistic"):
        raise RanksError(f"mAP@R with ties={ties!r} is not defined here", hint="pessimistic or optimistic")
    average, precision = np.empty(len(queries)), np.empty(len(queries))
    n_columns = pairs.shape[1]
    start = np.searchsorted(positives.image, np.arange(pairs.shape[0] + 1))
    buffer = np.empty((ROWS, n_columns), pairs.dtype)
    for first in range(0, len(queries), ROWS):
        rows = queries[first : first + ROWS]
        tile = pairs.tile(rows, slice(None), pairs.dtype, buffer[: len(rows)])
        if not np.isfinite(tile).all():
            i, j = np.argwhere(~np.isfinite(tile))[0]
            raise RanksError(
                f"the score of query {rows[i]} and candidate {j} is {tile[i, j]}",
                hint="NaN means not scored: score every pair of the protocol",
            )
        error = np.broadcast_to(pairs.error(rows, slice(None), pairs.dtype)[0], len(rows))
        for i, row in enumerate(rows):
            relevant = positives.caption[start[row] : start[row + 1]]
            r = len(relevant)
            # At least R candidates reach the R-th largest approximate score, so no exact score of the first R
            # lies more than one error below it, and no approximate one more than two.
            floor = np.partition(tile[i], -r)[-r] - 2 * error[i]
            some = np.flatnonzero(tile[i] >= floor)
            hit = np.isin(some, relevant)
            score = pairs.exact(np.full(len(some), row), some)
            order = np.lexsort((hit if ties == "pessimistic" else ~hit, -score))[:r]
            hit = hit[order]
            average[first + i] = (hit * np.cumsum(hit) / np.arange(1, r + 1)).sum() / r
            precision[first + i] = hit.mean()
    return {"mAP@R": 100 * average, "R-Precision": 100 * precision}
