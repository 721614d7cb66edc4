from __future__ import annotations

import pytest

from tiir.metrics import check, published
from tiir.metrics.published import PUBLISHED
from tiir.metrics.recall import RSUM

CLIP = "openai/clip-vit-base-patch32"


def test_numbers_are_complete_and_ordered():
    for (model, protocol), values in PUBLISHED.items():
        if protocol.startswith("coco"):
            assert set(values) == set(RSUM), model
            for side in ("i2t", "t2i"):
                assert values[f"{side}_R@1"] < values[f"{side}_R@5"] < values[f"{side}_R@10"]
                assert values["i2t_R@1"] > values["t2i_R@1"]


def test_a_number_far_off_is_named():
    good = dict(published(CLIP, "coco-5k"))
    assert check(CLIP, "coco-5k", {name: value + 1.4 for name, value in good.items()}) == []
    (warning,) = check(CLIP, "coco-5k", good | {"t2i_R@5": 26.1})
    assert "t2i_R@5 is 26.10, published 55.94 (-29.84)" in warning
    assert "i2t_R@1" not in warning
    assert "negatives" in warning


@pytest.mark.parametrize(
    ("model", "protocol"), [("someone/else", "coco-5k"), (CLIP, "own"), (CLIP, "coco-1k-subset")]
)
def test_nothing_is_said_where_nothing_is_known(model, protocol):
    assert check(model, protocol, {"i2t_R@1": 0.0}) == []


def test_ids_are_read_as_the_hub_writes_them():
    assert published("OpenAI/CLIP-ViT-Base-Patch32/", "coco-5k") == published(CLIP, "coco-5k")
