"""Recall against the tools that other people quote: equal where scores are distinct, and what each makes of ties."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import numpy as np
import pytest
from tests.peers import others

from tiir.metrics import rank_scores, recall
from tiir.metrics.ranks import Ties

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:failed to import `ujson`")]
ROUNDED = {"mteb": 5e-4}  # it rounds rates to five digits


def case(name: str) -> tuple[Any, Any]:
    """float32 scores of 60 images and their captions, and the image of each caption, in no order."""
    draw = np.random.default_rng(0)
    per_image = np.full(60, 5) if name != "one to seven captions an image" else 1 + np.arange(60) % 7
    own = draw.permutation(np.repeat(np.arange(60), per_image))
    scores = draw.standard_normal((60, len(own)), dtype=np.float32)
    scores[own, np.arange(len(own))] += 1
    if name == "rounded to 0.5":
        return (2 * scores).round() / 2, own
    return scores.ravel().argsort().argsort().reshape(scores.shape).astype(np.float32), own  # all distinct


@pytest.mark.parametrize("tool", others.TOOLS)
def test_distinct_scores_give_the_same_recall(tool: str, peer: Any, documented: Callable[..., None]) -> None:
    name, largest = peer(tool), 0.0
    for title in ("five captions an image", "one to seven captions an image"):
        scores, own = case(title)
        ours, theirs = recall(rank_scores(scores, own)), others.TOOLS[tool](scores, own)
        assert {*theirs, "rsum"} == {*ours}
        assert 5 < ours["t2i_R@1"] < 50  # neither nothing nor everything is found
        largest = max(largest, *(abs(ours[key] - theirs[key]) for key in theirs))
    assert largest <= ROUNDED.get(tool, 1e-9)
    documented(
        "Recall",
        [name, CALLED[tool]],
        "equal" if tool not in ROUNDED else "equal to the five digits it gives",
    )


CALLED = {
    "clip-benchmark": "`recall_at_k` > 0",
    "mteb": "`hit_rate`",
    "ranx": "`hit_rate@k`",
    "ir-measures": "`Success@k`",
    "torchmetrics": "`retrieval_hit_rate`",
    "eccv-caption": "`compute_r_at_k`",
}


@pytest.mark.parametrize("tool", others.TOOLS)
def test_ties_are_bracketed_by_our_two_rules(tool: str, peer: Any) -> None:
    peer(tool)
    scores, own = case("rounded to 0.5")
    low, high = (recall(rank_scores(scores, own, ties=ties)) for ties in ("pessimistic", "optimistic"))
    assert high["t2i_R@1"] - low["t2i_R@1"] > 5
    theirs = others.TOOLS[tool](scores, own)
    slack = ROUNDED.get(tool, 1e-9)
    assert all(low[key] - slack <= theirs[key] <= high[key] + slack for key in theirs)


def rank(scores: Any, own: Any, ties: Any = "pessimistic") -> dict[str, float]:
    return recall(rank_scores(scores, own, ties=ties))


def first(tool: Callable[[Any, Any], dict[str, float]], scores: Any, own: Any) -> str:
    """How many of the 19 captions whose positive ties find it first; the twentieth has no tie."""
    return f"{len(own) * tool(scores, own)['t2i_R@1'] / 100 - 1:g}"


# Twenty images with a caption each. Positives tie with the next image, or with the one before.
TIED = [(np.eye(20, dtype=np.float32) + np.eye(20, k=k, dtype=np.float32), np.arange(20)) for k in (-1, 1)]
OUR_RULES = {
    "pessimistic": "the wrong one comes first, wherever it lies",
    "optimistic": "the right one comes first",
    "expected": "the mean over all orders",
}
RULES = {
    "clip-benchmark": "as `torch.topk` happens to leave them",
    "mteb": "the greater id first, as text",
    "ranx": "as its sort, which is not stable, happens to leave them",
    "ir-measures": "the greater id first, as text",
    "torchmetrics": "as `torch.argsort` happens to leave them",
    "eccv-caption": "none: it is given lists in order, here by a stable sort",
}


def test_open_clip_equals_where_an_image_has_one_caption(peer: Any, documented: Callable[..., None]) -> None:
    name = peer("open-clip-torch")
    draw = np.random.default_rng(0)
    images = draw.standard_normal((200, 32), dtype=np.float32)
    texts = images + draw.standard_normal((200, 32), dtype=np.float32) * 3
    scores = images @ texts.T
    ours, theirs = recall(rank_scores(scores, np.arange(200))), others.open_clip(images, texts)
    assert 5 < ours["t2i_R@1"] < 95
    assert theirs == pytest.approx({key: ours[key] for key in theirs})
    documented("Recall", [name, "`get_clip_metrics`"], "equal; one caption an image only")
    with pytest.raises(RuntimeError, match="size of tensor"):
        others.open_clip(images, np.repeat(texts, 5, axis=0))


def test_what_each_makes_of_ties(documented: Callable[..., None]) -> None:
    for ties in get_args(Ties):
        documented(
            "Ties",
            [f"tiir, {ties}"],
            *(first(partial(rank, ties=ties), *one) for one in TIED),
            OUR_RULES[ties],
        )


@pytest.mark.parametrize("tool", RULES)
def test_what_the_others_make_of_ties(tool: str, peer: Any, documented: Callable[..., None]) -> None:
    documented("Ties", [peer(tool)], *(first(others.TOOLS[tool], *one) for one in TIED), RULES[tool])


@pytest.mark.parametrize("tool", ["mteb", "ranx", "ir-measures"])
def test_what_ids_make_of_ties(tool: str, peer: Any, documented: Callable[..., None]) -> None:
    """The same scores under ids that sort the other way round."""
    name = peer(tool)
    read = {"mteb": others.mteb, "ranx": others.ranx, "ir-measures": others.ir_measures}[tool]
    ids = others.names("i", 20)[::-1]
    found = [first(lambda s, o: read(others.as_lists(s, o, images=ids)), *one) for one in TIED]
    documented("Ties", [f"{name}, ids reversed"], *found, RULES[tool])


def test_recall_of_lists_is_the_share_of_positives(peer: Any, documented: Callable[..., None]) -> None:
    """With five positives an image, the information retrieval recall is not the field's R@k."""
    name = peer("mteb")
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores

    scores, own = case("five captions an image")
    _, lists, relevant = next(others.as_lists(scores, own))
    theirs = 100 * calculate_retrieval_scores(lists, relevant, [10]).recall["Recall@10"]
    documented(
        "Cases that differ",
        [name, "`recall_at_10` of images with five captions"],
        f"{rank(scores, own)['i2t_R@10']:.2f}",
        f"{theirs:.2f}",
        "the share of the positives found; tiir's R@k and `hit_rate` ask for any. `R@10` of ir_measures and "
        "`recall@10` of ranx are shares, too",
    )


