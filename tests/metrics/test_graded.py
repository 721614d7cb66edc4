from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiir.data.protocols import resolve
from tiir.errors import RanksError
from tiir.metrics import evaluate, graded_embeddings, graded_run, graded_scores, rank_run, recall


def average_precision(row: Any, own: Any, pessimistic: bool) -> tuple[float, float]:
    """AP@R and R-Precision of one query, by sorting everything."""
    order = sorted(range(len(row)), key=lambda j: (-row[j], bool(own[j]) == pessimistic))
    r = int(sum(own))
    hits = [bool(own[j]) for j in order[:r]]
    return sum(sum(hits[: p + 1]) / (p + 1) for p in range(r) if hits[p]) / r, sum(hits) / r


def oracle(scores: Any, relevant: Any, pessimistic: bool) -> dict[str, float]:
    found = {}
    for side, s, own in (("i2t", scores, relevant), ("t2i", scores.T, relevant.T)):
        each = [average_precision(a, b, pessimistic) for a, b in zip(s, own, strict=True) if b.any()]
        found[f"{side}_mAP@R"], found[f"{side}_R-Precision"] = 100 * np.mean(each, axis=0)
    return found


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 30),
    st.integers(1, 20),
    st.sampled_from([0.05, 0.3, 1.0]),
    st.sampled_from(["gauss", "signs", "nearly equal"]),
    st.sampled_from(["pessimistic", "optimistic"]),
    st.integers(0, 2**32 - 1),
)
def test_against_sorting(n_images, n_captions, d, share, kind, ties, seed):
    rng = np.random.default_rng(seed)
    images, texts = rng.standard_normal((n_images, d)), rng.standard_normal((n_captions, d))
    if kind == "signs":
        images, texts = np.sign(images), np.sign(texts)
    if kind == "nearly equal":
        images, texts = 1 + 1e-7 * images, 1 + 1e-7 * texts[rng.integers(n_captions, size=n_captions)]
    relevant = rng.random((n_images, n_captions)) < share
    relevant[0, 0] = True
    exact = np.array([(image * texts).sum(1) for image in images])
    want = oracle(exact, relevant, ties == "pessimistic")
    assert graded_embeddings(images, texts, relevant, ties=ties) == pytest.approx(want)
    assert graded_scores(exact, relevant, ties=ties) == pytest.approx(want)


def test_constant_scores_give_no_credit():
    relevant = np.zeros((5, 40), bool)
    relevant[:, :5] = True
    assert graded_embeddings(np.ones((5, 3)), np.ones((40, 3)), relevant)["i2t_mAP@R"] == 0


def test_refusals():
    with pytest.raises(RanksError, match="expected"):
        graded_scores(np.eye(3), np.arange(3), ties="expected")
    scores = np.eye(3)
    scores[1, 2] = np.nan
    with pytest.raises(RanksError, match="query 1 has no score for candidate 2: it is nan"):
        graded_scores(scores, np.arange(3))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:failed to import `ujson`", "ignore:failed to import `tqdm`")
def test_eccv_and_cxc_equal_the_package_on_long_lists(coco, load_run):
    """The package's own code, given every query's first 200 candidates, on the gallery of its example."""
    eccv_caption = pytest.importorskip("eccv_caption")
    run = load_run("coco5k-minilm-standin", coco)
    metrics = eccv_caption.Metrics()
    (gallery,) = resolve("eccv", coco)
    assert {coco.caption_ids[c] for c in gallery.captions} == {str(key) for key in metrics.coco_ids}
    scores = run.image_embeds.astype(np.float64) @ run.text_embeds[gallery.captions].astype(np.float64).T
    image_ids = np.array([int(key) for key in coco.image_ids])
    caption_ids = np.array([int(coco.caption_ids[c]) for c in gallery.captions])

    def lists(matrix: Any, rows: Any, columns: Any) -> dict[int, list[int]]:
        found = {}
        for key, row in zip(rows, matrix, strict=True):
            some = np.argpartition(row, -200)[-200:]
            found[int(key)] = columns[some[np.argsort(-row[some])]].tolist()
        return found

    i2t, t2i = lists(scores, image_ids, caption_ids), lists(scores.T, caption_ids, image_ids)
    warned = evaluate(run, coco, "eccv", ties="expected", resamples=0)
    assert not any("mAP@R" in name for name in warned.values)
    assert any("not defined for expected ties" in warning for warning in warned.warnings)
    eccv = graded_run(run, coco, (gallery,), ties="optimistic")
    for key, ours in (("eccv_map_at_r", "mAP@R"), ("eccv_rprecision", "R-Precision")):
        theirs = metrics.eccv_metrics({"i2t": i2t, "t2i": t2i}, "all")[key]
        for side in ("i2t", "t2i"):
            # Ties go by position there, and two of its positives are not in its own gallery.
            assert eccv[f"{side}_{ours}"].value == pytest.approx(100 * theirs[side], abs=0.05)
    assert len(eccv["i2t_mAP@R"].values) == 1261
    assert len(eccv["t2i_mAP@R"].values) == 1332
    for protocol, function in (("eccv", metrics.eccv_recalls), ("cxc", metrics.cxc_recalls)):
        low, high = (
            recall(rank_run(run, coco, protocol, ties=ties)) for ties in ("pessimistic", "optimistic")
        )
        for k in (1, 5, 10):
            theirs = function({"i2t": i2t, "t2i": t2i}, "all", K=k)
            for side in ("i2t", "t2i"):
                name = f"{side}_R@{k}"
                assert low[name] - 1e-9 <= 100 * theirs[side] <= high[name] + 1e-9
