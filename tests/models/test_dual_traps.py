"""What a model directory can hold that would give wrong vectors without a word."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from tiir.errors import ModelError
from tiir.models import load
from tiir.models.scratch import new_clip


@pytest.fixture
def copy(tiny_clip: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_clip, tmp_path / "copy")


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_missing_weights_are_not_filled_with_random_ones(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["text_projection.weight"], weights["vision_model.post_layernorm.bias"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 2 weights of a CLIPModel: text_projection\.weight"):
        load(str(copy))


def test_a_missing_logit_scale_does_not_matter(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["logit_scale"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert load(str(copy)).encode_captions(["a dog"]).shape == (1, 32)


def test_weights_of_another_shape(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["text_projection.weight"] = torch.zeros(5, 5)
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError):
        load(str(copy))


def test_weights_that_are_not_numbers(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["visual_projection.weight"].fill_(float("nan"))
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="NaN, infinite or zero"):
        load(str(copy))


def test_a_directory_without_its_tokenizer(copy: Path) -> None:
    for path in copy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="its tokenizer knows no word"):
        load(str(copy))


def test_a_directory_without_its_image_processor(copy: Path) -> None:
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError):
        load(str(copy))


def test_an_end_token_that_the_model_does_not_know(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 150  # CLIP then reads the start token, the same for every caption
    edit_json(copy / "config.json", **config)
    with pytest.raises(ModelError, match="every caption gets the same vector"):
        load(str(copy))


def test_a_tokenizer_with_more_tokens_than_the_model(copy: Path, tmp_path: Path) -> None:
    texts = [" ".join(f"word{n}x{m}" for m in range(9)) + " a dog" for n in range(300)]
    new_clip(
        texts, tmp_path / "other", vocabulary=2000, text_length=77, image_size=32, patch_size=16, width=32
    )
    for path in (tmp_path / "other").glob("tokenizer*"):
        shutil.copy(path, copy)
    with pytest.raises(ModelError, match=r"the tokenizer gives token \d+, the model has"):
        load(str(copy)).encode_captions(["word7x3 word299x8 word120x4"])


def test_code_in_a_directory_is_never_run(copy: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    (copy / "evil.py").write_text(
        f"open({str(proof)!r}, 'w').write('executed')\nclass Model: pass\nclass Config: pass\n"
    )
    edit_json(
        copy / "config.json",
        model_type="unheard-of",
        auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"},
    )
    with pytest.raises(ModelError, match="cannot load"):
        load(str(copy))
    assert not proof.exists()
    assert "evil" not in sys.modules


def test_options_that_do_not_fit(tiny_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no precision 'int8'"):
        load(str(tiny_clip), precision="int8")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="it has no revision 'v2'"):
        load(str(tiny_clip), revision="v2")
    with pytest.raises(ModelError, match="no such model directory"):
        load(str(tiny_clip / "model.safetensors"))


def test_nothing_in_nothing_out(tiny_clip: Path) -> None:
    model = load(str(tiny_clip))
    assert model.encode_images([]).shape == model.encode_captions([]).shape == (0, 32)


def test_clip_whose_padding_is_its_end_token(copy: Path) -> None:
    """OpenAI's checkpoints pad with the end token: bucketing must see the first one only."""
    edit_json(copy / "tokenizer_config.json", pad_token="<end>")
    model = load(str(copy))
    tokenizer = transformers.AutoTokenizer.from_pretrained(copy)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert model.info.captions == "bucketed by length"
    clip = transformers.CLIPModel.from_pretrained(copy).eval()
    texts = ["a dog", "two people on the grass", "a", "the man sits in the street with a red dog"]
    with torch.no_grad():
        padded = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        wanted = torch.nn.functional.normalize(clip.get_text_features(**padded).pooler_output, dim=-1)
    assert np.abs(model.encode_captions(texts) - wanted.numpy()).max() < 1e-5


def test_siglip2_of_any_picture_shape(tmp_path: Path) -> None:
    """NaFlex models take patches, a mask and a shape instead of one square."""
    torch.manual_seed(0)
    new_clip(["a dog on the grass with two people"], tmp_path, vocabulary=60, text_length=16, image_size=32)
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        (tmp_path / name).unlink()
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.Siglip2Config(
        text_config=small | {"vocab_size": 60, "max_position_embeddings": 16, "projection_size": 32},
        vision_config=small | {"patch_size": 8, "num_patches": 16},
    )
    transformers.Siglip2Model(config).save_pretrained(tmp_path)
    transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(tmp_path)
    model = load(str(tmp_path))
    assert model.info.captions == "padded to 16 tokens"
    noise = np.random.default_rng(0)
    pictures = [
        Image.fromarray(noise.integers(0, 256, size, np.uint8)) for size in [(40, 20, 3), (30, 70, 3)]
    ]
    together = model.encode_images(pictures)
    alone = np.concatenate([model.encode_images([picture]) for picture in pictures])
    assert together.shape == (2, 32)
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(together[0] - together[1]).max() > 1e-3