def test_trec_eval_compares_in_float32(peer: Any, documented: Callable[..., None]) -> None:
    name = peer("ir-measures")
    scores = np.array([[1 + 1e-12], [1.0]])  # the positive is the first, and i00001 the greater id
    theirs = others.ir_measures(
        ("t2i", lists, {"c00000": {"i00000": 1}}) for _, lists, _ in list(others.as_lists(scores, [0]))[1:]
    )
    ours = recall(rank_scores(scores, np.array([0]), empty="exclude"))
    documented(
        "Cases that differ",
        [name, "scores 1e-12 apart, R@1"],
        f"{ours['t2i_R@1']:.0f}",
        f"{theirs['t2i_R@1']:.0f}",
        "trec_eval rounds scores to float32, where they tie; mteb, which calls it, too",
    )


def test_torchmetrics_recall_drops_scores_that_are_not_positive(
    peer: Any, documented: Callable[..., None]
) -> None:
    name = peer("torchmetrics")
    import torch
    from torchmetrics.functional.retrieval import retrieval_recall

    scores = np.array([[-1.0], [-2.0]])
    theirs = retrieval_recall(torch.tensor(scores[:, 0]), torch.tensor([True, False]), top_k=1)
    ours = recall(rank_scores(scores, np.array([0]), empty="exclude"))
    documented(
        "Cases that differ",
        [name, "`retrieval_recall` of logits below 0, R@1"],
        f"{ours['t2i_R@1']:.0f}",
        f"{100 * theirs:.0f}",
        "candidates that score 0 or less never count as found",
    )
