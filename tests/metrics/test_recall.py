from __future__ import annotations

import numpy as np
import pytest

from tiir.errors import RanksError
from tiir.metrics import metrics_of, rank_run, rank_scores, recall, summary
from tiir.metrics.recall import RSUM


def test_by_hand():
    # Places of the best positive: images 1 and 3, captions 1, 2, 2 and 1.
    scores = np.array([[0.9, 0.8, 0.1, 0.2], [0.5, 0.95, 0.4, 0.3]])
    found = rank_scores(scores, np.array([0, 0, 0, 1]))
    assert found.i2t.tolist() == [1, 4]
    assert found.t2i.tolist() == [1, 2, 2, 1]
    values = recall(found)
    assert values["i2t_R@1"] == 50
    assert values["i2t_R@5"] == 100
    assert values["t2i_R@1"] == 50
    assert values["rsum"] == 50 + 100 + 100 + 50 + 100 + 100
    assert list(values) == [*RSUM, "rsum"]
    assert summary(found) == {
        "i2t_median_rank": 2.5,
        "i2t_mean_rank": 2.5,
        "i2t_MRR": (1 + 1 / 4) / 2,
        "t2i_median_rank": 1.5,
        "t2i_mean_rank": 1.5,
        "t2i_MRR": 0.75,
    }


def test_other_cut_offs():
    found = rank_scores(np.eye(3), np.arange(3))
    assert recall(found, ks=(3,)) == {"i2t_R@3": 100, "t2i_R@3": 100}
    for ks in ((), (0,), (1.5,), (-1, 5)):
        with pytest.raises(RanksError, match="positive integers"):
            recall(found, ks=ks)


def test_expected_recall_is_the_mean_over_random_orders():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 3, size=(12, 36)).astype(np.float32)
    own = np.repeat(np.arange(12), 3)
    values = recall(rank_scores(scores, own, ties="expected"))
    shuffled = [
        recall(rank_scores(scores + 0.01 * rng.random(scores.shape), own, ties="pessimistic"))
        for _ in range(600)
    ]
    for name, value in values.items():
        drawn = [one[name] for one in shuffled]
        assert value == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(600) + 1e-9)


def test_folds_are_averaged_not_pooled():
    from tiir.data.dataset import Dataset
    from tiir.data.protocols import resolve
    from tiir.scoring.run import Run, RunInfo

    # Two folds of 1 and 3 images: hits of the first count for a half, not for a quarter.
    data = Dataset("d", "test", list("abcd"), list("wxyz"), ["t"] * 4, np.arange(4))
    scores = np.ones((4, 4), np.float32) + np.eye(4, dtype=np.float32) * [1, 0, 0, 0]
    run = Run(RunInfo.about(data, "d", "m"), scores=scores)
    folds = resolve("own", data, keys=["a"]) + resolve("own", data, keys=["b", "c", "d"])
    found = rank_run(run, data, folds)
    assert found.n_folds == 2
    assert "2 folds" in repr(found)
    assert recall(found)["i2t_R@1"] == 50
    assert metrics_of(found)["i2t_median_rank"].value == (1 + 3) / 2
