"""LXMERT's forward pass, factored: what sees one side is computed once for it, only the rest once for a pair.

LXMERT (Tan and Bansal 2019, arXiv:1908.07490) has language and vision layers that each see one side, and few cross
layers that see both. So the first cross layer's queries, keys and values are projected once for a caption and once for
an image, and of the last cross layer only what [CLS] needs is computed. The result is that of the plain forward
pass, up to float rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Side", "cross", "cross_padded", "encode_captions", "encode_images", "multiplications"]


@dataclass(frozen=True)
class Side:
    """Images or captions, ready for the cross layers.

    Args:
        states: (n, S, h) after the layers that see this side only; S regions or tokens.
        queries, keys, values: (n, heads, S, d) of the first cross layer.
        mask: bool (n, 1, 1, S), False at padding; None where there is none.
    """

    states: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor | None = None

    def first(self, length: int) -> Side:
        """Without what stands behind the first `length` tokens."""
        return Side(
            self.states[:, :length],
            self.queries[:, :, :length],
            self.keys[:, :, :length],
            self.values[:, :, :length],
            None if self.mask is None else self.mask[..., :length],
        )


def encode_captions(model: Any, input_ids: Tensor, attention_mask: Tensor | None = None) -> Side:
    """The language layers.

    Args:
        model: a transformers LxmertModel.
        input_ids: (m, T).
        attention_mask: (m, T), 0 at padding; None where nothing is padded.
    """
    mask = None if attention_mask is None else attention_mask.bool()[:, None, None, :]  # (m, 1, 1, T)
    # LxmertEmbeddings fails without token types.
    states = model.embeddings(input_ids, torch.zeros_like(input_ids))  # (m, T, h)
    for layer in model.encoder.layer:
        states = _layer(layer, states, mask)
    return Side(states, *_project(model.encoder.x_layers[0].visual_attention.att, states, states), mask)


def encode_images(model: Any, regions: Tensor, boxes: Tensor) -> Side:
    """The vision layers.

    Args:
        model: a transformers LxmertModel.
        regions: (n, R, D) features.
        boxes: (n, R, 4) normalised x1 y1 x2 y2.
    """
    states = model.encoder.visn_fc(regions, boxes)  # (n, R, h)
    for layer in model.encoder.r_layers:
        states = _layer(layer, states)
    return Side(states, *_project(model.encoder.x_layers[0].visual_attention.att, states, states))


def cross(model: Any, images: Side, captions: Side, rows: Tensor, columns: Tensor) -> Tensor:
    """The cross layers over pairs.

    Args:
        model: a transformers LxmertModel.
        images, captions: encoded.
        rows, columns: (p,) the image and the caption of each pair.

    Returns:
        The pooled output that the heads read, (p, h).
    """
    *layers, last = model.encoder.x_layers
    mask = None if captions.mask is None else captions.mask[columns]
    words, word_q = captions.states[columns], captions.queries[columns]  # (p, T, h), (p, heads, T, d)
    part_k, part_v = images.keys[rows], images.values[rows]  # (p, heads, R, d)
    if layers:
        parts, part_q = images.states[rows], images.queries[rows]  # (p, R, h), (p, heads, R, d)
        word_k, word_v = captions.keys[columns], captions.values[columns]
    for n, layer in enumerate(layers):
        mutual = layer.visual_attention  # one set of weights for both directions
        if n:
            word_q, word_k, word_v = _project(mutual.att, words, words)
            part_q, part_k, part_v = _project(mutual.att, parts, parts)
        words_seen = mutual.output(_attend(mutual.att, word_q, part_k, part_v), words)
        parts_seen = mutual.output(_attend(mutual.att, part_q, word_k, word_v, mask), parts)
        words = _self_attention(layer.lang_self_att, words_seen, mask)
        parts = _self_attention(layer.visn_self_att, parts_seen)
        words = layer.lang_output(layer.lang_inter(words), words)
        parts = layer.visn_output(layer.visn_inter(parts), parts)
    mutual = last.visual_attention
    if layers:
        word_q, part_k, part_v = _project(mutual.att, words, parts)
    words = mutual.output(_attend(mutual.att, word_q, part_k, part_v), words)
    first = _first_self_attention(last.lang_self_att, words, mask)  # (p, 1, h)
    pooled: Tensor = model.pooler(last.lang_output(last.lang_inter(first), first))  # (p, h)
    return pooled


def cross_padded(
    model: Any, images: Side, captions: Side, rows: Tensor, columns: Tensor, *, chunk: int
) -> Tensor:
    """As `cross`, for captions with padding: pairs of similar length go together, without most of the padding.

    Args:
        model, images, captions, rows, columns: see `cross`; the captions have a mask.
        chunk: pairs that go together.
    """
    assert captions.mask is not None
    lengths = captions.mask.sum((1, 2, 3))[columns].cpu()  # (p,)
    lengths, order = lengths.sort(stable=True)
    pooled = []
    for part, sizes in zip(torch.split(order, chunk), torch.split(lengths, chunk), strict=True):
        here = part.to(columns.device)
        pooled.append(cross(model, images, captions.first(int(sizes[-1])), rows[here], columns[here]))
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    return torch.cat(pooled)[back.to(columns.device)]


def multiplications(config: Any, tokens: int, regions: int, *, factored: bool) -> int:
    """Multiply-adds of one pair, matrix products only.

    Args:
        config: a transformers LxmertConfig.
        tokens: of the caption, padding included.
        regions: of the image.
        factored: count only what is done once for each pair; otherwise the plain forward pass.

    Example:
        >>> from transformers import LxmertConfig
        >>> base = LxmertConfig()
        >>> plain, ours = (multiplications(base, 14, 36, factored=f) for f in (False, True))
        >>> f"{plain / ours:.2f}"
        '2.45'
    """
    h, inner = int(config.hidden_size), int(config.intermediate_size)
    t, r = tokens, regions
    ffn = 2 * h * inner  # of one token

    def attention(queries: int, keys: int) -> int:  # the two products without projections
        return 2 * queries * keys * h

    def alone(n: int) -> int:  # a layer over one side
        return n * (4 * h * h + ffn) + attention(n, n)

    def both() -> int:  # a whole cross layer
        return (t + r) * 4 * h * h + 2 * attention(t, r) + alone(t) + alone(r)

    head = h * h + 2 * h * h + 2 * h
    layers = int(config.x_layers)
    if not factored:
        side: int = config.l_layers * alone(t) + config.r_layers * alone(r)
        total: int = side + r * (config.visual_feat_dim + 4) * h + layers * both() + head
        return total
    last = (t * 2 + r * 2) * h * h + attention(t, r)  # words look at parts
    # [CLS] looks at words; its heads work in the whole width
    last += 4 * h * h + int(config.num_attention_heads) * attention(1, t) + ffn
    projected = (t + 2 * r if layers == 1 else 3 * (t + r)) * h * h  # the first layer's, done already
    return (layers - 1) * both() + last - projected + head


def _project(attention: Any, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    heads = attention.num_attention_heads

    def split(x: Tensor) -> Tensor:
        n, s, h = x.shape
        return x.view(n, s, heads, h // heads).transpose(1, 2)  # (n, heads, S, d)

    return split(attention.query(queries)), split(attention.key(keys)), split(attention.value(keys))


def _attend(
    attention: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
) -> Tensor:
    dropout = attention.dropout.p if attention.training else 0.0
    seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropout)
    n, heads, s, d = seen.shape
    return seen.transpose(1, 2).reshape(n, s, heads * d)


def _self_attention(block: Any, states: Tensor, mask: Tensor | None = None) -> Tensor:
    seen = _attend(block.self, *_project(block.self, states, states), mask)
    out: Tensor = block.output(seen, states)
    return out


def _first_self_attention(block: Any, states: Tensor, mask: Tensor | None) -> Tensor:
    # Self-attention of the first position only. One query is projected into the states' space, rather than all
    # states into the keys', and the mean of the states into the values', rather than all of them: the products
    # associate. The keys' bias shifts all scores of a query alike, so the softmax does not see it.
    attention = block.self
    (p, _, h), heads = states.shape, attention.num_attention_heads
    d = h // heads
    query = attention.query(states[:, 0]).view(p, heads, d).transpose(0, 1)  # (heads, p, d)
    query = (query @ attention.key.weight.view(heads, d, h)).transpose(0, 1)  # (p, heads, h)
    scores = query @ states.transpose(1, 2) / d**0.5  # (p, heads, S)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, 0], float("-inf"))
    weights = attention.dropout(scores.softmax(-1))  # (p, heads, S)
    mean = (weights @ states).transpose(0, 1)  # (heads, p, h)
    seen = (mean @ attention.value.weight.view(heads, d, h).transpose(1, 2)).transpose(0, 1)  # (p, heads, d)
    # The weights sum to 1 only without dropout.
    seen = (seen + weights.sum(-1, keepdim=True) * attention.value.bias.view(heads, d)).reshape(p, 1, h)
    out: Tensor = block.output(seen, states[:, :1])
    return out


def _layer(layer: Any, states: Tensor, mask: Tensor | None = None) -> Tensor:
    seen = _self_attention(layer.attention, states, mask)
    out: Tensor = layer.output(layer.intermediate(seen), seen)
    return out
