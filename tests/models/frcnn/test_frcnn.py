"""The detector against the reference's recorded outputs, and against a slow version of itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.frcnn.conftest import changed, random_network, spread_classes
from tests.models.frcnn.test_ops import slow_nms, slow_pool
from torch import Tensor
from torch.nn import functional as F

from tiir.errors import ImageError, ModelError
from tiir.models.frcnn import Frcnn, FrcnnConfig, FrcnnNetwork
from tiir.models.frcnn.detect import Found, detect
from tiir.models.frcnn.detector import resized
from tiir.models.frcnn.network import map_size


def photo(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    """Smooth blobs: a picture in which neighbouring pixels have to do with each other."""
    rng = np.random.default_rng(seed)
    small = PIL.Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return small.resize((width, height), PIL.Image.Resampling.BICUBIC)


# --- the reference ---


def test_state_dict_is_the_published_one(golden: Path) -> None:
    with torch.device("meta"):
        network = FrcnnNetwork(FrcnnConfig.load(golden / "full_model_config.json"))
    published = json.loads((golden / "full_model_keys.json").read_text())
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == published


@pytest.mark.parametrize("image", ["image0", "image1"])
def test_golden(golden: Path, golden_detector: Path, image: str) -> None:
    with np.load(golden / "expected.npz", allow_pickle=False) as file:
        expected = {key.split(".")[1]: file[key] for key in file.files if key.startswith(image)}
    detector = Frcnn(str(golden_detector), device="cpu")
    picture = PIL.Image.open(golden / f"{image}.png")
    pixels = detector.prepare(picture)
    assert list(pixels.shape[1:]) == expected["sizes"][0].tolist()
    np.testing.assert_allclose(pixels[None, :, ::8, ::8], expected["preprocessed"], atol=1e-4)
    with torch.inference_mode():
        res4 = detector.network.backbone(pixels[None], [(pixels.shape[1], pixels.shape[2])])
    np.testing.assert_allclose(res4, expected["res4"], atol=1e-4)
    found = detector.detect([pixels], 36)[0]
    boxes = found.boxes * np.array([picture.width, picture.height] * 2, np.float32)
    np.testing.assert_allclose(boxes, expected["boxes"][0], atol=1e-3)
    np.testing.assert_allclose(found.boxes, expected["normalized_boxes"][0], atol=1e-5)
    np.testing.assert_allclose(found.regions, expected["roi_features"][0], atol=1e-4)
    assert found.columns["object_ids"].tolist() == expected["obj_ids"][0].tolist()
    assert found.columns["attribute_ids"].tolist() == expected["attr_ids"][0].tolist()
    np.testing.assert_allclose(found.columns["object_scores"], expected["obj_probs"][0], atol=1e-5)
    np.testing.assert_allclose(found.columns["attribute_scores"], expected["attr_probs"][0], atol=1e-5)
    assert float(found.columns["nms_threshold"]) == pytest.approx(0.6)


def test_red_and_blue_matter(golden: Path, golden_detector: Path) -> None:
    """The features of swapped channels are others: the golden test would not pass with the popular script's RGB."""
    detector = Frcnn(str(golden_detector), device="cpu")
    picture = PIL.Image.open(golden / "image0.png")
    swapped = PIL.Image.fromarray(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]))
    right, wrong = (detector.detect([detector.prepare(one)], 36)[0].regions for one in (picture, swapped))
    assert np.abs(right - wrong).max() > 0.1


# --- the slow oracle ---


