"""Ranks, recall, rank statistics, many-positive metrics, intervals, and the evaluation of a Run."""

from tiir.metrics.evaluate import Evaluation, evaluate
from tiir.metrics.graded import graded_embeddings, graded_run, graded_scores
from tiir.metrics.intervals import bootstrap, resample
from tiir.metrics.published import check, published
from tiir.metrics.ranking import rank_embeddings, rank_run, rank_scores
from tiir.metrics.ranks import Counts, Ranks
from tiir.metrics.recall import Metric, metrics_of, recall, summary

__all__ = [
    "Counts",
    "Evaluation",
    "Metric",
    "Ranks",
    "bootstrap",
    "check",
    "evaluate",
    "graded_embeddings",
    "graded_run",
    "graded_scores",
    "metrics_of",
    "published",
    "rank_embeddings",
    "rank_run",
    "rank_scores",
    "recall",
    "resample",
    "summary",
]
