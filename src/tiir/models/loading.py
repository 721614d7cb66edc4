"""What loading any model takes: devices, tokenizers, and the versions that took part."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
import transformers
from transformers import logging

from tiir import __version__
from tiir.errors import ModelError

__all__ = [
    "PROBES",
    "Precision",
    "caption_limit",
    "check_tokenizer",
    "choose_device",
    "exact_convolutions",
    "quiet",
    "settle",
    "text_config",
    "versions",
]

Precision = Literal["auto", "float32", "bfloat16", "float16"]
PROBES = ("a dog", "two people ride their bicycles along a street", "A man in a red coat, who is reading a "
          "newspaper, sits on a wooden bench in front of a large brick building with many windows")  # fmt: skip


def choose_device(device: str) -> torch.device:
    """The device of a name; "auto" is cuda, else mps, else cpu.

    Raises:
        ModelError: it is not there.
    """
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


def settle(model: torch.nn.Module, device: torch.device) -> None:
    """Bring weights to the device, to memory of their own.

    Weights that are mapped from a file lie where its header leaves them, and matrix products round differently by
    how their operands are aligned: a copied or pickled model would give other bytes.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.to(device, copy=True)


def exact_convolutions() -> AbstractContextManager[None]:
    """Convolutions that give the same numbers each time, and without TF32, which cuDNN takes for float32 otherwise."""
    cudnn = torch.backends.cudnn
    flags: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled, deterministic=True, allow_tf32=False
    )
    return flags


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' report of missing weights: the caller looks at it itself."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def check_tokenizer(name: str, tokenizer: Any, vocabulary: int | None = None) -> None:
    """Refuse the empty tokenizer that transformers makes where files are missing, or one of another model.

    Args:
        name: of the model, for the message.
        tokenizer: as loaded.
        vocabulary: tokens that the model has, if known.

    Raises:
        ModelError: it takes no text, has no padding token, knows no word, or has more tokens than the model.
    """
    hint = "copy all its tokenizer files into the directory"
    try:
        probed = tokenizer(list(PROBES), truncation=False, verbose=False)["input_ids"]
    except Exception as problem:  # tokenizers raises Exception itself
        raise ModelError(f"{name}: its tokenizer takes no text: {problem}", hint=hint) from problem
    known = {token for ids in probed for token in ids}
    if tokenizer.pad_token is None or known <= set(tokenizer.all_special_ids):
        lack = "has no padding token" if tokenizer.pad_token is None else "knows no word"
        raise ModelError(f"{name}: its tokenizer {lack}", hint=hint)
    if vocabulary is not None and len(tokenizer) > vocabulary:
        raise ModelError(
            f"{name}: its tokenizer has {len(tokenizer)} tokens, the model {vocabulary}",
            hint="the tokenizer files belong to another model",
        )


def text_config(model: Any) -> Any:
    """The part of a model's configuration that is about texts."""
    return getattr(model.config, "text_config", model.config)


def caption_limit(model: Any, tokenizer: Any) -> int | None:
    """Tokens that a caption can have: the tokenizer's limit, or the model's positions where they end before it."""
    text = text_config(model)
    positions = getattr(text, "max_position_embeddings", None)
    if positions is not None and "roberta" in text.model_type:  # it counts positions from pad_token_id + 1
        positions -= text.pad_token_id + 1
    limits = [n for n in (tokenizer.model_max_length, positions) if n is not None and n < 100_000]
    return min(limits, default=None)


def versions() -> dict[str, str]:
    """Versions of what takes part in every model's numbers."""
    return {
        "python": platform.python_version(),
        "tiir": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