def slow_detect(network: FrcnnNetwork, config: FrcnnConfig, pixels: Tensor, boxes: int) -> Found:
    """One image, unfolded norms, loops over boxes and cells; every step as the papers tell it."""
    h, w = pixels.shape[1:]
    x = network.backbone.stem(pixels[None])
    for stage in (network.backbone.res2, network.backbone.res3, network.backbone.res4):
        for block in stage:
            y = F.relu(block.conv1.norm(F.conv2d(x, block.conv1.weight, stride=block.conv1.stride)))
            y = F.conv2d(y, block.conv2.weight, stride=block.conv2.stride, padding=1, groups=config.groups)
            y = block.conv3.norm(F.conv2d(F.relu(block.conv2.norm(y)), block.conv3.weight))
            short = x
            if block.shortcut is not None:
                short = block.shortcut.norm(F.conv2d(x, block.shortcut.weight, stride=block.shortcut.stride))
            x = F.relu(y + short)
    head, cells = (
        network.proposal_generator.rpn_head,
        network.proposal_generator.anchor_generator.cell_anchors[0],
    )
    hidden = F.relu(head.conv(x))
    logits, deltas = head.objectness_logits(hidden)[0], head.anchor_deltas(hidden)[0]
    proposals, scores = [], []
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            for a, cell in enumerate(cells):
                anchor = cell + torch.tensor([column, row, column, row]) * 16.0
                scores.append(logits[a, row, column])
                proposals.append(
                    slow_move(anchor, deltas[4 * a : 4 * a + 4, row, column], config.rpn_weights, h, w)
                )
    every, ranked = torch.stack(proposals), torch.stack(scores)
    best = sorted(range(len(every)), key=lambda i: (-float(ranked[i]), i))[: config.proposals_before]
    best = [i for i in best if every[i, 2] > every[i, 0] and every[i, 3] > every[i, 1]]
    kept = slow_nms(every[best], ranked[best], config.proposal_nms, config.proposals)
    regions = every[best][kept]
    features = network.roi_heads.res5(slow_pool(x, regions, config.pooled, 1 / 16)).mean((2, 3))
    objects, moves, attributes = network.roi_heads.box_predictor(features)
    chances = objects.softmax(1)[:, :-1]
    scores_, kinds = chances.max(1)
    final = torch.stack(
        [
            slow_move(region, move[kind], config.box_weights, h, w)
            for region, move, kind in zip(regions, moves, kinds, strict=True)
        ]
    )
    for threshold in (*config.nms, 0.7, 0.8, 0.9, 1.0):
        stay = slow_nms(final, scores_, threshold, boxes)
        if len(stay) == boxes:
            break
    likely, named = attributes[stay][:, :-1].softmax(1).max(1)
    return Found(
        features[stay], final[stay], kinds[stay], scores_[stay], named, likely, threshold, config.proposal_nms
    )


def slow_move(box: Tensor, delta: Tensor, weights: tuple[float, ...], h: int, w: int) -> Tensor:
    x1, y1, x2, y2 = box
    dx, dy, dw, dh = (d / weight for d, weight in zip(delta, weights, strict=True))
    width, height = x2 - x1, y2 - y1
    x, y = x1 + 0.5 * width + dx * width, y1 + 0.5 * height + dy * height
    limit = float(np.log(1000 / 16))
    half_w, half_h = (0.5 * dw.clamp(max=limit).exp() * width, 0.5 * dh.clamp(max=limit).exp() * height)
    return torch.stack(
        [
            (x - half_w).clamp(0, w),
            (y - half_h).clamp(0, h),
            (x + half_w).clamp(0, w),
            (y + half_h).clamp(0, h),
        ]
    )


