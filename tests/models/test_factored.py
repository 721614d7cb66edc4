"""The factored LXMERT against the plain forward pass of transformers, on padded batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LxmertConfig

from tiir.models.factored import (
    cross,
    cross_padded,
    encode_captions,
    encode_images,
    multiplications,
)
from tiir.models.lxmert import LxmertMatcher

TOLERANCE = 1e-4  # in float32, as the issue of exactness asks


def new_matcher(config: LxmertConfig, seed: int = 0, *, zero_shot: bool = False) -> LxmertMatcher:
    torch.manual_seed(seed)
    matcher = LxmertMatcher(config).eval()
    for parameter in matcher.parameters():  # the usual 0.02 would make every score alike
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 / parameter.shape[1] ** 0.5)
    matcher.cls, matcher.match_head = (matcher.cls, None) if zero_shot else (None, matcher.match_head)
    return matcher


def random_inputs(
    config: LxmertConfig, lengths: list[int], images: int, regions: int, seed: int = 0
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    captions = [torch.randint(1, config.vocab_size, (n,), generator=draw) for n in lengths]
    features = torch.rand(images, regions, config.visual_feat_dim, generator=draw)
    corners = torch.rand(images, regions, 2, 2, generator=draw).sort(dim=2).values  # (n, R, 2, 2)
    return captions, features, corners.flatten(2)


@torch.no_grad()
def plain(
    matcher: LxmertMatcher, captions: list[torch.Tensor], features: torch.Tensor, boxes: torch.Tensor
) -> torch.Tensor:
    """Every pair by the plain forward pass, captions padded: (images, captions)."""
    ids = torch.nn.utils.rnn.pad_sequence(captions, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(c) for c in captions], batch_first=True)
    n, m = len(features), len(ids)
    return torch.stack(
        [matcher(ids, mask, features[i].expand(m, -1, -1), boxes[i].expand(m, -1, -1)) for i in range(n)]
    )


@torch.no_grad()
def factored(
    matcher: LxmertMatcher, captions: list[torch.Tensor], features: torch.Tensor, boxes: torch.Tensor
) -> torch.Tensor:
    """Every pair by the factored model, one caption at a time and no padding."""
    images = encode_images(matcher.lxmert, features, boxes)
    rows = torch.arange(len(features))
    columns = []
    for caption in captions:
        side = encode_captions(matcher.lxmert, caption[None])
        columns.append(matcher.head(cross(matcher.lxmert, images, side, rows, torch.zeros_like(rows))))
    return torch.stack(columns, dim=1)


def padded(
    matcher: LxmertMatcher, ids: torch.Tensor, mask: torch.Tensor, features: torch.Tensor, boxes: torch.Tensor
) -> torch.Tensor:
    """Every pair by the factored model on padded captions, as training does it."""
    images, captions = (
        encode_images(matcher.lxmert, features, boxes),
        encode_captions(matcher.lxmert, ids, mask),
    )
    n, m = len(features), len(ids)
    rows, columns = torch.arange(n).repeat_interleave(m), torch.arange(m).repeat(n)
    return matcher.head(cross_padded(matcher.lxmert, images, captions, rows, columns, chunk=2)).view(n, m)


@pytest.mark.slow
def test_lxmert_base_equals_the_plain_forward() -> None:
    config = LxmertConfig(vocab_size=1000)
    matcher = new_matcher(config)
    inputs = random_inputs(config, [3, 9, 14, 14, 25, 40], images=3, regions=36)
    expected = plain(matcher, *inputs)
    assert expected.std() > 0.1
    assert torch.allclose(factored(matcher, *inputs), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_shape_equals_the_plain_forward(data: st.DataObject) -> None:
    draw = data.draw
    heads = draw(st.sampled_from([1, 2, 3, 4]))
    config = LxmertConfig(
        vocab_size=50,
        hidden_size=heads * draw(st.sampled_from([4, 8, 16])),
        num_attention_heads=heads,
        intermediate_size=draw(st.integers(8, 96)),
        max_position_embeddings=40,
        l_layers=draw(st.integers(0, 3)),
        r_layers=draw(st.integers(0, 3)),
        x_layers=draw(st.integers(1, 4)),
        visual_feat_dim=draw(st.integers(1, 24)),
        hidden_act=draw(st.sampled_from(["gelu", "relu"])),
    )
    seed = draw(st.integers(0, 2**16))
    matcher = new_matcher(config, seed, zero_shot=draw(st.booleans()))
    lengths = draw(st.lists(st.integers(3, 40), min_size=1, max_size=4))
    inputs = random_inputs(config, lengths, draw(st.integers(1, 3)), draw(st.integers(1, 50)), seed)
    expected = plain(matcher, *inputs)
    torch.testing.assert_close(factored(matcher, *inputs), expected, rtol=0, atol=TOLERANCE)
    ids = torch.nn.utils.rnn.pad_sequence(inputs[0], batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(c) for c in inputs[0]], batch_first=True)
    with torch.no_grad():
        grid = padded(matcher, ids, mask, *inputs[1:])
    torch.testing.assert_close(grid, expected, rtol=0, atol=TOLERANCE)


def test_gradients_equal_those_of_the_plain_forward() -> None:
    config = LxmertConfig(
        vocab_size=50, hidden_size=16, num_attention_heads=2, intermediate_size=32, max_position_embeddings=20,
        l_layers=1, r_layers=1, x_layers=2, visual_feat_dim=8,
    )  # fmt: skip
    matcher = new_matcher(config)
    captions, features, boxes = random_inputs(config, [4, 7, 7], images=2, regions=5)
    ids = torch.nn.utils.rnn.pad_sequence(captions, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(c) for c in captions], batch_first=True)
    weights = torch.randn(2, 3)
    found = []
    for fast in (False, True):
        matcher.zero_grad()
        scores = padded(matcher, ids, mask, features, boxes) if fast else torch.stack(
            [matcher(ids, mask, features[i].expand(3, -1, -1), boxes[i].expand(3, -1, -1)) for i in range(2)]
        )  # fmt: skip
        (scores * weights).sum().backward()
        found.append({name: p.grad.clone() for name, p in matcher.named_parameters() if p.grad is not None})
    # The plain pass also computes what has no part in the score: the last layer's vision half, and the bias of
    # keys, which a softmax does not see.
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, found[0][name], rtol=1e-3, atol=1e-4)
    unused = set(found[0]) - set(found[1])
    assert all(found[0][name].abs().max() < 1e-5 for name in unused)


def test_operations_are_counted_as_torch_counts_them() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = LxmertConfig(
        vocab_size=50, hidden_size=24, num_attention_heads=2, intermediate_size=96, max_position_embeddings=20,
        l_layers=2, r_layers=1, x_layers=3, visual_feat_dim=10,
    )  # fmt: skip
    for x_layers in (1, 3):
        config.x_layers = x_layers
        matcher = new_matcher(config)
        captions, features, boxes = random_inputs(config, [9], images=1, regions=7)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            matcher(captions[0][None], None, features, boxes)
        assert counter.get_total_flops() == 2 * multiplications(config, 9, 7, factored=False)
        with torch.no_grad():
            images, words = (
                encode_images(matcher.lxmert, features, boxes),
                encode_captions(matcher.lxmert, captions[0][None]),
            )
            with FlopCounterMode(display=False) as counter:
                matcher.head(cross(matcher.lxmert, images, words, torch.tensor([0]), torch.tensor([0])))
        counted = counter.get_total_flops()
        # The counter does not know the CPU's fused attention: its two products are added by hand.
        attention = 2 * 2 * 24 * ((x_layers - 1) * (2 * 9 * 7 + 9 * 9 + 7 * 7) + 9 * 7)
        expected = 2 * multiplications(config, 9, 7, factored=True)
        assert expected in (counted, counted + attention)


def test_dropout_is_that_of_the_plain_forward() -> None:
    """Dropped attention does not sum to one: the bias of the values is dropped with it, on average over many draws."""
    config = LxmertConfig(
        vocab_size=50, hidden_size=8, num_attention_heads=2, intermediate_size=8, max_position_embeddings=20,
        l_layers=0, r_layers=0, x_layers=1, visual_feat_dim=4, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.5,
    )  # fmt: skip
    matcher = new_matcher(config).train()
    with torch.no_grad():
        matcher.lxmert.encoder.x_layers[0].lang_self_att.self.value.bias.fill_(5.0)
        captions, features, boxes = random_inputs(config, [5], images=1, regions=3)
        many = captions[0].expand(3000, -1)
        mask = torch.ones_like(many)
        wide = features.expand(3000, -1, -1), boxes.expand(3000, -1, -1)
        plainly = matcher(many, mask, *wide)
        sides = encode_images(matcher.lxmert, *wide), encode_captions(matcher.lxmert, many, mask)
        rows = torch.arange(3000)
        ours = matcher.head(cross(matcher.lxmert, *sides, rows, rows))
    assert ours.std() == pytest.approx(plainly.std().item(), rel=0.1)
    assert ours.mean() == pytest.approx(plainly.mean().item(), abs=0.1 * plainly.std().item())
