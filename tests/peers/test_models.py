"""Scores against transformers' own forward passes, on padded batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel, LxmertConfig, LxmertForPreTraining

from tiir.features import FeatureInfo, FeatureStore
from tiir.models import load
from tiir.models.scratch import new_lxmert

CAPTIONS = [
    "a dog",
    "two people on the grass with a red dog",
    "the man sits in the street " * 3,
    "a cat runs",
]


def test_clip_is_transformers_clip(tiny_clip: Path, peer: Any, documented: Callable[..., None]) -> None:
    draw = np.random.default_rng(0)
    photos = [Image.fromarray(draw.integers(0, 256, (40, 52, 3), dtype=np.uint8)) for _ in range(3)]
    plain = CLIPModel.from_pretrained(tiny_clip).eval()
    pixels = CLIPImageProcessor.from_pretrained(tiny_clip)(photos, return_tensors="pt")
    padded = {"padding": "max_length", "truncation": True, "max_length": 77}
    tokens = AutoTokenizer.from_pretrained(tiny_clip)(CAPTIONS, return_tensors="pt", **padded)
    with torch.no_grad():
        expected = (plain(**pixels, **tokens).logits_per_image / plain.logit_scale.exp()).numpy()
    ours = load(str(tiny_clip))
    found = ours.encode_images(photos) @ ours.encode_captions(CAPTIONS).T
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-6)
    documented("Models", [peer("transformers"), "`CLIPModel`, every caption padded to 77 tokens"], "1e-6")


def test_lxmert_is_transformers_lxmert(tmp_path: Path, peer: Any, documented: Callable[..., None]) -> None:
    """The matching head of its pre-training: two logits a pair, whose difference is the score."""
    new_lxmert(CAPTIONS, tmp_path / "m", feature_width=12, vocabulary=100, text_length=40, width=16, heads=2,
               language_layers=1, vision_layers=1, cross_layers=2)  # fmt: skip
    (tmp_path / "m" / "model.safetensors").unlink()
    config = LxmertConfig.from_pretrained(
        tmp_path / "m", num_qa_labels=3, num_object_labels=4, num_attr_labels=5
    )
    torch.manual_seed(0)
    plain = LxmertForPreTraining(config).eval()
    plain.save_pretrained(tmp_path / "m")
    draw = np.random.default_rng(0)
    ids, path = ["i0", "i1", "i2"], tmp_path / "features.h5"
    with FeatureStore.create(path, FeatureInfo(extractor="test"), ids, 5, 12, dtype="float32") as writer:
        boxes = np.sort(draw.random((3, 5, 2, 2)), axis=2).reshape(3, 5, 4)
        writer.put(np.arange(3), draw.normal(size=(3, 5, 12)), boxes)
    store = FeatureStore.open(path)
    regions, boxes = map(torch.from_numpy, store.read(np.arange(3)))
    model = load(f"lxmert:{tmp_path / 'm'}")
    tokens = model.tokenizer(CAPTIONS, padding=True, truncation=True, max_length=40, return_tensors="pt")
    expected = []
    for n in range(3):
        with torch.no_grad():
            no, yes = plain(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                token_type_ids=torch.zeros_like(tokens["input_ids"]),
                visual_feats=regions[n].expand(len(CAPTIONS), -1, -1),
                visual_pos=boxes[n].expand(len(CAPTIONS), -1, -1),
            ).cross_relationship_score.unbind(1)  # fmt: skip
        expected.append((yes - no).numpy())
    found = model.bind(CAPTIONS, ids, store).score_block(np.arange(3), np.arange(len(CAPTIONS)))
    assert np.std(expected) > 1e-4
    np.testing.assert_allclose(found, np.array(expected), atol=1e-6)
    documented("Models", [peer("transformers"), "`LxmertForPreTraining`, captions of a batch padded"], "1e-6")
