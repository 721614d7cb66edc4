"""Models that tiir scores with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiir.models.base import DualEncoder
    from tiir.models.dual import Precision

__all__ = ["load"]


def load(
    name: str, *, device: str = "auto", precision: Precision = "auto", revision: str | None = None
) -> DualEncoder:
    """Load a dual encoder by hub id or from a local directory.

    Args:
        name: such as "openai/clip-vit-base-patch32" or "models/mine".
        device: "auto" (cuda, else mps, else cpu), "cpu", "cuda:1", ...
        precision: "float32", "bfloat16" or "float16"; "auto" is float32: the number before the speed.
        revision: commit, tag or branch of a hub model.

    Raises:
        ModelError: it cannot be loaded, is no dual encoder, or the device is not there.
    """
    from tiir.models.dual import TransformersDualEncoder

    return TransformersDualEncoder(name, device=device, precision=precision, revision=revision)
