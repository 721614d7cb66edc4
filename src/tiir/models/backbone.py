"""Any vision backbone of transformers as a map of features: ResNet, ConvNeXt, ViT, DINOv2, Swin, CLIP's image tower, ..."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import PIL
import torch
import transformers
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from tiir.data.images import to_rgb
from tiir.errors import ModelError
from tiir.models.base import ModelInfo
from tiir.models.loading import (
    choose_device,
    exact_convolutions,
    quiet,
    settle,
    versions,
)
from tiir.models.source import Source, unloadable

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["VisionBackbone"]

FloatArray = npt.NDArray[np.float32]


class VisionBackbone:
    """A transformers vision model whose last features lie on a grid over the picture.

    The whole picture is resized to a square, without the centre crop that many processors do, so that every cell of
    the grid has a known place in it. Colours are brought to the model's range by its own processor.

    Args:
        name: hub id or directory.
        device: "auto" (cuda, else mps, else cpu) or a torch device.
        size: pixels a side of the input; by default the processor's own.
        revision: of a hub model.

    Raises:
        ModelError: it cannot be loaded, has no grid of features, or the device is not there.
    """

    def __init__(
        self, name: str, *, device: str = "auto", size: int | None = None, revision: str | None = None
    ) -> None:
        self._device = choose_device(device)
        source = Source.of(name, revision)
        whole, self._processor = _load(source)
        self._model = getattr(whole, "vision_model", whole).eval()
        settle(self._model, self._device)
        self._config = getattr(whole.config, "vision_config", whole.config)
        self.size = size or _own_size(name, self._processor)
        resized = getattr(self._config, "image_size", self.size) != self.size
        accepts = "interpolate_pos_encoding" in inspect.signature(self._model.forward).parameters
        self._options = {"interpolate_pos_encoding": True} if accepts and resized else {}
        try:
            probe = self._map(self.prepare([PIL.Image.new("RGB", (64, 48), "grey")]))  # (1, D, H, W)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as problem:
            raise ModelError(
                f"{name} does not take pictures of {self.size} x {self.size} pixels: {str(problem).strip()}",
                hint="it may not be a vision backbone; or choose the --size it was trained with",
            ) from problem
        self.width = int(probe.shape[1])
        self.grid = (int(probe.shape[2]), int(probe.shape[3]))
        flipped = bool(getattr(self._processor, "do_flip_channel_order", False))
        self.colour: Literal["rgb", "bgr"] = "bgr" if flipped else "rgb"
        self.info = ModelInfo(
            name=name,
            revision=source.revision,
            device=str(self._device),
            precision="float32",
            captions="none",
            versions=versions() | {"pillow": PIL.__version__},
        )

    def to(self, device: str) -> None:
        """Move the model to another device; `info` keeps the first one."""
        self._device = torch.device(device)
        self._model.to(self._device)

    def prepare(self, images: Sequence[Image]) -> Tensor:
        """Bring pictures to the tensor that the model sees, (n, 3, size, size).

        Raises:
            ImageError: a picture breaks the image contract, such as an array of floats.
        """
        resample = getattr(self._processor, "resample", None)
        resample = PIL.Image.Resampling.BICUBIC if resample is None else PIL.Image.Resampling(int(resample))
        squares = [to_rgb(image).resize((self.size, self.size), resample) for image in images]
        off = {
            key: False for key in ("do_resize", "do_center_crop", "do_pad") if hasattr(self._processor, key)
        }
        pixels: Tensor = self._processor(squares, return_tensors="pt", **off)["pixel_values"]
        if pixels.shape != (len(images), 3, self.size, self.size):
            raise ModelError(
                f"its image processor gives a tensor {tuple(pixels.shape)} of pictures of {self.size} pixels a side",
                hint="this kind of processor is not supported",
            )
        return pixels

    @torch.inference_mode()
    def encode_cells(self, pixels: Tensor, cells: int) -> FloatArray:
        """Mean features of a grid of `cells` x `cells`, row by row: float32 (n, cells * cells, D).

        Raises:
            ModelError: its features are not finite.
        """
        pooled = adaptive_avg_pool2d(self._map(pixels), cells)  # (n, D, cells, cells)
        if not bool(torch.isfinite(pooled).all()):
            raise ModelError(
                f"{self.info.name} gives features that are NaN or infinite",
                hint="its weights are not usable",
            )
        made: FloatArray = pooled.flatten(2).transpose(1, 2).float().cpu().numpy()  # (n, cells * cells, D)
        return made

    @torch.inference_mode()
    def _map(self, pixels: Tensor) -> Tensor:
        with exact_convolutions():
            output = self._model(pixel_values=pixels.to(self._device, copy=True), **self._options)
        last: Tensor = output.last_hidden_state
        if last.ndim == 4:  # (n, D, H, W)
            return last
        n, tokens, width = last.shape
        patch = getattr(self._config, "patch_size", None)
        side = self.size // patch if isinstance(patch, int) else 0
        extra = tokens - side * side
        if not (side and 0 <= extra <= 16):  # Swin merges patches and has no other tokens
            side, extra = math.isqrt(tokens), 0
        if side * side + extra != tokens:
            raise ValueError(f"its {tokens} tokens are not a square grid")
        # [CLS], distillation and register tokens come first.
        return last[:, extra:].transpose(1, 2).reshape(n, width, side, side)


def _load(source: Source) -> tuple[Any, Any]:
    try:
        with quiet():
            model, report = transformers.AutoModel.from_pretrained(
                source.name,
                dtype=torch.float32,
                weights_only=True,
                output_loading_info=True,
                **source.arguments,
            )
            # Pillow resizes, whether torchvision is installed or not: its own resizing gives other pixels.
            processor = transformers.AutoImageProcessor.from_pretrained(
                source.name, backend="pil", **source.arguments
            )
    except Exception as problem:  # transformers raises many kinds: OSError, ValueError, SafetensorError, ...
        raise unloadable(source, problem) from problem
    # transformers fills what a checkpoint lacks with random numbers and goes on.
    prefix = "vision_model." if hasattr(model, "vision_model") else ""
    random = sorted(
        key for key in report["missing_keys"]
        if key.startswith(prefix) and "pooler" not in key and not key.endswith("position_ids")
    )  # fmt: skip
    if random:
        raise ModelError(
            f"{source.name} lacks {len(random)} weights of a {type(model).__name__}: {', '.join(random[:3])}",
            hint="the checkpoint is incomplete or of another architecture",
        )
    return model, processor


def _own_size(name: str, processor: Any) -> int:
    for key in ("crop_size", "size"):
        size: Any = getattr(processor, key, None) or {}
        if key == "crop_size" and not getattr(processor, "do_center_crop", False):
            continue
        for side in ("height", "shortest_edge"):
            value = size.get(side) if hasattr(size, "get") else getattr(size, side, None)
            if value:
                return int(value)
    raise ModelError(f"{name}: its image processor names no size", hint="choose one with --size, such as 224")
