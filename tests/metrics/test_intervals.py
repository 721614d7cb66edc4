from __future__ import annotations

import numpy as np
import pytest

from tiir.errors import RanksError
from tiir.metrics import Metric, bootstrap, intervals, metrics_of, rank_scores, resample


def noisy(seed: int, n: int = 60, captions: int = 5) -> dict[str, Metric]:
    rng = np.random.default_rng(seed)
    own = np.repeat(np.arange(n), captions)
    images = rng.standard_normal((n, 8))
    texts = images[own] + 1.5 * rng.standard_normal((n * captions, 8))
    return metrics_of(rank_scores(images @ texts.T, own))


def folded(metrics: dict[str, Metric], folds: int) -> dict[str, Metric]:
    return {name: Metric(m.values, m.image, m.image % folds, m.kind) for name, m in metrics.items()}


@pytest.mark.parametrize("folds", [1, 3])
def test_equals_a_plain_loop(folds):
    metrics, resamples = folded(noisy(0), folds), 150
    want = {name: np.zeros(resamples) for name in metrics}
    for fold in range(folds):
        rng = np.random.default_rng([7, fold])
        images = np.unique(metrics["i2t_R@1"].image[metrics["i2t_R@1"].fold == fold])
        for b in range(resamples):
            drawn = images[rng.integers(len(images), size=len(images))]
            for name, metric in metrics.items():
                values = np.concatenate([metric.values[metric.image == image] for image in drawn])
                want[name][b] += getattr(np, metric.kind)(values) / folds
    found = resample(metrics, resamples=resamples, seed=7)
    for name, values in want.items():
        np.testing.assert_allclose(found[name], values, err_msg=name)
    np.testing.assert_allclose(
        found["rsum"], sum(v for name, v in want.items() if "_R@" in name), err_msg="rsum"
    )


def test_same_seed_same_interval():
    metrics = noisy(1)
    assert bootstrap(metrics, seed=3) == bootstrap(metrics, seed=3)
    assert bootstrap(metrics, seed=3) != bootstrap(metrics, seed=4)


def test_draws_do_not_depend_on_how_many_are_held(monkeypatch):
    metrics = noisy(1)
    want = resample(metrics, resamples=100)
    monkeypatch.setattr(intervals, "DRAWS", 200)  # three resamples of 60 images at a time
    for name, values in resample(metrics, resamples=100).items():
        np.testing.assert_allclose(values, want[name], rtol=1e-12, err_msg=name)  # a product of another shape


def test_intervals_surround_the_value_and_shrink():
    small, large = noisy(2, n=40), noisy(2, n=640)
    for metrics in (small, large):
        for name, (low, high) in bootstrap(metrics).items():
            if name != "rsum":
                assert low <= metrics[name].value <= high, name

    def relative(metrics: dict[str, Metric]) -> float:
        low, high = bootstrap(metrics)["t2i_MRR"]
        return (high - low) / metrics["t2i_MRR"].value

    assert relative(large) < relative(small)


def test_captions_of_an_image_go_together():
    # Five captions that are all right or all wrong carry the information of one.
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(400), 5)
    values = 100.0 * (rng.random(400) < 0.5)[image]
    zeros = np.zeros(2000, int)
    together = bootstrap({"m": Metric(values, image, zeros)})["m"]
    apart = bootstrap({"m": Metric(values, np.arange(2000), zeros)})["m"]
    ratio = (together[1] - together[0]) / (apart[1] - apart[0])
    assert ratio == pytest.approx(np.sqrt(5), rel=0.15)


@pytest.mark.slow
def test_coverage():
    # Images differ in how hard they are; 95% intervals must hold the true mean about 95% of the time.
    rng = np.random.default_rng(0)
    covered, trials = 0, 400
    image, zeros = np.repeat(np.arange(150), 5), np.zeros(750, int)
    for _ in range(trials):
        ease = rng.beta(1, 1, size=150)
        values = 100.0 * (rng.random(750) < ease[image])
        low, high = bootstrap({"m": Metric(values, image, zeros)}, resamples=400)["m"]
        covered += low <= 50 <= high
    assert 0.915 <= covered / trials <= 0.98


def test_resamples_without_a_query_are_left_out():
    # Nine images of which only the first is a query: many draws lack it.
    one = Metric(np.array([40.0]), np.array([0]), np.array([0]))
    many = Metric(np.arange(9.0), np.arange(9), np.zeros(9, int))
    assert bootstrap({"one": one, "many": many})["one"] == (40, 40)
    median = Metric(one.values, one.image, one.fold, "median")
    assert bootstrap({"one": median, "many": many})["one"] == (40, 40)


def test_refusals():
    with pytest.raises(RanksError, match="resamples=0"):
        bootstrap(noisy(0), resamples=0)
    with pytest.raises(RanksError, match="level=95"):
        bootstrap(noisy(0), level=95)
