"""Small detectors: the golden one of the shared data, and others with random weights that find something."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tiir.models.frcnn.config import FrcnnConfig
from tiir.models.frcnn.network import FrcnnNetwork

CONFIG: dict[str, Any] = {
    "ANCHOR_GENERATOR": {"ASPECT_RATIOS": [[0.5, 1.0, 2.0]], "OFFSET": 0, "SIZES": [[32, 64, 128]]},
    "INPUT": {"FORMAT": "BGR", "MAX_SIZE_TEST": 240, "MIN_SIZE_TEST": 144},
    "MAX_DETECTIONS": 36,
    "MIN_DETECTIONS": 36,
    "MODEL": {"MAX_POOL": True, "PIXEL_MEAN": [102.9801, 115.9465, 122.7717], "PIXEL_STD": [1.0, 1.0, 1.0]},
    "PROPOSAL_GENERATOR": {"HIDDEN_CHANNELS": 24, "MIN_SIZE": 0.0},
    "RESNETS": {
        "DEPTH": 50,
        "NORM": "BN",
        "NUM_GROUPS": 1,
        "OUT_FEATURES": ["res4"],
        "RES2_OUT_CHANNELS": 16,
        "STEM_OUT_CHANNELS": 8,
        "STRIDE_IN_1X1": True,
        "WIDTH_PER_GROUP": 4,
    },
    "ROI_BOX_HEAD": {
        "ATTR": True,
        "BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
        "CLS_AGNOSTIC_BBOX_REG": False,
        "NUM_ATTRS": 7,
        "POOLER_RESOLUTION": 14,
        "RES5HALVE": False,
    },
    "ROI_HEADS": {"NMS_THRESH_TEST": [0.5, 0.6], "NUM_CLASSES": 9},
    "RPN": {
        "BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0],
        "NMS_THRESH": 0.7,
        "POST_NMS_TOPK_TEST": 80,
        "PRE_NMS_TOPK_TEST": 700,
    },
}


def changed(**paths: Any) -> dict[str, Any]:
    """CONFIG with other values: `RESNETS__DEPTH=101`."""
    config: dict[str, Any] = json.loads(json.dumps(CONFIG))
    for path, value in paths.items():
        *groups, key = path.split("__")
        inner = config
        for group in groups:
            inner = inner[group]
        inner[key] = value
    return config


def random_network(config: dict[str, Any], seed: int = 0) -> FrcnnNetwork:
    """A network whose maps neither die out nor explode, with anchors of the configuration's sizes."""
    torch.manual_seed(seed)
    network = FrcnnNetwork(FrcnnConfig.parse(config, "test")).eval()
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                damped = 0.3 if name.endswith("conv3.norm") else 1.0
                module.weight.uniform_(0.5 * damped, damped)
                module.bias.uniform_(-0.2, 0.4)
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            elif isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, torch.nn.Linear):
                torch.nn.init.normal_(module.weight, std=0.3 / module.in_features**0.5)
        network.backbone.stem.conv1.weight.mul_(0.02)
        network.proposal_generator.rpn_head.anchor_deltas.weight.mul_(0.1)
        generator = config["ANCHOR_GENERATOR"]
        sides = [
            ((size**2 / ratio) ** 0.5, ratio * (size**2 / ratio) ** 0.5)
            for size in generator["SIZES"][0]
            for ratio in generator["ASPECT_RATIOS"][0]
        ]
        network.proposal_generator.anchor_generator.cell_anchors[0].copy_(
            torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in sides])
        )
    return network


def spread_classes(network: FrcnnNetwork, features: torch.Tensor) -> None:
    """Centre the class logits on some regions' features (r, D), so that no class wins everywhere."""
    classes = network.roi_heads.box_predictor.cls_score
    with torch.no_grad():
        classes.weight.copy_(torch.randn_like(classes.weight) * 2 / features.std(0).norm())
        classes.bias.copy_(-classes.weight @ features.mean(0))


@pytest.fixture
def save_detector(tmp_path: Path) -> Callable[..., Path]:
    """Writes a random detector as a user's directory: config.yaml and model.safetensors."""

    def save(**paths: Any) -> Path:
        config = changed(**paths)
        out = tmp_path / "detector"
        out.mkdir(exist_ok=True)
        (out / "config.yaml").write_text(json.dumps(config))
        save_file(random_network(config).state_dict(), out / "model.safetensors")
        return out

    return save


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    folder = shared / "golden" / "frcnn"
    if not folder.is_dir():
        pytest.skip(f"no golden detector at {folder}")
    return folder


@pytest.fixture(scope="session")
def golden_detector(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden detector as a user's directory, in the published layout."""
    out = tmp_path_factory.mktemp("frcnn")
    (out / "config.yaml").write_text((golden / "config.json").read_text())
    with np.load(golden / "weights.npz", allow_pickle=False) as weights:
        torch.save({key: torch.from_numpy(weights[key]) for key in weights.files}, out / "pytorch_model.bin")
    return out
