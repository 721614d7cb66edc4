from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tiir.errors import ModelError
from tiir.models import load
from tiir.models.dual import TransformersDualEncoder

CAPTIONS = [
    "a dog",
    "two people on the grass with a red dog",
    "cat",
    "the man sits in the street " * 3,
    "a dog",
]


def bert_tokenizer(out: Path) -> transformers.PreTrainedTokenizerBase:
    words = sorted({word for caption in CAPTIONS for word in caption.split()})
    (out / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    return transformers.BertTokenizerFast(str(out / "vocab.txt"), model_max_length=40)


def save(model: transformers.PreTrainedModel, tokenizer: object, images: object, out: Path) -> Path:
    for part in (model, tokenizer, images):
        part.save_pretrained(out)  # type: ignore[attr-defined]
    return out


SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def tiny_siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("siglip")
    tokenizer = bert_tokenizer(out)
    tokenizer.model_input_names = ["input_ids"]  # as SigLIP's: the model sees its padding
    config = transformers.SiglipConfig(
        text_config=SMALL | {"vocab_size": 40, "max_position_embeddings": 40, "projection_size": 32},
        vision_config=SMALL | {"image_size": 32, "patch_size": 16},
    )
    images = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    return save(transformers.SiglipModel(config), tokenizer, images, out)


@pytest.fixture(scope="module")
def tiny_vision_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("vision-text")
    vision = transformers.ViTConfig(**SMALL, image_size=32, patch_size=16)
    text = transformers.BertConfig(**SMALL, vocab_size=40, max_position_embeddings=40)
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        vision, text, projection_dim=32
    )
    images = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    return save(transformers.VisionTextDualEncoderModel(config), bert_tokenizer(out), images, out)


@pytest.fixture(scope="module")
def tiny_chinese_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("chinese-clip")
    config = transformers.ChineseCLIPConfig(
        text_config=SMALL | {"vocab_size": 40, "max_position_embeddings": 40},
        vision_config=SMALL | {"image_size": 32, "patch_size": 16},
        projection_dim=32,
    )
    images = transformers.ChineseCLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    return save(transformers.ChineseCLIPModel(config), bert_tokenizer(out), images, out)


MODELS = ["tiny_clip", "tiny_siglip", "tiny_vision_text", "tiny_chinese_clip"]


@pytest.fixture
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, size, np.uint8))
        for size in [(40, 50, 3), (33, 32, 3), (20, 60, 3)]
    ]


@pytest.mark.parametrize("name", MODELS)
def test_captions_equal_full_padding_one_by_one(name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    encoder = load(str(path))
    model = transformers.AutoModel.from_pretrained(path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    expected = []
    for caption in CAPTIONS:  # the slow way: each alone, padded to the full length
        tokens = tokenizer([caption], padding="max_length", truncation=True, return_tensors="pt")
        with torch.no_grad():
            vector = model.get_text_features(**tokens).pooler_output[0]
        expected.append((vector / vector.norm()).numpy())
    assert np.abs(encoder.encode_captions(CAPTIONS) - np.array(expected)).max() < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_images_equal_the_models_own_processor(
    name: str, request: pytest.FixtureRequest, pictures: list[Image.Image]
) -> None:
    path = request.getfixturevalue(name)
    encoder = load(str(path))
    model = transformers.AutoModel.from_pretrained(path).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(path)
    for picture, vector in zip(pictures, encoder.encode_images(pictures), strict=True):
        with torch.no_grad():
            expected = model.get_image_features(**processor(picture, return_tensors="pt")).pooler_output[0]
        assert np.abs(vector - (expected / expected.norm()).numpy()).max() < 1e-5
        assert vector.dtype == np.float32


def test_padding_is_kept_only_where_it_matters(request: pytest.FixtureRequest) -> None:
    choices = {name: load(str(request.getfixturevalue(name))).info.captions for name in MODELS}
    assert choices.pop("tiny_siglip") == "padded to 40 tokens"
    assert set(choices.values()) == {"bucketed by length"}


def test_long_captions_are_cut_and_counted(tiny_clip: Path) -> None:
    encoder = load(str(tiny_clip))
    lengths = encoder.caption_lengths(["a dog", "dog " * 200])
    assert encoder.max_length == 77
    assert lengths[0] < 77 < lengths[1]
    assert encoder.encode_captions(["dog " * 200]).shape == (1, 32)


def test_half_precision_is_near_and_stored_as_float32(tiny_clip: Path, pictures: list[Image.Image]) -> None:
    exact, half = load(str(tiny_clip)), load(str(tiny_clip), precision="bfloat16")
    assert half.info.precision == "bfloat16"
    difference = np.abs(exact.encode_images(pictures) - half.encode_images(pictures))
    assert half.encode_images(pictures).dtype == np.float32
    assert 0 < difference.max() < 0.05


def test_revision_is_the_content_of_a_directory(tiny_clip: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_clip, tmp_path / "copy")
    assert load(str(copy)).info.revision == load(str(tiny_clip)).info.revision
    config = copy / "preprocessor_config.json"
    config.write_text(config.read_text().replace('"do_normalize": true', '"do_normalize": false'))
    assert load(str(copy)).info.revision != load(str(tiny_clip)).info.revision


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model directory"):
        load(str(tmp_path / "nowhere"))


def test_hub_id_without_a_network() -> None:
    with pytest.raises(ModelError, match="cannot load nobody/no-such-model"):
        load("nobody/no-such-model")


def test_not_a_dual_encoder(tmp_path: Path) -> None:
    config = transformers.BertConfig(**SMALL, vocab_size=40)
    save(
        transformers.BertModel(config), bert_tokenizer(tmp_path), transformers.CLIPImageProcessor(), tmp_path
    )
    with pytest.raises(ModelError, match="BertModel, not a dual encoder"):
        load(str(tmp_path))


def test_damaged_weights(tiny_clip: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_clip, tmp_path / "copy")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load"):
        load(str(copy))


class Payload:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path, str]]:
        return Path.write_text, (self.path, "executed")


def test_pickle_payload_is_refused_and_not_executed(tiny_clip: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_clip, tmp_path / "copy")
    (copy / "model.safetensors").unlink()
    torch.save({"logit_scale": Payload(tmp_path / "proof")}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load"):
        load(str(copy))
    assert not (tmp_path / "proof").exists()


def test_a_device_that_is_not_there(tiny_clip: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ModelError, match="'cuda' is not available"):
        TransformersDualEncoder(str(tiny_clip), device="cuda")
    with pytest.raises(ModelError, match="'gpu0' is not available"):
        TransformersDualEncoder(str(tiny_clip), device="gpu0")
