"""Ranks, metrics and tests against scikit-learn and scipy, which tiir depends on anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from tests.peers import others
from tests.peers.test_recall import case

from tiir.analysis.statistics import mcnemar
from tiir.metrics import bootstrap, graded_scores, metrics_of, rank_scores, recall, summary

TITLES = ("five captions an image", "rounded to 0.5")


@pytest.mark.parametrize(
    ("ties", "method"), [("pessimistic", "max"), ("optimistic", "min"), ("expected", "average")]
)
def test_ranks_are_those_of_scipy(ties: Any, method: str, peer: Any, documented: Callable[..., None]) -> None:
    for title in TITLES:
        scores, own = case(title)
        places = scipy.stats.rankdata(-scores.T, method=method, axis=1)[np.arange(len(own)), own]
        np.testing.assert_allclose(rank_scores(scores, own, ties=ties).t2i, places)
    documented(
        "Statistics",
        [peer("scipy"), f'`rankdata(method="{method}")`'],
        f"ranks, {ties}, of captions",
        "equal, ties too",
    )


def test_mrr_is_that_of_scikit_learn(peer: Any, documented: Callable[..., None]) -> None:
    for title in TITLES:
        scores, own = case(title)
        labels = own[:, None] == np.arange(len(scores))
        theirs = sklearn.metrics.label_ranking_average_precision_score(labels, scores.T)
        assert summary(rank_scores(scores, own))["t2i_MRR"] == pytest.approx(theirs)
    documented(
        "Statistics",
        [peer("scikit-learn"), "`label_ranking_average_precision_score`"],
        "MRR of captions, pessimistic",
        "equal, ties too",
    )


def test_recall_is_scikit_learns_accuracy(peer: Any, documented: Callable[..., None]) -> None:
    scores, own = case(TITLES[0])
    ours = recall(rank_scores(scores, own))
    for k in others.KS:
        theirs = sklearn.metrics.top_k_accuracy_score(own, scores.T, k=k, labels=np.arange(len(scores)))
        assert ours[f"t2i_R@{k}"] == pytest.approx(100 * theirs)
    documented(
        "Statistics",
        [peer("scikit-learn"), "`top_k_accuracy_score`"],
        "R@k of captions",
        "equal without ties",
    )


def test_precision_is_that_of_trec_eval(peer: Any, documented: Callable[..., None]) -> None:
    name = peer("ir-measures")
    from ir_measures import Rprec, calc_aggregate

    for title in ("five captions an image", "one to seven captions an image"):
        scores, own = case(title)
        ours = graded_scores(scores, own)
        for side, lists, relevant in others.as_lists(scores, own):
            theirs = calc_aggregate([Rprec], relevant, lists)[Rprec]
            assert ours[f"{side}_R-Precision"] == pytest.approx(100 * theirs)
    documented("Statistics", [name, "`Rprec`"], "R-Precision both ways", "equal without ties")


def test_intervals_are_those_of_scipy(peer: Any, documented: Callable[..., None]) -> None:
    """Of images that bring one query each, the clustered bootstrap is the plain one; the draws differ."""
    scores, own = case(TITLES[0])
    metrics = metrics_of(rank_scores(scores, own))
    hits = metrics["i2t_R@1"].values
    theirs = scipy.stats.bootstrap(
        (hits,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    )
    ours = bootstrap({"i2t_R@1": metrics["i2t_R@1"]}, resamples=20_000)["i2t_R@1"]
    width = ours[1] - ours[0]
    assert width > 10
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=100 / len(hits) + 1e-9)
    documented(
        "Statistics",
        [peer("scipy"), '`bootstrap(method="percentile")`'],
        "interval of R@1 of images, 20,000 resamples",
        "equal to one image of sixty",
    )


def test_mcnemar_is_a_permutation_test(peer: Any, documented: Callable[..., None]) -> None:
    """Exact: of ten queries that one model alone finds, every way of swapping the models."""
    a, b = np.zeros((2, 30), bool)
    a[:8], b[8:10], a[10:20], b[10:20] = True, True, True, True
    some = a != b
    theirs = scipy.stats.permutation_test(
        (a[some].astype(float), b[some].astype(float)),
        lambda x, y, axis: (x - y).sum(axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert mcnemar(a, b)["p_mcnemar"] == pytest.approx(theirs.pvalue)
    documented(
        "Statistics", [peer("scipy"), "`permutation_test`, every swap"], "McNemar's exact test", "equal"
    )
