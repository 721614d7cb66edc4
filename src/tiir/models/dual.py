"""Any dual encoder of transformers: CLIP, SigLIP, ALIGN, VisionTextDualEncoder, Chinese-CLIP, ..."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt
import PIL
import torch
import transformers
from torch import Tensor

from tiir.data.images import to_rgb
from tiir.errors import ModelError
from tiir.models.base import ModelInfo
from tiir.models.loading import (
    PROBES,
    Precision,
    caption_limit,
    check_tokenizer,
    choose_device,
    exact_convolutions,
    settle,
    text_config,
    versions,
)
from tiir.models.source import Source, unloadable

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["TransformersDualEncoder", "load_parts"]

FloatArray = npt.NDArray[np.float32]
TOLERANCE = 1e-5  # of unit vectors: below it, trimmed and fully padded captions are the same
UNUSED = ("position_ids", "logit_scale", "logit_bias", "temperature")  # no part of an embedding


class TransformersDualEncoder:
    """A transformers model with `get_image_features` and `get_text_features`, and its own processor.

    Args:
        name: hub id or directory.
        device: "auto" (cuda, else mps, else cpu) or a torch device.
        precision: of the weights and the arithmetic; "auto" is float32.
        revision: of a hub model.

    Raises:
        ModelError: it cannot be loaded, is no dual encoder, or the device is not there.
    """

    def __init__(
        self, name: str, *, device: str = "auto", precision: Precision = "auto", revision: str | None = None
    ) -> None:
        if precision not in get_args(Precision):
            raise ModelError(f"no precision {precision!r}", hint=f"one of: {', '.join(get_args(Precision))}")
        self._device = choose_device(device)
        self._dtype = torch.float32
        source = Source.of(name, revision)
        model, self._images, self._tokenizer = load_parts(source)
        settle(model, self._device)
        self._model = model.eval()
        self._image_keys = _arguments(model.get_image_features)
        self._text_keys = _arguments(model.get_text_features)
        self.max_length = caption_limit(model, self._tokenizer)
        self._vocabulary: int | None = getattr(text_config(model), "vocab_size", None)
        self._pad_to: int | None = None
        try:
            self._dim = self._check()
            if self.max_length is not None and not self._trimming_is_exact():
                self._pad_to = self.max_length
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as problem:
            raise ModelError(
                f"{name} does not embed an image and a caption: {str(problem).strip()}",
                hint="the model, its tokenizer and its image processor may not belong together",
            ) from problem
        if precision not in ("auto", "float32"):
            self._dtype = getattr(torch, precision)
            self._model.to(self._dtype)
        self.info = ModelInfo(
            name=name,
            revision=source.revision,
            device=str(self._device),
            precision=str(self._dtype).removeprefix("torch."),
            captions=f"padded to {self._pad_to} tokens" if self._pad_to else "bucketed by length",
            versions=versions() | {"pillow": PIL.__version__},
        )

    def to(self, device: str) -> None:
        """Move the model to another device; `info` keeps the first one."""
        self._device = torch.device(device)
        self._model.to(self._device)

    def prepare(self, images: Sequence[Image]) -> dict[str, Tensor]:
        """Bring pictures to the tensors that the model sees: "pixel_values" (n, 3, H, W), and what else it takes.

        Raises:
            ImageError: a picture breaks the image contract, such as an array of floats.
        """
        made = self._images([to_rgb(image) for image in images], return_tensors="pt")
        return {key: value for key, value in made.items() if key in self._image_keys}

    @torch.inference_mode()
    def encode_prepared(self, pixels: dict[str, Tensor]) -> FloatArray:
        """Vectors of prepared pictures, float32 (n, d), of length 1."""
        inputs = {
            key: value.to(self._device, self._dtype if value.is_floating_point() else None, copy=True)
            for key, value in pixels.items()
        }
        return self._unit(self._model.get_image_features, inputs)

    def encode_images(self, images: Sequence[Image], *, batch_size: int = 64) -> FloatArray:
        """Vectors of pictures, float32 (n, d), of length 1."""
        embeds = np.empty((len(images), self._dim), np.float32)
        for start in range(0, len(images), batch_size):
            batch = slice(start, start + batch_size)
            embeds[batch] = self.encode_prepared(self.prepare(images[batch]))
        return embeds

    def encode_captions(self, captions: Sequence[str], *, batch_size: int = 256) -> FloatArray:
        """Vectors of captions, float32 (n, d), of length 1.

        Where padding changes nothing (see `info.captions`), a batch holds captions of one length and no padding;
        elsewhere every caption is padded to the model's full length.
        """
        lengths = self.caption_lengths(captions)
        limit = self._pad_to or self.max_length
        if limit is not None:
            lengths = np.full_like(lengths, limit) if self._pad_to else np.minimum(lengths, limit)
        embeds = np.empty((len(captions), self._dim), np.float32)
        for length in np.unique(lengths):
            bucket = np.flatnonzero(lengths == length)
            for start in range(0, len(bucket), batch_size):
                batch = bucket[start : start + batch_size]
                embeds[batch] = self._encode([captions[i] for i in batch], self._pad_to)
        return embeds

    def caption_lengths(self, captions: Sequence[str]) -> npt.NDArray[np.int64]:
        """Tokens of each caption before the model's limit cuts it, (n,)."""
        if not captions:
            return np.empty(0, np.int64)
        tokens = self._tokenizer(list(captions), truncation=False, padding=False, verbose=False)["input_ids"]
        return np.fromiter(map(len, tokens), np.int64, len(tokens))

    @torch.inference_mode()
    def _encode(self, captions: Sequence[str], pad_to: int | None) -> FloatArray:
        tokens = self._tokenizer(
            list(captions),
            padding="max_length" if pad_to else True,
            truncation=self.max_length is not None,
            max_length=self.max_length,
            return_tensors="pt",
        )
        if self._vocabulary is not None and int(tokens["input_ids"].max()) >= self._vocabulary:
            raise ModelError(
                f"the tokenizer gives token {int(tokens['input_ids'].max())}, the model has {self._vocabulary}",
                hint="the tokenizer files belong to another model",
            )
        inputs = {key: value.to(self._device) for key, value in tokens.items() if key in self._text_keys}
        return self._unit(self._model.get_text_features, inputs)

    def _unit(self, features: Callable[..., Any], inputs: dict[str, Tensor]) -> FloatArray:
        with exact_convolutions():
            output = features(**inputs)
        # transformers 5 gives an output object, transformers 4 the tensor itself.
        vectors = (output if isinstance(output, Tensor) else output.pooler_output).float()
        lengths = vectors.norm(dim=-1, keepdim=True)  # (n, 1)
        bad = int((~(torch.isfinite(lengths) & (lengths > 0))).sum())
        if bad:
            raise ModelError(
                f"the model gives {bad} of {len(vectors)} vectors that are NaN, infinite or zero",
                hint="use --precision float32"
                if self._dtype != torch.float32
                else "its weights are not usable",
            )
        unit: FloatArray = (vectors / lengths).cpu().numpy()
        return unit

    def _check(self) -> int:
        # The width of both sides, which must be one; and captions must not all look the same to the model.
        from PIL import Image

        shape = self.encode_prepared(self.prepare([Image.new("RGB", (64, 48))])).shape
        captions = [self._encode([probe], None) for probe in PROBES]
        if len(shape) != 2 or shape != captions[0].shape:
            raise ValueError(f"an image gives an array {shape}, a caption {captions[0].shape}")
        if all(np.array_equal(captions[0], other) for other in captions):
            raise ValueError("every caption gets the same vector (the end token may not be the model's)")
        return int(shape[1])

    def _trimming_is_exact(self) -> bool:
        # Measured on this very model, in float32, not believed of its kind: SigLIP has no mask and sees its padding.
        padded = self._encode(PROBES, self.max_length)
        trimmed = np.concatenate([self._encode([probe], None) for probe in PROBES])
        return bool(np.abs(padded - trimmed).max() <= TOLERANCE)


