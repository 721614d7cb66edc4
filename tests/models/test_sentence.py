from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from tiir.errors import ModelError
from tiir.models.sentence import SentenceEncoder

TEXTS = ["a dog runs", "a cat", "a dog runs", "two dogs and a cat on grass"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path) -> Path:
    """A tiny BERT with random weights and a tokenizer, as a user's directory."""
    out = tmp_path_factory.mktemp("models") / "sentence"
    tokenizer = AutoTokenizer.from_pretrained(tiny_clip)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


@pytest.mark.parametrize("first", [False, True])
def test_vectors_are_pooled_as_the_directory_says(encoder: Path, first: bool) -> None:
    folder = encoder / "1_Pooling"
    folder.mkdir(exist_ok=True)
    modes = {
        "pooling_mode_cls_token": first,
        "pooling_mode_mean_tokens": not first,
        "word_embedding_dimension": 16,
    }
    (folder / "config.json").write_text(json.dumps(modes))
    vectors = SentenceEncoder(str(encoder), device="cpu").encode(TEXTS, batch_size=2)
    model, tokenizer = BertModel.from_pretrained(encoder).eval(), AutoTokenizer.from_pretrained(encoder)
    for text, vector in zip(TEXTS, vectors, strict=True):
        with torch.inference_mode():
            states = model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0]
        pooled = (states[0] if first else states.mean(0)).numpy()
        assert vector == pytest.approx(pooled / np.linalg.norm(pooled), abs=1e-5)


def test_other_poolings_and_folders_are_refused(encoder: Path, tmp_path: Path) -> None:
    (encoder / "1_Pooling").mkdir(exist_ok=True)
    (encoder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ModelError, match="pooling_mode_max_tokens"):
        SentenceEncoder(str(encoder), device="cpu")
    with pytest.raises(ModelError):
        SentenceEncoder(str(tmp_path), device="cpu")
    with pytest.raises(ModelError, match="no such model directory"):
        SentenceEncoder(str(tmp_path / "nowhere"), device="cpu")


def test_further_layers_are_refused(encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dense"
    shutil.copytree(encoder, folder)
    shutil.rmtree(folder / "1_Pooling", ignore_errors=True)
    kinds = ["Transformer", "Pooling", "Normalize"]
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    SentenceEncoder(str(folder), device="cpu")
    modules.append({"type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="not known here: Dense"):
        SentenceEncoder(str(folder), device="cpu")
