"""Regions of transformers' own detectors, small ones with random weights, saved and loaded as a user's would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import transformers

from tiir.errors import ImageError, ModelError
from tiir.models.detr import Detr


def photo(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    small = PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8))
    return small.resize((width, height), PIL.Image.Resampling.BICUBIC)


def small_detr() -> torch.nn.Module:
    backbone = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        out_features=["stage4"],
        layer_type="basic",
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=12,
        num_labels=5,
    )
    return transformers.DetrForObjectDetection(config)


def small_yolos() -> torch.nn.Module:
    config = transformers.YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=[64, 96],
        patch_size=16,
        num_detection_tokens=12,
        id2label={0: "dog", 1: "cat", 2: "kite"},
    )
    return transformers.YolosForObjectDetection(config)


def small_rt_detr() -> torch.nn.Module:
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
        layer_type="basic",
    )
    config = transformers.RTDetrConfig(
        backbone_config=backbone,
        encoder_hidden_dim=32,
        encoder_in_channels=[16, 16, 16],
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        d_model=32,
        num_queries=12,
        decoder_in_channels=[32, 32, 32],
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        num_denoising=0,
        num_labels=5,
        freeze_backbone_batch_norms=False,
    )
    return transformers.RTDetrForObjectDetection(config)


@pytest.fixture(scope="module", params=["detr", "yolos", pytest.param("rt_detr", marks=pytest.mark.slow)])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("detr") / request.param
    if request.param == "rt_detr":
        small_rt_detr().save_pretrained(out)
        transformers.RTDetrImageProcessorPil(size={"height": 96, "width": 96}).save_pretrained(out)
        return out
    (small_detr() if request.param == "detr" else small_yolos()).save_pretrained(out)
    kind = (
        transformers.DetrImageProcessorPil if request.param == "detr" else transformers.YolosImageProcessorPil
    )
    kind(size={"shortest_edge": 64, "longest_edge": 128}).save_pretrained(out)
    return out


def test_equals_transformers_own_post_processing(directory: Path) -> None:
    detector = Detr(str(directory), device="cpu")
    picture = photo(160, 120)
    pixels = detector.prepare(picture)
    found = detector.detect([pixels], 8)[0]
    model = transformers.AutoModelForObjectDetection.from_pretrained(directory).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(directory, backend="pil")
    with torch.inference_mode():
        output = model(pixel_values=processor(picture, return_tensors="pt")["pixel_values"])
    theirs = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(1, 1)])[0]
    best = theirs["scores"].argsort(descending=True, stable=True)[:8]
    ours = found.columns["object_scores"]
    if not detector.kind or (len(theirs["scores"]) == detector.queries and "rt_detr" not in str(directory)):
        np.testing.assert_allclose(ours, theirs["scores"][best], atol=1e-5)
        np.testing.assert_allclose(found.boxes, theirs["boxes"][best].clamp(0, 1), atol=1e-5)
        assert found.columns["object_ids"].tolist() == theirs["labels"][best].tolist()
    else:  # RT-DETR lists a query once for each of its classes
        assert float(ours[0]) == pytest.approx(float(theirs["scores"].max()), abs=1e-5)
        for box in found.boxes:
            assert (theirs["boxes"].clamp(0, 1) - torch.from_numpy(box)).abs().amax(1).min() < 1e-5
    for box, region in zip(found.boxes, found.regions, strict=True):  # the state belongs to its box
        cx, cy, w, h = output.pred_boxes[0].unbind(1)
        corners = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1).clamp(0, 1)
        query = int((corners - torch.from_numpy(box)).abs().amax(1).argmin())
        np.testing.assert_allclose(region, output.last_hidden_state[0, query - detector.queries], atol=1e-3)


def test_the_batch_changes_nothing(directory: Path) -> None:
    detector = Detr(str(directory), device="cpu")
    pixels = [detector.prepare(photo(160, 120, seed)) for seed in range(3)]
    for one, batched in zip(pixels, detector.detect(pixels, 12), strict=True):
        alone = detector.detect([one], 12)[0]
        np.testing.assert_allclose(batched.regions, alone.regions, atol=1e-3)  # RT-DETR samples between cells
        np.testing.assert_allclose(batched.boxes, alone.boxes, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(160, 120), (120, 160), (5, 5), (300, 90)])
def test_input_size(directory: Path, shape: tuple[int, int]) -> None:
    detector = Detr(str(directory), device="cpu")
    pixels = detector.prepare(photo(*shape))
    assert detector.input_size(*shape) == tuple(pixels.shape[1:])
    found = detector.detect([pixels], 12)[0]
    assert found.boxes.min() >= 0
    assert found.boxes.max() <= 1


def test_a_shape_that_the_processor_does_not_take(directory: Path) -> None:
    if directory.name != "yolos":
        pytest.skip("these processors take any shape")
    detector = Detr(str(directory), device="cpu")
    assert detector.input_size(600, 30) == (30, 600)
    with pytest.raises(ImageError, match="600 x 30"):
        detector.prepare(photo(600, 30))


def test_names_and_too_many_boxes(directory: Path) -> None:
    detector = Detr(str(directory), device="cpu")
    assert detector.names == ({"objects": ("dog", "cat", "kite")} if directory.name == "yolos" else {})
    with pytest.raises(ModelError, match="12 queries"):
        detector.detect([detector.prepare(photo(64, 64))], 13)


def test_other_models_are_refused(directory: Path, tiny_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load"):
        Detr(str(tiny_clip), device="cpu")
    with pytest.raises(ModelError, match="no such model directory"):
        Detr(str(tmp_path / "nowhere"), device="cpu")
