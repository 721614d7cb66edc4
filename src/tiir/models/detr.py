"""Regions from any transformers object detector: DETR, Conditional and Deformable DETR, RT-DETR, D-FINE, YOLOS, ...

Carion et al., "End-to-End Object Detection with Transformers" (ECCV 2020), https://arxiv.org/abs/2005.12872.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import PIL.Image
import torch
import transformers
from torch import Tensor

from tiir.data.images import to_rgb
from tiir.errors import ImageError, ModelError
from tiir.features.detected import Detections
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

__all__ = ["Detr"]


class Detr:
    """A detector with one state and one box a query: the states of the best boxes are the regions' features.

    Args:
        name: hub id such as "facebook/detr-resnet-50", or a directory.
        device: "auto" (cuda, else mps, else cpu) or a torch device.
        revision: of a hub model.

    Raises:
        ModelError: it cannot be loaded, is no such detector, or the device is not there.
    """

    kind = "detr"
    padding = 0.0  # a convolution sees an edge where padding begins
    per_region: Mapping[str, str] = {"object_ids": "int32", "object_scores": "float32"}
    per_image: Mapping[str, str] = {}

    def __init__(self, name: str, *, device: str = "auto", revision: str | None = None) -> None:
        self._name, self._device = name, choose_device(device)
        source = Source.of(name, revision)
        self._model, self._processor = _load(source)
        settle(self._model.eval(), self._device)
        self._off = {"do_pad": False} if hasattr(self._processor, "do_pad") else {}
        self.input_size = lru_cache(maxsize=None)(self._input_size)
        flipped = bool(getattr(self._processor, "do_flip_channel_order", False))
        self.colour: Literal["rgb", "bgr"] = "bgr" if flipped else "rgb"
        try:
            probe = self._run(self.prepare(PIL.Image.new("RGB", (64, 48), "grey"))[None])
            self.queries, self.width = probe.states.shape[1:]
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as problem:
            raise ModelError(
                f"{name} is not a detector with a state a box: {str(problem).strip()}",
                hint="give an object-detection model of transformers, such as facebook/detr-resnet-50",
            ) from problem
        labels = self._model.config.id2label
        known = [str(labels.get(i, i)) for i in range(self._model.config.num_labels)]
        given = any(label != f"LABEL_{i}" for i, label in enumerate(known))
        self.names: Mapping[str, Sequence[str]] = {"objects": tuple(known)} if given else {}
        self.notes: Mapping[str, Any] = {"queries": self.queries, "order": "best class score first"}
        self.info = ModelInfo(
            name=name,
            revision=source.revision,
            device=str(self._device),
            precision="float32",
            captions="none",
            versions=versions() | {"pillow": PIL.__version__},
        )

    def _input_size(self, width: int, height: int) -> tuple[int, int]:
        # The processor's own answer, once for every size that pictures have.
        try:
            _, h, w = self.prepare(PIL.Image.new("RGB", (width, height))).shape
        except ImageError:  # said again of the picture itself, when its turn comes
            return height, width
        return h, w

    def to(self, device: str) -> None:
        """Move the model to another device; `info` keeps the first one."""
        self._device = torch.device(device)
        self._model.to(self._device)

    def prepare(self, image: Image) -> Tensor:
        """Bring a picture to the tensor that the model sees, (3, h, w).

        Raises:
            ImageError: the model's own processor does not take a picture of this shape.
        """
        rgb = to_rgb(image)
        try:
            pixels: Tensor = self._processor(rgb, return_tensors="pt", **self._off)["pixel_values"]
        except ValueError as problem:
            raise ImageError(
                f"the image processor of {self._name} does not take a picture of {rgb.width} x {rgb.height} pixels: "
                f"{str(problem).splitlines()[0]}",
                hint="leave the picture out with --on-bad skip, or use another extractor",
            ) from problem
        return pixels[0]

    @torch.inference_mode()
    def detect(self, pixels: Sequence[Tensor], boxes: int) -> list[Detections]:
        """The best `boxes` queries of each prepared picture, all of one shape; ties in the order of the queries.

        Raises:
            ModelError: the model has fewer queries, or its states are not finite.
        """
        if boxes > self.queries:
            raise ModelError(
                f"{self.info.name} has {self.queries} queries, fewer than {boxes} boxes",
                hint=f"use --boxes {self.queries}",
            )
        out = self._run(torch.stack(list(pixels)))
        if not bool(torch.isfinite(out.states).all()):
            raise ModelError(
                f"{self.info.name} gives states that are NaN or infinite", hint="its weights are not usable"
            )
        best, kinds = out.scores.max(2)  # (n, Q) each
        made = []
        for i in range(len(pixels)):
            order = best[i].argsort(descending=True, stable=True)[:boxes]
            centre, half = out.boxes[i, order, :2], out.boxes[i, order, 2:] / 2
            corners = torch.cat([centre - half, centre + half], 1).clamp(0, 1)
            made.append(
                Detections(
                    regions=out.states[i, order].cpu().numpy(),
                    boxes=corners.cpu().numpy(),
                    columns={
                        "object_ids": kinds[i, order].int().cpu().numpy(),
                        "object_scores": best[i, order].cpu().numpy(),
                    },
                )
            )
        return made

    @torch.inference_mode()
    def _run(self, pixels: Tensor) -> _Output:
        with exact_convolutions():
            output = self._model(pixel_values=pixels.to(self._device, copy=True))
        logits, boxes = output.logits.float(), output.pred_boxes.float()
        # DETR and YOLOS have one class more, "no object", and a softmax; the later ones have none, and sigmoids.
        nothing = logits.shape[-1] == self._model.config.num_labels + 1
        scores = logits.softmax(-1)[..., :-1] if nothing else logits.sigmoid()
        return _Output(output.last_hidden_state[:, -boxes.shape[1] :].float(), boxes, scores)


class _Output:
    def __init__(self, states: Tensor, boxes: Tensor, scores: Tensor) -> None:
        self.states = states  # (n, Q, D); YOLOS has its patches before them
        self.boxes = boxes  # (n, Q, 4) cx cy w h in [0, 1]
        self.scores = scores  # (n, Q, C)


def _load(source: Source) -> tuple[Any, Any]:
    try:
        with quiet():
            model, report = transformers.AutoModelForObjectDetection.from_pretrained(
                source.name,
                dtype=torch.float32,
                weights_only=True,
                output_loading_info=True,
                **source.arguments,
            )
            processor = transformers.AutoImageProcessor.from_pretrained(
                source.name, backend="pil", **source.arguments
            )
    except Exception as problem:  # transformers raises many kinds: OSError, ValueError, SafetensorError, ...
        raise unloadable(source, problem) from problem
    random = sorted(report["missing_keys"])
    if random:
        raise ModelError(
            f"{source.name} lacks {len(random)} weights of a {type(model).__name__}: {', '.join(random[:3])}",
            hint="the checkpoint is incomplete or of another architecture",
        )
    return model, processor
