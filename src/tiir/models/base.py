"""What tiir asks of a model: a dual encoder gives a vector a side, a cross encoder a score a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

    from tiir.features.store import FeatureStore

__all__ = ["CrossEncoder", "DualEncoder", "ModelInfo", "PairModel"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ModelInfo:
    """Where a model came from and how it computes.

    Args:
        name: hub id or directory.
        revision: commit of a hub model, content hash of a directory.
        device: such as "cpu" or "cuda:0".
        precision: "float32", "bfloat16" or "float16".
        captions: how captions are padded, such as "bucketed by length".
        versions: of the libraries that took part.
    """

    name: str
    revision: str
    device: str
    precision: str
    captions: str
    versions: dict[str, str] = field(default_factory=dict)


class DualEncoder(Protocol):
    """A model with one vector for each image and each caption; their dot product is the score."""

    info: ModelInfo
    max_length: int | None  # tokens; longer captions are cut

    def prepare(self, images: Sequence[Image]) -> Any:
        """Bring RGB pictures to the tensors that the model sees; may run in another thread."""

    def encode_prepared(self, pixels: Any) -> FloatArray:
        """Vectors of prepared pictures, float32 (n, d), of length 1."""

    def encode_images(self, images: Sequence[Image], *, batch_size: int = ...) -> FloatArray:
        """Vectors of RGB pictures, float32 (n, d), of length 1."""

    def encode_captions(self, captions: Sequence[str], *, batch_size: int = ...) -> FloatArray:
        """Vectors of captions, float32 (n, d), of length 1."""

    def caption_lengths(self, captions: Sequence[str]) -> npt.NDArray[np.int64]:
        """Tokens of each caption before the model's limit cuts it, (n,)."""

    def to(self, device: str) -> None:
        """Move the model to another device; `info` keeps the first one."""


class CrossEncoder(Protocol):
    """A model with one score for each pair, bound to one list of images and one list of captions.

    Images and captions are named by their positions in these lists.
    """

    info: ModelInfo

    def score_block(self, images: IntArray, captions: IntArray) -> FloatArray:
        """Scores of every given image (n,) against every given caption (m,), float32 (n, m)."""

    def score_pairs(self, images: IntArray, captions: IntArray) -> FloatArray:
        """Scores of pairs: image (p,) and caption (p,) at the same place, float32 (p,)."""

    def to(self, device: str) -> None:
        """Move the model to another device; `info` keeps the first one."""


class PairModel(Protocol):
    """A cross encoder as `tiir.models.load("lxmert:NAME")` gives it, to be bound to captions and images."""

    info: ModelInfo
    max_length: int  # tokens; longer captions are cut

    def caption_lengths(self, captions: Sequence[str]) -> IntArray:
        """Tokens of each caption before the model's limit cuts it, (n,)."""

    def bind(
        self, captions: Sequence[str], image_ids: Sequence[str], features: FeatureStore, *, memory: int = ...
    ) -> CrossEncoder:
        """What scores pairs of `captions` and of `image_ids`, whose regions `features` holds, in `memory` bytes."""
