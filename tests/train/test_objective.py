from __future__ import annotations

import numpy as np
import pytest
import torch

from tiir.models.lxmert import load_matcher
from tiir.models.scratch import new_lxmert
from tiir.train.losses import binary_loss, hinge_loss, infonce_loss
from tiir.train.negatives import TruePairs
from tiir.train.objective import Matching, _rivals
from tiir.train.pairs import Turns
from tiir.train.regions import BinaryPairs, ContrastivePairs, RegionCollator, Tokens

SMALL = {"width": 32, "heads": 2, "language_layers": 1, "vision_layers": 1, "cross_layers": 2}


@pytest.fixture(scope="module")
def world(scene_regions, tmp_path_factory):
    """A matcher with weights large enough to disagree, and what makes batches for it."""
    data, features = scene_regions
    out = tmp_path_factory.mktemp("matcher")
    new_lxmert(data.captions, out, feature_width=features.width, **SMALL)
    matcher, tokenizer = load_matcher(str(out))
    with torch.no_grad():
        for weight in matcher.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
    true = TruePairs(data)
    collator = RegionCollator(data, features, Tokens(tokenizer, data.captions, 48), true)
    return data, matcher.eval(), collator, true


def contrastive_batch(world):
    data, _, collator, true = world
    pairs = ContrastivePairs(data, true, Turns(data, captions=2))
    return collator([pairs[item] for item in (3, 50, 7, 90)])


def grid(matcher, batch):
    """The plain forward pass of every image with every caption."""
    n, m = len(batch["regions"]), len(batch["input_ids"])
    image, caption = torch.arange(n).repeat_interleave(m), torch.arange(m).repeat(n)
    words, parts = ("input_ids", "attention_mask"), ("regions", "boxes")
    return matcher(*(batch[key][caption] for key in words), *(batch[key][image] for key in parts)).view(n, m)


def test_the_contrastive_objective_is_the_loss_of_the_grid(world, lxmert_config):
    batch, matcher = contrastive_batch(world), world[1]
    scores = grid(matcher, batch)
    assert scores.std() > 1e-3
    owner, true = batch["owner"], batch["true"]
    hinge = Matching(matcher, lxmert_config(margin=0.3, top_violations=2))(**batch)
    assert torch.allclose(hinge, hinge_loss(scores, owner, margin=0.3, top=2, true=true), atol=1e-5)
    infonce = Matching(matcher, lxmert_config(loss="infonce", scale=3.0))(**batch)
    assert torch.allclose(infonce, infonce_loss(scores, owner, scale=3.0, true=true), atol=1e-5)


def test_the_binary_objective_is_the_loss_of_the_plain_forward_pass(world, monkeypatch, lxmert_config):
    data, matcher, collator, true = world
    pairs = BinaryPairs(data, true, Turns(data, captions=2))
    batch = collator([pairs[item] for item in (3, 50, 7, 90)])
    image, caption = batch["image"], batch["caption"]
    plain = matcher(
        batch["input_ids"][caption],
        batch["attention_mask"][caption],
        batch["regions"][image],
        batch["boxes"][image],
    )
    monkeypatch.setattr("tiir.train.objective.CHUNK", 3)  # several, with captions of several lengths
    loss = Matching(matcher, lxmert_config(objective="binary"))(**batch)
    assert torch.allclose(loss, binary_loss(plain, batch["matched"]), atol=1e-5)


def test_with_enough_rivals_it_is_the_whole_block(world, lxmert_config):
    batch, matcher = contrastive_batch(world), world[1]
    torch.manual_seed(0)
    few = Matching(matcher, lxmert_config(loss="infonce", rivals=50, align=1.0))
    whole = Matching(matcher, lxmert_config(loss="infonce", align=1.0))
    whole.load_state_dict(few.state_dict())
    assert torch.allclose(few(**batch), whole(**batch), atol=1e-5)


def test_rivals_are_scored_and_the_layers_below_are_aligned(world, lxmert_config):
    batch, matcher = contrastive_batch(world), world[1]
    module = Matching(matcher, lxmert_config(rivals=1, align=1.0))
    counted = []
    module._score = lambda *args, real=module._score: counted.append(len(args[2])) or real(*args)
    module(**batch).backward()
    assert 8 + 4 <= counted[0] <= 8 + 8 + 4  # the true pairs, one image a caption, one caption an image
    assert module.project_image.weight.grad.abs().sum() > 0
    matcher.zero_grad()


def test_the_temperature_comes_back_from_its_limit(world, lxmert_config):
    batch, matcher = contrastive_batch(world), world[1]
    module = Matching(matcher, lxmert_config(rivals=1, align=1.0))
    module.log_scale.data.fill_(9.0)
    module(**batch).backward()
    assert module.log_scale.exp().item() == pytest.approx(100)
    assert module.log_scale.grad.abs() > 0
    matcher.zero_grad()


def test_rivals_are_negatives_and_mostly_the_close_ones():
    torch.manual_seed(0)
    owner = torch.tensor([0, 0, 1, 2])
    true = torch.zeros(3, 4, dtype=torch.bool)
    true[owner, torch.arange(4)] = True
    true[2, 2] = True  # the same text
    close = torch.zeros(3, 4)
    close[1, 0] = close[0, 3] = 8.0
    hits = torch.zeros(3, 4)
    for _ in range(200):
        wanted = _rivals(close, owner, true, 1)
        assert wanted[owner, torch.arange(4)].all()
        assert not wanted[2, 2]
        hits += wanted
    assert hits[1, 0] > 190
    assert hits[0, 3] > 190
    assert hits[2, 1] < 190
    everything = _rivals(close, owner, true, 9)
    assert everything.tolist() == (~true | wanted & true).tolist()


def test_captions_whose_image_is_elsewhere_do_not_align(world, lxmert_config):
    _, matcher, collator, _ = world
    rows = [[(4, 20, True), (4, 799, False)], [(9, 45, True)]]
    batch = collator(rows)
    module = Matching(matcher, lxmert_config(objective="binary", align=1.0))
    at_home = {**batch, "owner": torch.tensor([0, 1, 0])}
    assert batch["owner"].tolist() == [0, 1, -1]
    assert torch.isfinite(module(**batch))
    assert not torch.allclose(module(**batch), module(**at_home))


def test_scores_are_float32_under_autocast(world, lxmert_config):
    batch, matcher = contrastive_batch(world), world[1]
    plain = Matching(matcher, lxmert_config())(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = Matching(matcher, lxmert_config())(**batch)
    assert rough.dtype == torch.float32
    assert np.isclose(rough.item(), plain.item(), rtol=0.1)
