"""Any dual encoder of transformers: CLIP, SigLIP, ALIGN, VisionTextDualEncoder, Chinese-CLIP, ..."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor

from tiir import __version__
from tiir.data.images import to_rgb
from tiir.errors import ModelError
from tiir.io import sha256_file
from tiir.models.base import ModelInfo

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Precision", "TransformersDualEncoder"]

Precision = Literal["auto", "float32", "bfloat16", "float16"]
FloatArray = npt.NDArray[np.float32]
TOLERANCE = 1e-5  # of unit vectors: below it, trimmed and fully padded captions are the same
PROBES = ("a dog", "two people ride their bicycles along a street", "A man in a red coat, who is reading a "
          "newspaper, sits on a wooden bench in front of a large brick building with many windows")  # fmt: skip


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
        dtype = torch.float32 if precision == "auto" else getattr(torch, precision)
        self._device = _device(device)
        model, self._images, self._tokenizer = _load(name, dtype, revision)
        self._model = model.to(self._device).eval()
        self._dtype = dtype
        self._masked = "attention_mask" in self._tokenizer.model_input_names
        self.max_length = _max_length(model, self._tokenizer)
        self._pad_to: int | None = None
        if self.max_length is not None and not self._trimming_is_exact():
            self._pad_to = self.max_length
        self.info = ModelInfo(
            name=name,
            revision=_revision(name, model),
            device=str(self._device),
            precision=str(dtype).removeprefix("torch."),
            captions=f"padded to {self._pad_to} tokens" if self._pad_to else "bucketed by length",
            versions={
                "python": platform.python_version(),
                "tiir": __version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        )

    def prepare(self, images: Sequence[Image]) -> Tensor:
        """Bring RGB pictures to the tensor that the model sees, (n, 3, H, W)."""
        pixels: Tensor = self._images([to_rgb(image) for image in images], return_tensors="pt")[
            "pixel_values"
        ]
        return pixels

    @torch.inference_mode()
    def encode_prepared(self, pixels: Tensor) -> FloatArray:
        """Vectors of prepared pictures, float32 (n, d), of length 1."""
        return _unit(self._model.get_image_features(pixel_values=pixels.to(self._device, self._dtype)))

    def encode_images(self, images: Sequence[Image]) -> FloatArray:
        """Vectors of RGB pictures, float32 (n, d), of length 1."""
        return self.encode_prepared(self.prepare(images))

    def encode_captions(self, captions: Sequence[str]) -> FloatArray:
        """Vectors of captions, float32 (n, d), of length 1.

        Captions of one call are padded to the longest among them where that changes nothing (see `info.captions`),
        so calls with captions of similar length are the fastest.
        """
        return self._encode(captions, self._pad_to)

    def caption_lengths(self, captions: Sequence[str]) -> npt.NDArray[np.int64]:
        """Tokens of each caption before the model's limit cuts it, (n,)."""
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
        ).to(self._device)
        return _unit(self._model.get_text_features(**tokens))

    def _trimming_is_exact(self) -> bool:
        # Measured on this very model, not believed of its kind: SigLIP has no mask and sees its padding.
        padded = self._encode(PROBES, self.max_length)
        trimmed = np.concatenate([self._encode([probe], None) for probe in PROBES])
        tolerance = TOLERANCE if self._dtype == torch.float32 else 1e-2
        return bool(np.abs(padded - trimmed).max() <= tolerance)


def _device(device: str) -> torch.device:
    if device == "auto":
        device = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as problem:
        raise ModelError(
            f"device {device!r} is not available: {str(problem).splitlines()[0]}",
            hint="use --device cpu or auto",
        ) from None
    return chosen


def _load(name: str, dtype: torch.dtype, revision: str | None) -> tuple[Any, Any, Any]:
    local = Path(name).is_dir()
    if not local and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ModelError(f"no such model directory: {name}")
    options: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
    try:
        model = transformers.AutoModel.from_pretrained(name, dtype=dtype, weights_only=True, **options)
        if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
            raise ModelError(
                f"{name} is a {type(model).__name__}, not a dual encoder",
                hint="a dual encoder has get_image_features and get_text_features: CLIP, SigLIP, ALIGN, ...",
            )
        images = transformers.AutoImageProcessor.from_pretrained(name, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **options)
    except ModelError:
        raise
    except Exception as problem:  # transformers raises many kinds: OSError, ValueError, SafetensorError, ...
        what = "the directory may be incomplete or damaged" if local else (
            "check the id; without a network, give a local directory"
        )  # fmt: skip
        raise ModelError(
            f"cannot load {name}: {str(problem).strip().splitlines()[0]}", hint=what
        ) from problem
    return model, images, tokenizer


def _max_length(model: Any, tokenizer: Any) -> int | None:
    # The tokenizer's limit, unless it has none (a huge number) or the model's positions end before it.
    text = getattr(model.config, "text_config", model.config)
    positions = getattr(text, "max_position_embeddings", None)
    limits = [n for n in (tokenizer.model_max_length, positions) if n is not None and n < 100_000]
    return min(limits, default=None)


def _revision(name: str, model: Any) -> str:
    if not Path(name).is_dir():
        return str(getattr(model.config, "_commit_hash", None) or "unknown")
    digest = hashlib.sha256()
    for path in sorted(Path(name).iterdir()):
        if path.is_file():
            digest.update(f"{path.name} {sha256_file(path)}\n".encode())
    return f"sha256:{digest.hexdigest()[:32]}"


def _unit(features: Any) -> FloatArray:
    # transformers 5 gives an output object, transformers 4 the tensor itself.
    tensor = features if isinstance(features, Tensor) else features.pooler_output
    unit: FloatArray = torch.nn.functional.normalize(tensor.float(), dim=-1).cpu().numpy()
    return unit