def assert_same(fast: Found, slow: Found) -> None:
    assert fast.nms == slow.nms
    torch.testing.assert_close(fast.boxes, slow.boxes, atol=1e-3, rtol=0)
    torch.testing.assert_close(fast.features, slow.features, atol=1e-4, rtol=1e-4)
    assert fast.objects.tolist() == slow.objects.tolist()
    assert fast.attributes.tolist() == slow.attributes.tolist()
    torch.testing.assert_close(fast.object_scores, slow.object_scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(fast.attribute_scores, slow.attribute_scores, atol=1e-5, rtol=0)


VARIANTS: dict[str, dict[str, Any]] = {
    "depth 50": {},
    "depth 101": {"RESNETS__DEPTH": 101, "RESNETS__WIDTH_PER_GROUP": 8, "RESNETS__RES2_OUT_CHANNELS": 24},
    "groups, stride in the 3x3": {
        "RESNETS__NUM_GROUPS": 2,
        "RESNETS__STRIDE_IN_1X1": False,
        "RESNETS__STEM_OUT_CHANNELS": 12,
    },
    "one anchor size, more classes": {
        "ANCHOR_GENERATOR__SIZES": [[48]],
        "ROI_HEADS__NUM_CLASSES": 21,
        "ROI_BOX_HEAD__NUM_ATTRS": 3,
        "RPN__POST_NMS_TOPK_TEST": 60,
    },
}


@pytest.mark.parametrize("shape", [(160, 120), (120, 160), (150, 151)], ids=["landscape", "portrait", "odd"])
@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=[] if name == "depth 50" else pytest.mark.slow) for name in VARIANTS]
)
@pytest.mark.slow
def test_equals_the_slow_oracle(variant: str, shape: tuple[int, int]) -> None:
    values = changed(**VARIANTS[variant])
    config, network = FrcnnConfig.parse(values, "test"), random_network(values, seed=3)
    h, w = resized(*shape, config.shortest, config.longest)
    torch.manual_seed(1)
    pixels = torch.from_numpy(np.array(photo(w, h), np.float32)).permute(2, 0, 1) - 110
    with torch.inference_mode():
        spread_classes(network, slow_detect(network, config, pixels, 20).features.clone())
        slow = slow_detect(network, config, pixels, 20)
        network.fold()
        fast = detect(network, config, [pixels], 20, 20)[0]
    assert_same(fast, slow)
    assert len(set(slow.objects.tolist())) > 1  # else equal ids would say little


# --- batches ---


def test_the_batch_changes_nothing(save_detector: Callable[..., Path]) -> None:
    detector = Frcnn(str(save_detector()), device="cpu")
    pictures = [
        photo(w, h, i) for i, (w, h) in enumerate([(160, 120), (120, 160), (200, 121), (150, 150), (300, 90)])
    ]
    pixels = [detector.prepare(picture) for picture in pictures]
    together = detector.detect(pixels, 36)
    for one, batched in zip(pixels, together, strict=True):
        alone = detector.detect([one], 36)[0]
        np.testing.assert_allclose(batched.regions, alone.regions, atol=2e-5, rtol=1e-5)
        np.testing.assert_allclose(batched.boxes, alone.boxes, atol=1e-5)
        assert batched.columns["object_ids"].tolist() == alone.columns["object_ids"].tolist()


