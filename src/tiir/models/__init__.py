"""Models that tiir scores with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tiir.errors import ModelError
from tiir.models.base import CrossEncoder, DualEncoder, ModelInfo, PairModel

if TYPE_CHECKING:
    from tiir.features.detected import Detector
    from tiir.models.loading import Precision

__all__ = ["CrossEncoder", "DualEncoder", "ModelInfo", "PairModel", "load", "load_detector"]

# Before the first matrix product: Intel's library, which torch has on CPUs, then rounds alike with every number of threads.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


def load(
    name: str, *, device: str = "auto", precision: Precision = "auto", revision: str | None = None
) -> DualEncoder | Any:
    """Load a model by hub id or from a local directory: a dual encoder, or with "lxmert:" before it an LXMERT.

    Args:
        name: such as "openai/clip-vit-base-patch32", "models/mine", "lxmert:unc-nlp/lxmert-base-uncased".
        device: "auto" (cuda, else mps, else cpu), "cpu", "cuda:1", ...
        precision: "float32", "bfloat16" or "float16"; "auto" is float32: the number before the speed.
        revision: commit, tag or branch of a hub model; of a directory the content hash that it must have.

    Returns:
        A `DualEncoder`, or a `PairModel`, which `bind` makes a `CrossEncoder`.

    Raises:
        ModelError: it cannot be loaded, is of another kind, or the device is not there.
    """
    if name.startswith("lxmert:"):
        from tiir.models.lxmert import Lxmert

        return Lxmert(name.removeprefix("lxmert:"), device=device, precision=precision, revision=revision)
    from tiir.models.dual import TransformersDualEncoder

    return TransformersDualEncoder(name, device=device, precision=precision, revision=revision)


def load_detector(extractor: str, **options: Any) -> Detector:
    """Load an object detector: "frcnn:" or "detr:" and a hub id or directory.

    Args:
        extractor: such as "frcnn:unc-nlp/frcnn-vg-finetuned".
        options: as `tiir.models.frcnn.Frcnn` or `tiir.models.detr.Detr` take them.

    Raises:
        ModelError: it cannot be loaded, is of another kind, or the device is not there.
    """
    kind, _, name = extractor.partition(":")
    if kind == "frcnn" and name:
        from tiir.models.frcnn import Frcnn

        return Frcnn(name, **options)
    if kind == "detr" and name:
        from tiir.models.detr import Detr

        return Detr(name, **options)
    raise ModelError(f"no detector {extractor!r}", hint="frcnn:MODEL or detr:MODEL")