def load_parts(name: str | Source) -> tuple[Any, Any, Any]:
    """Read a dual encoder's model, image processor and tokenizer.

    Args:
        name: hub id or directory, or where it was found.

    Raises:
        ModelError: missing, damaged, incomplete, or no dual encoder.
    """
    source = Source.of(name)
    name = source.name
    # Pillow resizes, whether torchvision is installed or not: its own resizing gives other pixels.
    pillow = {"backend": "pil"} if int(transformers.__version__.split(".")[0]) >= 5 else {"use_fast": False}
    try:
        model, report = transformers.AutoModel.from_pretrained(
            name, dtype=torch.float32, weights_only=True, output_loading_info=True, **source.arguments
        )
        if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
            raise ModelError(
                f"{name} is a {type(model).__name__}, not a dual encoder",
                hint=f"give it as lxmert:{name}, with --features"
                if isinstance(model, transformers.LxmertPreTrainedModel)
                else "a dual encoder has get_image_features and get_text_features: CLIP, SigLIP, ALIGN, ...",
            )
        images = transformers.AutoImageProcessor.from_pretrained(name, **pillow, **source.arguments)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **source.arguments)
    except ModelError:
        raise
    except Exception as problem:  # transformers raises many kinds: OSError, ValueError, SafetensorError, ...
        raise unloadable(source, problem) from problem
    # transformers fills what a checkpoint lacks with random numbers and goes on.
    random = sorted(key for key in report["missing_keys"] if not key.endswith(UNUSED))
    if random:
        raise ModelError(
            f"{name} lacks {len(random)} weights of a {type(model).__name__}: {', '.join(random[:3])}",
            hint="the checkpoint is incomplete or of another architecture",
        )
    check_tokenizer(name, tokenizer)
    return model, images, tokenizer


def _arguments(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)
