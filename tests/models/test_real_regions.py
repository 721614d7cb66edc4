"""Ten real photos with their bottom-up-attention features: convert, verify, and an LXMERT of the base shape."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LxmertConfig, PreTrainedTokenizerFast

from tiir.cli.verbs import app
from tiir.features.store import FeatureStore
from tiir.models import load
from tiir.models.lxmert import LxmertMatcher
from tiir.models.scratch import new_lxmert

CAPTIONS = [
    "A man rides a horse on the beach.",
    "two dogs",
    "A plate of food with broccoli, rice and meat on a table",
]


@pytest.mark.slow
def test_convert_verify_and_score(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "regions.h5"
    for command in (
        ["convert", str(shared / "regions" / "train2014_obj36.tsv"), "--out", str(path)],
        ["verify", str(path)],
        ["info", str(path), "--json"],
    ):
        capsys.readouterr()
        app(["features", *command], standalone_mode=False)
    info = json.loads(capsys.readouterr().out)
    assert (info["images"], info["regions"], info["width"]) == (10, 36, 2048)
    store = FeatureStore.open(path)

    model = tmp_path / "model"  # the tokenizer of a small one, the shape of LXMERT-base
    new_lxmert(CAPTIONS, model, feature_width=2048, width=16, heads=2)
    words = len(PreTrainedTokenizerFast.from_pretrained(model))
    torch.manual_seed(0)
    matcher = LxmertMatcher(LxmertConfig(vocab_size=words, pad_token_id=0)).eval()
    matcher.cls = None
    matcher.save_pretrained(model)
    encoder = load(f"lxmert:{model}", device="cpu")
    scorer = encoder.bind(CAPTIONS, store.image_ids, store)
    scores = scorer.score_block(np.arange(10), np.arange(3))

    tokens = encoder.tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    regions, boxes = map(torch.from_numpy, store.read(np.arange(10)))
    with torch.no_grad():
        for i in range(10):
            one = regions[i].expand(3, -1, -1), boxes[i].expand(3, -1, -1)
            plain = matcher(tokens["input_ids"], tokens["attention_mask"], *one)
            np.testing.assert_allclose(scores[i], plain.numpy(), rtol=0, atol=1e-4)
    assert scores.std() > 0
