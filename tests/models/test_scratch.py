from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, CLIPModel, CLIPProcessor

from tiir.models import load
from tiir.models.scratch import new_clip

CAPTIONS = ["a red house on the grass", "two blue boats at sea", "three small birds, a moon at night"] * 5
SMALL = {"width": 16, "heads": 2, "image_layers": 1, "text_layers": 1, "image_size": 20, "patch_size": 10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    new_clip(CAPTIONS, folder, vocabulary=300, text_length=16, **SMALL)
    return folder


def test_loads_like_any_local_model(folder):
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert isinstance(model, CLIPModel)
    assert isinstance(processor, CLIPProcessor)
    batch = processor(text=CAPTIONS[:2], images=Image.new("RGB", (50, 30)), padding=True, return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 20, 20)
    assert model(**batch).logits_per_image.shape == (1, 2)
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}


def test_tokens_end_with_the_end_token_and_are_cut_at_the_limit(folder):
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    ids = tokenizer(["A Red house", "birds " * 40], truncation=True)["input_ids"]
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == "a red house"
    assert len(ids[1]) == 16
    assert all(row[0] == tokenizer.bos_token_id and row[-1] == tokenizer.eos_token_id for row in ids)
    assert max(map(max, ids)) < len(tokenizer)


def test_the_caption_vector_is_read_at_its_end(folder):
    # CLIP reads the vector at the end token, so the last word must count, and what follows the end must not.
    model, tokenizer = (
        AutoModel.from_pretrained(folder).eval(),
        AutoProcessor.from_pretrained(folder).tokenizer,
    )

    def vector(text: str, **options) -> torch.Tensor:
        with torch.no_grad():
            return model.get_text_features(**tokenizer(text, return_tensors="pt", **options)).pooler_output[0]

    house = vector("a red house")
    assert not torch.allclose(house, vector("a red boat"), atol=1e-4)
    assert torch.allclose(house, vector("a red house", padding="max_length"), atol=1e-5)


def test_words_of_no_caption_still_have_tokens(folder):
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    assert len(tokenizer("ghosts")["input_ids"]) > 2
    assert tokenizer.unk_token_id in tokenizer("☃")["input_ids"]


def test_same_seed_same_weights(tmp_path, folder):
    new_clip(CAPTIONS, tmp_path / "same", vocabulary=300, text_length=16, **SMALL)
    new_clip(CAPTIONS, tmp_path / "other", vocabulary=300, text_length=16, seed=1, **SMALL)
    weights = [
        (path / "model.safetensors").read_bytes() for path in (folder, tmp_path / "same", tmp_path / "other")
    ]
    assert weights[0] == weights[1] != weights[2]
    tokenizers = [(path / "tokenizer.json").read_bytes() for path in (folder, tmp_path / "same")]
    assert tokenizers[0] == tokenizers[1]


def test_it_can_be_scored_with(folder):
    encoder = load(str(folder))
    assert encoder.info.captions == "bucketed by length"
    vectors = encoder.encode_captions(CAPTIONS[:3])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
