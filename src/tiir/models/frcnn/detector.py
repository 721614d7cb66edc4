"""The detector as a user has it: a hub id or a directory, pictures in, regions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tiir.data.images import to_rgb
from tiir.errors import ModelError
from tiir.features.detected import Detections
from tiir.io import read_text
from tiir.models.base import ModelInfo
from tiir.models.frcnn.config import FrcnnConfig
from tiir.models.frcnn.detect import detect
from tiir.models.frcnn.network import STRIDE, FrcnnNetwork
from tiir.models.frcnn.ops import torchvision_ops
from tiir.models.loading import choose_device, exact_convolutions, versions
from tiir.models.source import Source, model_file

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Frcnn", "resized"]

WEIGHTS = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
VOCABULARIES = {"objects": "objects_vocab.txt", "attributes": "attributes_vocab.txt"}


class Frcnn:
    """The Visual Genome Faster R-CNN of bottom-up attention, ready to find regions.

    Pictures reach it in blue, green, red, as it was trained; the reader of the popular reference script hands it red,
    green, blue, and the features are then another model's (transformers issues 8769 and 19601).

    Args:
        name: hub id such as "unc-nlp/frcnn-vg-finetuned", or a directory with `config.yaml` and `model.safetensors` or
            `pytorch_model.bin`.
        device: "auto" (cuda, else mps, else cpu) or a torch device.
        revision: of a hub model.
        names: folder of `objects_vocab.txt` and `attributes_vocab.txt`, the names of the classes; by default the
            model's own, where it has them.

    Raises:
        ModelError: it cannot be loaded, is another architecture, or the device is not there.
    """

    kind = "frcnn"
    colour: Literal["rgb", "bgr"] = "bgr"
    padding = 0.15
    per_region: Mapping[str, str] = {
        "object_ids": "int32",
        "object_scores": "float32",
        "attribute_ids": "int32",
        "attribute_scores": "float32",
    }
    per_image: Mapping[str, str] = {"nms_threshold": "float32", "proposal_nms_threshold": "float32"}

    def __init__(
        self,
        name: str,
        *,
        device: str = "auto",
        revision: str | None = None,
        names: Path | None = None,
    ) -> None:
        self._device = choose_device(device)
        source = Source.of(name, revision)
        self.config = FrcnnConfig.load(_file(source, ("config.yaml", "config.json")))
        weights = _file(source, WEIGHTS)
        self.network = FrcnnNetwork(self.config).eval()
        _fill(self.network, weights)
        self.network.fold()
        self.network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.width = self.network.roi_heads.width
        self.names: Mapping[str, Sequence[str]] = _names(source, names, self.config)
        self.info = ModelInfo(
            name=name,
            revision=source.revision,
            device=str(self._device),
            precision="float32",
            captions="none",
            versions=versions(),
        )
        self.notes: Mapping[str, Any] = {
            "input": f"shortest edge {self.config.shortest} pixels, longest at most {self.config.longest}",
            "pooling": "RoI max pooling, mean over res5",
            "nms": "torch" if torchvision_ops() is None else "torchvision",
        }

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) that a picture of this size is resized to."""
        return resized(width, height, self.config.shortest, self.config.longest)

    def to(self, device: str) -> None:
        """Move the model to another device; `info` keeps the first one."""
        self._device = torch.device(device)
        self.network.to(self._device)

    def prepare(self, image: Image) -> Tensor:
        """Bring a picture to the tensor that the network sees: (3, h, w), blue, green, red, less the means.

        Bilinear on float pixels, without antialiasing, as the published features were made.
        """
        rgb = np.asarray(to_rgb(image))  # (H, W, 3)
        pixels = torch.from_numpy(rgb[:, :, ::-1].astype(np.float32)).permute(2, 0, 1)  # (3, H, W)
        size = self.input_size(rgb.shape[1], rgb.shape[0])
        pixels = interpolate(pixels[None], size, mode="bilinear", align_corners=False)[0]  # (3, h, w)
        mean, std = (torch.tensor(three).view(3, 1, 1) for three in (self.config.mean, self.config.std))
        return (pixels - mean) / std

    @torch.inference_mode()
    def detect(self, pixels: Sequence[Tensor], boxes: int) -> list[Detections]:
        """Exactly `boxes` regions of each prepared picture, best first; the batch that a picture is in changes nothing.

        Raises:
            ModelError: a picture has too few boxes at any threshold, or the features are not finite.
        """
        with exact_convolutions():
            found = detect(self.network, self.config, [one.to(self._device) for one in pixels], boxes, boxes)
        made = []
        for one, regions in zip(pixels, found, strict=True):
            if len(regions.boxes) < boxes or not bool(torch.isfinite(regions.features).all()):
                raise ModelError(
                    f"{self.info.name} finds {len(regions.boxes)} regions of {boxes} in a picture of "
                    f"{one.shape[2]} x {one.shape[1]} pixels, or features that are not finite",
                    hint="ask for fewer --boxes; if there are enough, its weights are not usable",
                )
            sides = regions.boxes.new_tensor([one.shape[2], one.shape[1]] * 2)
            made.append(
                Detections(
                    regions=regions.features.cpu().numpy(),
                    boxes=(regions.boxes / sides).cpu().numpy(),
                    columns={
                        "object_ids": regions.objects.int().cpu().numpy(),
                        "object_scores": regions.object_scores.cpu().numpy(),
                        "attribute_ids": regions.attributes.int().cpu().numpy(),
                        "attribute_scores": regions.attribute_scores.cpu().numpy(),
                        "nms_threshold": np.float32(regions.nms),
                        "proposal_nms_threshold": np.float32(regions.proposal_nms),
                    },
                )
            )
        return made


