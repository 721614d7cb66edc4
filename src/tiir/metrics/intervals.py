"""Confidence intervals by resampling images: captions of one image are not independent of each other.

The percentile bootstrap over clusters (A. Davison and D. Hinkley, Bootstrap Methods and their Application, 1997,
section 3.8). Each fold's images are drawn with replacement from that fold, and an image brings all its queries,
its own and its captions', so that rsum's interval respects how the directions move together. What varies is the
sample of images; the gallery, and so every rank, stays as it is.

Images that own no query (the distractors of a large gallery) are not drawn. They would bring nothing: whatever is drawn
besides them are equal draws of the others, and a mean does not change with how many there are. Only that number would
vary from one resample to the next; it is held at what it is, the number of images with a query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from tiir.errors import RanksError
from tiir.metrics.recall import RSUM, Metric

__all__ = ["bootstrap", "resample"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CHUNK = 64  # resamples at a time, of few images
DRAWS = 1 << 22  # images drawn at a time: 32 MB. The draws are the same for every chunk


def bootstrap(
    metrics: Mapping[str, Metric], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of metrics, and of rsum where its six parts are among them.

    Args:
        metrics: from `metrics_of` or `graded_run`.
        resamples: number of draws.
        seed: the same seed gives the same intervals.
        level: coverage aimed at.

    Returns:
        (low, high) by name.

    Example:
        >>> from tiir.metrics import metrics_of, rank_scores
        >>> scores = np.random.default_rng(0).random((50, 50)) + 0.5 * np.eye(50)
        >>> intervals = bootstrap(metrics_of(rank_scores(scores, np.arange(50))))
        >>> [round(edge) for edge in intervals["t2i_R@1"]]
        [50, 76]
    """
    if not 0 < level < 1:
        raise RanksError(f"level={level} must lie between 0 and 1")
    tails = [(1 - level) / 2, (1 + level) / 2]
    intervals = {}
    for name, drawn in resample(metrics, resamples=resamples, seed=seed).items():
        low, high = np.nanquantile(drawn, tails)
        intervals[name] = (float(low), float(high))
    return intervals


def resample(metrics: Mapping[str, Metric], *, resamples: int = 1000, seed: int = 0) -> dict[str, FloatArray]:
    """Each metric's value in each resample, (resamples,) by name; paired across metrics and models.

    The draws depend only on the seed and on which images each fold has.
    """
    if resamples < 1:
        raise RanksError(f"resamples={resamples} must be at least 1")
    folds = np.unique(np.concatenate([metric.fold for metric in metrics.values()]))
    drawn = {name: np.zeros(resamples) for name in metrics}
    for fold in folds:
        inside = {name: np.flatnonzero(metric.fold == fold) for name, metric in metrics.items()}
        images = np.unique(np.concatenate([metrics[name].image[rows] for name, rows in inside.items()]))
        place = {name: np.searchsorted(images, metrics[name].image[rows]) for name, rows in inside.items()}
        values = {name: metrics[name].values[rows] for name, rows in inside.items()}
        means = [name for name, metric in metrics.items() if metric.kind == "mean"]
        medians = {
            name: _median(values[name], place[name], len(images)) for name in metrics if name not in means
        }
        # Sums and numbers of all means, image by image: one matrix product for all of them.
        totals = np.zeros((len(images), 2, len(means)))
        for column, name in enumerate(means):
            totals[:, 0, column] = np.bincount(place[name], values[name], minlength=len(images))
            totals[:, 1, column] = np.bincount(place[name], minlength=len(images))
        for part, weights in _weights(len(images), resamples, np.random.default_rng([seed, int(fold)])):
            sums, numbers = (
                (weights @ totals.reshape(len(images), -1)).reshape(-1, 2, len(means)).transpose(1, 2, 0)
            )
            with np.errstate(invalid="ignore"):  # no query drawn: NaN, which the quantiles leave out
                pooled = dict(zip(means, sums / numbers, strict=True))
            pooled |= {name: median(weights) for name, median in medians.items()}
            for name, value in pooled.items():
                drawn[name][part] += value / len(folds)
    if set(RSUM) <= drawn.keys():
        drawn["rsum"] = np.sum([drawn[name] for name in RSUM], axis=0)
    return drawn


def _weights(n: int, resamples: int, rng: np.random.Generator) -> Iterator[tuple[slice, FloatArray]]:
    # How often each image is drawn in each resample, (a chunk, n).
    chunk = max(1, min(CHUNK, DRAWS // n))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        picks = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n)
        yield slice(start, start + rows), counts.astype(np.float64)


def _median(values: FloatArray, image: IntArray, n: int) -> Callable[[FloatArray], FloatArray]:
    order = np.argsort(values, kind="stable")
    values, image = values[order], image[order]

    def pool(weights: FloatArray) -> FloatArray:
        reached = np.cumsum(
            weights.astype(np.int32)[:, image], axis=1
        )  # (resamples, n_queries): copies up to each value
        number = reached[:, -1]
        middles = np.stack([(number - 1) // 2, number // 2], axis=1)
        places = [
            row.searchsorted(middle, side="right") for row, middle in zip(reached, middles, strict=True)
        ]
        median: FloatArray = values[np.minimum(places, len(values) - 1)].mean(axis=1)
        return np.where(number > 0, median, np.nan)

    return pool