def test_padding_is_the_reason(save_detector: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without clearing what lies beyond the edges, the map of a padded image is another: the test above can fail."""
    import tiir.models.frcnn.network as module

    detector = Frcnn(str(save_detector()), device="cpu")
    small, large = (detector.prepare(photo(w, h)) for w, h in [(160, 120), (120, 200)])
    alone = detector.network.backbone(small[None], [(small.shape[1], small.shape[2])])
    monkeypatch.setattr(module, "_clear", lambda x, sizes: None)
    batch = torch.zeros(1, 3, large.shape[1], small.shape[2])
    batch[0, :, : small.shape[1], : small.shape[2]] = small
    leaking = detector.network.backbone(batch, [(small.shape[1], small.shape[2])])
    rows, columns = map_size(small.shape[1], small.shape[2])
    assert (leaking[:, :, :rows, :columns] - alone).abs().max() > 1e-2


# --- all kinds of pictures ---


def test_upright_grey_cmyk(save_detector: Callable[..., Path], tmp_path: Path) -> None:
    from tiir.data.images import open_image

    detector = Frcnn(str(save_detector()), device="cpu")
    picture = photo(160, 120)
    turned = picture.transpose(PIL.Image.Transpose.ROTATE_90)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        detector.prepare(open_image(tmp_path / "turned.png")), detector.prepare(picture)
    )
    for mode in ("L", "CMYK"):
        picture.convert(mode).save(tmp_path / f"{mode}.tiff")
        regions = detector.detect([detector.prepare(open_image(tmp_path / f"{mode}.tiff"))], 36)[0]
        assert regions.boxes.shape == (36, 4)


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (2500, 4), (3000, 2000)])
def test_tiny_and_huge(save_detector: Callable[..., Path], shape: tuple[int, int]) -> None:
    detector = Frcnn(str(save_detector()), device="cpu")
    found = detector.detect([detector.prepare(photo(*shape))], 36)[0]
    assert found.boxes.shape == (36, 4)
    assert found.boxes.min() >= 0
    assert found.boxes.max() <= 1
    assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()


def test_floats_are_refused(save_detector: Callable[..., Path]) -> None:
    detector = Frcnn(str(save_detector()), device="cpu")
    with pytest.raises(ImageError):
        detector.prepare(np.zeros((20, 20, 3), np.float32))  # type: ignore[arg-type]


def test_too_few_boxes_relax_the_threshold(save_detector: Callable[..., Path]) -> None:
    strict = save_detector(ROI_HEADS__NMS_THRESH_TEST=[0.01, 0.02], RPN__POST_NMS_TOPK_TEST=45)
    detector = Frcnn(str(strict), device="cpu")
    found = detector.detect([detector.prepare(photo(160, 120))], 40)[0]
    assert found.boxes.shape == (40, 4)
    assert float(found.columns["nms_threshold"]) > 0.69
    assert float(found.columns["proposal_nms_threshold"]) == pytest.approx(0.7)
    sparse = Frcnn(str(save_detector(RPN__NMS_THRESH=0.01)), device="cpu")
    found = sparse.detect([sparse.prepare(photo(160, 120))], 40)[0]
    assert found.boxes.shape == (40, 4)
    assert float(found.columns["proposal_nms_threshold"]) > 0.69
    few = Frcnn(str(save_detector()), device="cpu")
    pixels = few.prepare(photo(160, 120))
    with pytest.raises(ModelError, match="finds 80 regions of 81"):
        few.detect([pixels], 81)


# --- directories ---


def test_names(save_detector: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_detector()
    assert Frcnn(str(folder), device="cpu").names == {}
    (folder / "objects_vocab.txt").write_text("dog,puppy\n" * 9)
    assert Frcnn(str(folder), device="cpu").names == {"objects": ("dog",) * 9}
    (folder / "objects_vocab.txt").write_text("dog\n" * 8)
    with pytest.raises(ModelError, match="8 names"):
        Frcnn(str(folder), device="cpu")


def test_bad_directories(save_detector: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_detector()
    weights, config = folder / "model.safetensors", folder / "config.yaml"
    state = load_file(weights)
    save_file({key: value for key, value in state.items() if "attr_score" not in key}, weights)
    with pytest.raises(ModelError, match=r"lacks roi_heads\.box_predictor\.attr_score"):
        Frcnn(str(folder), device="cpu")
    weights.write_bytes(b"damaged")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        Frcnn(str(folder), device="cpu")
    weights.unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        Frcnn(str(folder), device="cpu")
    save_file(state, weights)
    config.write_text(json.dumps(changed(ROI_BOX_HEAD__NUM_ATTRS=8)))
    with pytest.raises(ModelError, match="of shape"):
        Frcnn(str(folder), device="cpu")
    config.write_text(json.dumps(changed(INPUT__FORMAT="RGB")))
    with pytest.raises(ModelError, match=r"INPUT\.FORMAT"):
        Frcnn(str(folder), device="cpu")
    config.write_text("a: [")
    with pytest.raises(ModelError, match="cannot be read as YAML"):
        Frcnn(str(folder), device="cpu")
    config.write_text("a: 1")
    with pytest.raises(ModelError, match="has no RESNETS"):
        Frcnn(str(folder), device="cpu")
    with pytest.raises(ModelError, match="no such model directory"):
        Frcnn(str(tmp_path / "nowhere"), device="cpu")


def test_pickles_are_refused(save_detector: Callable[..., Path]) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("ran",))

    folder = save_detector()
    (folder / "model.safetensors").unlink()
    torch.save({"x": Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="never Python objects"):
        Frcnn(str(folder), device="cpu")
