"""The detector's configuration: what of the published `config.yaml` decides its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiir.errors import ModelError
from tiir.io import read_yaml

__all__ = ["FrcnnConfig"]


@dataclass(frozen=True)
class FrcnnConfig:
    """Shapes and thresholds of a bottom-up-attention Faster R-CNN; the names in capitals are those of `config.yaml`.

    Args:
        depth: of the ResNet, 50, 101 or 152 (RESNETS.DEPTH).
        stem: channels of the stem.
        groups, width: groups of the 3x3 convolutions of res2 and channels a group.
        res2: channels of res2; each later stage doubles them.
        stride_in_1x1: a stage halves its map in the first convolution of its first block, not in the 3x3 one.
        shortest, longest: pixels of the resized picture: the shortest edge, as far as the longest one allows.
        mean, std: of each channel, blue, green, red.
        anchors: a cell.
        hidden: channels of the proposal network.
        rpn_weights, box_weights: that the four numbers of a regressed box are divided by.
        min_size: proposals with a smaller side are dropped (pixels of the resized picture).
        proposals_before, proposals: of an image, before and after non-maximum suppression.
        proposal_nms: its threshold.
        classes, attributes: without background.
        pooled: cells a side of a pooled region.
        nms: thresholds that are tried one after another until enough boxes survive.
        least, most: boxes of an image.
    """

    depth: int
    stem: int
    groups: int
    width: int
    res2: int
    stride_in_1x1: bool
    shortest: int
    longest: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    anchors: int
    hidden: int
    rpn_weights: tuple[float, ...]
    box_weights: tuple[float, ...]
    min_size: float
    proposals_before: int
    proposals: int
    proposal_nms: float
    classes: int
    attributes: int
    pooled: int
    nms: tuple[float, ...]
    least: int
    most: int

    @classmethod
    def load(cls, path: Path) -> FrcnnConfig:
        """Read a `config.yaml` (or JSON, which is YAML).

        Raises:
            ModelError: it is missing, no YAML, lacks a key, or is of another kind of detector.
        """
        return cls.parse(read_yaml(path, error=ModelError), path)

    @classmethod
    def parse(cls, values: Any, where: Path | str) -> FrcnnConfig:
        """Take what is needed from the nested mapping of a `config.yaml`.

        Raises:
            ModelError: a key is missing, has an unusable value, or asks for what this detector does not do.
        """
        flat = _flat(values)

        def get(key: str) -> Any:
            if key not in flat:
                raise ModelError(
                    f"{where} has no {key}",
                    hint="it must be the config.yaml of a bottom-up-attention Faster R-CNN, such as unc-nlp/frcnn-vg-finetuned",
                )
            return flat[key]

        for key, only in _ONLY.items():
            if key in flat and flat[key] not in only:
                raise ModelError(
                    f"{where}: {key} is {flat[key]!r}, this detector has {only[0]!r}",
                    hint="it is another architecture",
                )
        try:
            return cls(
                depth=int(get("RESNETS.DEPTH")),
                stem=int(get("RESNETS.STEM_OUT_CHANNELS")),
                groups=int(get("RESNETS.NUM_GROUPS")),
                width=int(get("RESNETS.WIDTH_PER_GROUP")),
                res2=int(get("RESNETS.RES2_OUT_CHANNELS")),
                stride_in_1x1=bool(get("RESNETS.STRIDE_IN_1X1")),
                shortest=int(get("INPUT.MIN_SIZE_TEST")),
                longest=int(get("INPUT.MAX_SIZE_TEST")),
                mean=tuple(map(float, get("MODEL.PIXEL_MEAN"))),
                std=tuple(map(float, get("MODEL.PIXEL_STD"))),
                anchors=len(get("ANCHOR_GENERATOR.SIZES")[0]) * len(get("ANCHOR_GENERATOR.ASPECT_RATIOS")[0]),
                hidden=int(get("PROPOSAL_GENERATOR.HIDDEN_CHANNELS")),
                rpn_weights=tuple(map(float, get("RPN.BBOX_REG_WEIGHTS"))),
                box_weights=tuple(map(float, get("ROI_BOX_HEAD.BBOX_REG_WEIGHTS"))),
                min_size=float(get("PROPOSAL_GENERATOR.MIN_SIZE")),
                proposals_before=int(get("RPN.PRE_NMS_TOPK_TEST")),
                proposals=int(get("RPN.POST_NMS_TOPK_TEST")),
                proposal_nms=float(get("RPN.NMS_THRESH")),
                classes=int(get("ROI_HEADS.NUM_CLASSES")),
                attributes=int(get("ROI_BOX_HEAD.NUM_ATTRS")),
                pooled=int(get("ROI_BOX_HEAD.POOLER_RESOLUTION")),
                nms=tuple(map(float, get("ROI_HEADS.NMS_THRESH_TEST"))),
                least=int(get("MIN_DETECTIONS")),
                most=int(get("MAX_DETECTIONS")),
            )
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as problem:
            raise ModelError(f"{where} has an unusable value: {problem}", hint="download it again") from None


_ONLY: dict[str, tuple[Any, ...]] = {
    "INPUT.FORMAT": ("BGR",),
    "ANCHOR_GENERATOR.OFFSET": (0,),
    "RESNETS.NORM": ("BN", "FrozenBN"),
    "RESNETS.OUT_FEATURES": (["res4"],),
    "MODEL.MAX_POOL": (True,),
    "ROI_BOX_HEAD.ATTR": (True,),
    "ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": (False,),
    "ROI_BOX_HEAD.RES5HALVE": (False,),
}


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, Mapping):
        return {prefix.rstrip("."): values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{str(key).upper()}.")
    return flat
