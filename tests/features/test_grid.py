"""Grid features against pooling written out by hand, for backbones of every kind, as a user's directories."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, DataError, ImageError, ModelError
from tiir.features import FeatureStore
from tiir.features.grid import cell_boxes, grid_features
from tiir.io import sha256_file
from tiir.models.backbone import VisionBackbone

SIDE = 64
VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
       "image_size": SIDE, "patch_size": 8}  # fmt: skip


def resnet() -> Any:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    return transformers.ResNetModel(config)  # stride 8: 8 x 8 at 64 pixels


def vit() -> Any:
    return transformers.ViTModel(transformers.ViTConfig(**VIT))


def dinov2() -> Any:
    return transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**VIT, num_register_tokens=4)
    )


def swin() -> Any:
    config = transformers.SwinConfig(
        image_size=SIDE, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    return transformers.SwinModel(config)  # 16 x 16 patches, merged once: 8 x 8


def clip() -> Any:
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=VIT))


BACKBONES: dict[str, tuple[Callable[[], Any], int]] = {  # and its tokens that are no patches
    "resnet": (resnet, 0), "vit": (vit, 1), "dinov2": (dinov2, 5), "swin": (swin, 0), "clip": (clip, 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("backbones")
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": SIDE + 8}, crop_size={"height": SIDE, "width": SIDE}
    )
    for seed, (name, (build, _)) in enumerate(BACKBONES.items()):
        torch.manual_seed(seed)
        build().save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return {name: root / name for name in BACKBONES}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(5)]
    for i, name in enumerate(names):
        pixels = rng.integers(0, 256, (40 + 20 * i, 90, 3), np.uint8)
        Image.fromarray(pixels).resize((90 + 10 * i, 60)).save(folder / name)
    hashes = [sha256_file(folder / name) for name in names]
    return Dataset("photos", "test", [f"p{i}" for i in range(5)], [f"c{i}" for i in range(5)], ["x"] * 5,
                   np.arange(5), folder, names, {"sha256": hashes})  # fmt: skip


def by_hand(model: Any, extra: int, picture: Image.Image, cells: int) -> np.ndarray:
    """A whole picture through the bare model, then the mean of each cell, one after the other."""
    square = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32) / 255
    mean = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
    std = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
    pixels = torch.from_numpy(((square - mean) / std).transpose(2, 0, 1)[None].copy())
    with torch.no_grad():
        last = getattr(model, "vision_model", model)(pixel_values=pixels).last_hidden_state[0]
    if last.ndim == 2:
        last = last[extra:].reshape(8, 8, -1).permute(2, 0, 1)
    features = last.numpy()  # (D, 8, 8)
    made = []
    for i in range(cells):
        for j in range(cells):
            top, bottom = int(np.floor(i * 8 / cells)), int(np.ceil((i + 1) * 8 / cells))
            left, right = int(np.floor(j * 8 / cells)), int(np.ceil((j + 1) * 8 / cells))
            made.append(features[:, top:bottom, left:right].mean((1, 2)))
    return np.stack(made)


@pytest.mark.parametrize("name", BACKBONES)
def test_cells_by_hand(directories: dict[str, Path], photos: Dataset, tmp_path: Path, name: str) -> None:
    cells = 6
    backbone = VisionBackbone(str(directories[name]), device="cpu")
    assert (backbone.size, backbone.grid) == (SIDE, (8, 8))
    store = grid_features(
        backbone, photos, tmp_path / "s.h5", cells=cells, dtype="float32", batch_size=2, threads=2
    )
    assert (store.n_regions, store.width) == (cells * cells, backbone.width)
    model = transformers.AutoModel.from_pretrained(directories[name]).eval()
    for row in range(5):
        expected = by_hand(model, BACKBONES[name][1], photos.image(row), cells)
        np.testing.assert_allclose(store.regions[row], expected, atol=2e-5, rtol=1e-4)
    assert store.verify() == []
    assert store.info.extractor == f"grid:{directories[name]}"
    assert store.info.weights == backbone.info.revision
    assert store.info.dataset_fingerprint == photos.fingerprint
    assert store.check(photos) == 5
    assert "no crop" in store.info.notes["input"]


@pytest.mark.parametrize(("grid", "cells"), [((8, 8), 6), ((7, 7), 6), ((12, 12), 6), ((3, 5), 2)])
def test_a_box_is_the_part_that_its_cell_saw(grid: tuple[int, int], cells: int) -> None:
    """Light up one place of a map at a time: the cells that see it are those whose boxes hold it."""
    boxes = cell_boxes(grid, cells)
    for i in range(grid[0]):
        for j in range(grid[1]):
            light = torch.zeros(1, 1, *grid)
            light[0, 0, i, j] = 1
            sees = torch.nn.functional.adaptive_avg_pool2d(light, cells).flatten().numpy() > 0
            y, x = (i + 0.5) / grid[0], (j + 0.5) / grid[1]
            holds = (boxes[:, 0] < x) & (x < boxes[:, 2]) & (boxes[:, 1] < y) & (y < boxes[:, 3])
            np.testing.assert_array_equal(sees, holds)


def test_rows_are_rows(directories: dict[str, Path], tmp_path: Path) -> None:
    """A picture with its upper half lit differs from a dark one in the upper cells."""
    pixels = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    pixels[1, : SIDE // 2] = 255
    backbone = VisionBackbone(str(directories["resnet"]), device="cpu")
    cells = backbone.encode_cells(backbone.prepare([Image.fromarray(array) for array in pixels]), 4)
    difference = np.abs(cells[1] - cells[0]).mean(axis=1).reshape(4, 4)
    boxes = cell_boxes(backbone.grid, 4).reshape(4, 4, 4)
    assert (boxes[0, :, 3] == 0.25).all()
    assert difference[0].min() > difference[3].max()


def test_another_size(directories: dict[str, Path]) -> None:
    for name in ("resnet", "vit", "clip"):
        assert VisionBackbone(str(directories[name]), device="cpu", size=96).grid == (12, 12)


def test_resumed_after_a_stop(
    directories: dict[str, Path], photos: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = VisionBackbone(str(directories["resnet"]), device="cpu")
    whole = grid_features(backbone, photos, tmp_path / "whole.h5", batch_size=1)
    encode, done = backbone.encode_cells, []

    def stops(pixels: Any, cells: int) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return encode(pixels, cells)

    monkeypatch.setattr(backbone, "encode_cells", stops)
    path = tmp_path / "stopped.h5"
    with pytest.raises(KeyboardInterrupt):
        grid_features(backbone, photos, path, batch_size=1)
    with pytest.raises(DataError, match=r"unfinished: 3 of 5 images"):
        FeatureStore.open(path)
    done.clear()
    resumed = grid_features(backbone, photos, path, batch_size=1, resume=True)
    assert len(done) == 2
    np.testing.assert_array_equal(resumed.regions, whole.regions)
    assert resumed.fingerprint == whole.fingerprint


def test_what_cannot_be_extracted(
    directories: dict[str, Path], photos: Dataset, tmp_path: Path, tiny_clip: Path
) -> None:
    backbone = VisionBackbone(str(directories["resnet"]), device="cpu")
    out = tmp_path / "s.h5"
    with pytest.raises(ModelError, match="grid of 8 x 8 features at 64 pixels"):
        grid_features(backbone, photos, out, cells=9)
    with pytest.raises(ConfigError, match="cells 0"):
        grid_features(backbone, photos, out, cells=0)
    with pytest.raises(DataError, match="without images"):
        grid_features(backbone, replace(photos, image_root=None, image_paths=None), out)
    changed = replace(photos, image_columns={"sha256": ["0" * 64] * 5})
    with pytest.raises(ImageError, match=r"'p0'.*has changed"):
        grid_features(backbone, changed, out, overwrite=True)
    with pytest.raises(ModelError, match="cannot load"):
        VisionBackbone(str(tmp_path), device="cpu")
    with pytest.raises(ModelError, match="no such model directory"):
        VisionBackbone("./nowhere", device="cpu")
    text = transformers.BertModel(transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                                                          intermediate_size=8, vocab_size=10))  # fmt: skip
    text.save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "preprocessor_config.json").write_bytes(
        (directories["vit"] / "preprocessor_config.json").read_bytes()
    )
    with pytest.raises(ModelError, match="does not take pictures"):
        VisionBackbone(str(tmp_path / "bert"), device="cpu")


def test_it_loads_quietly(directories: dict[str, Path], tmp_path: Path) -> None:
    """Weights of a classifier behind the backbone are nothing to report to a user."""
    from safetensors.torch import load_file, save_file

    for path in directories["resnet"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors") | {"classifier.1.weight": torch.ones(3, 16)}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        VisionBackbone(str(tmp_path), device="cpu")
        assert said == []
        transformers.AutoModel.from_pretrained(tmp_path)
        assert "classifier.1.weight" in "".join(said)
    finally:
        logger.removeHandler(handler)


def test_missing_weights_are_refused(directories: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in directories["vit"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(next(key for key in weights if "patch_embeddings" in key))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 weights"):
        VisionBackbone(str(tmp_path), device="cpu")


@pytest.mark.slow
def test_real_resnet50(shared: Path, tmp_path: Path) -> None:
    """ImageNet's ResNet-50 on real photos: nearer to itself mirrored than to other photos."""
    from PIL import ImageOps

    paths = sorted((shared / "flickr8k" / "Images").glob("*.jpg"))[:6]
    for path in paths:
        with Image.open(path) as photo:
            photo.convert("RGB").save(tmp_path / f"{path.stem}.png")
            ImageOps.mirror(photo.convert("RGB")).save(tmp_path / f"{path.stem}-mirrored.png")
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    n = len(names)
    data = Dataset("photos", "test", names, names, ["x"] * n, np.arange(n), tmp_path, names)
    backbone = VisionBackbone(str(shared / "models" / "resnet50-imagenet"), device="cpu")
    store = grid_features(backbone, data, tmp_path / "s.h5", batch_size=4)
    assert (store.n_regions, store.width, backbone.grid) == (36, 2048, (7, 7))
    mean = store.regions.astype(np.float32).mean(axis=1)
    mean -= mean.mean(axis=0)
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    similar = unit @ unit.T - 2 * np.eye(n)
    partner = [names.index(name.replace(".png", "-mirrored.png") if "-mirrored" not in name
                           else name.replace("-mirrored", "")) for name in names]  # fmt: skip
    assert similar.argmax(axis=1).tolist() == partner