def resized(width: int, height: int, shortest: int, longest: int) -> tuple[int, int]:
    """(height, width) of a picture whose shortest edge becomes `shortest`, as far as `longest` allows.

    Neither falls below a cell of the map, 16 pixels: a line of a picture is stretched.

    Example:
        >>> resized(640, 480, 800, 1333), resized(1000, 100, 800, 1333)
        ((800, 1067), (133, 1333))
    """
    scale = shortest / min(height, width)
    h, w = (shortest, scale * width) if height < width else (scale * height, shortest)
    if max(h, w) > longest:
        scale = longest / max(h, w)
        h, w = h * scale, w * scale
    return max(int(h + 0.5), STRIDE), max(int(w + 0.5), STRIDE)


def _file(source: Source, candidates: Sequence[str]) -> Path:
    """The first of the files that a directory or a hub model has."""
    for candidate in candidates:
        if path := model_file(source, candidate):
            return path
    raise ModelError(
        f"{source.name} has no {' or '.join(candidates)}",
        hint="copy all files of the model into the directory" if source.commit is None else "check the id",
    )


def _fill(network: FrcnnNetwork, path: Path) -> None:
    from safetensors.torch import load_file

    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        shapes = {key: tuple(value.shape) for key, value in state.items()}
    except Exception as problem:  # whatever a damaged or hostile file makes the readers raise
        raise ModelError(
            f"{path} cannot be read as weights: {type(problem).__name__}: {(str(problem).splitlines() or [''])[0][:200]}",
            hint="only tensors are loaded, never Python objects; download it again",
        ) from None
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    wrong = [f"lacks {key}" for key in own if key not in shapes and not key.endswith("num_batches_tracked")]
    wrong += [f"has an unknown {key}" for key in shapes if key not in own]
    wrong += [
        f"has {key} of shape {shapes[key]}, not {own[key]}"
        for key in own
        if key in shapes and shapes[key] != own[key]
    ]
    if wrong:
        raise ModelError(
            f"{path} does not fit its configuration: it {'; '.join(wrong[:3])}"
            + (f"; and {len(wrong) - 3:,} more" if len(wrong) > 3 else ""),
            hint="config.yaml and the weights must be of the same model, complete",
        )
    network.load_state_dict(state, strict=False)


def _names(source: Source, folder: Path | None, config: FrcnnConfig) -> dict[str, tuple[str, ...]]:
    found = {}
    for kind, file in VOCABULARIES.items():
        path = model_file(source, file) if folder is None else folder / file
        if path is None:
            continue  # the published model has none: ids do without
        lines = read_text(path, error=ModelError).splitlines()
        expected = config.classes if kind == "objects" else config.attributes
        if len(lines) != expected:
            raise ModelError(
                f"{path} has {len(lines):,} names, the model {expected:,} {kind}",
                hint="one line a class, in the model's order",
            )
        found[kind] = tuple(line.split(",")[0].strip() for line in lines)  # the first of several spellings
    return found
