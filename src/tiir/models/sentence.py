"""Text encoders of the sentence-transformers layout: a transformer and a pooling over its last layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tiir.errors import ModelError
from tiir.io import read_json
from tiir.models.loading import (
    caption_limit,
    check_tokenizer,
    choose_device,
    quiet,
)
from tiir.models.source import Source, model_file, unloadable
from tiir.progress import track

__all__ = ["SentenceEncoder"]

POOLING = "1_Pooling/config.json"
STEPS = {"Transformer", "Pooling", "Normalize"}
"""Modules of the layout that are known: vectors are of unit length, with or without the last."""


class SentenceEncoder:
    """Turns texts into vectors of unit length.

    The mean over the tokens of the last layer, or its first token where the model's `1_Pooling/config.json` says
    so. Weights must be safetensors.

    Args:
        name: a directory, or a hub id such as "sentence-transformers/all-MiniLM-L6-v2".
        device: "auto", "cpu", "cuda", ...

    Raises:
        ModelError: it cannot be loaded, or pools in another way or has further layers.
    """

    def __init__(self, name: str, *, device: str = "auto") -> None:
        from transformers import AutoModel, AutoTokenizer

        source = Source.of(name)
        try:
            with quiet():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(name, **source.arguments)
                model, report = AutoModel.from_pretrained(
                    name, use_safetensors=True, output_loading_info=True, **source.arguments
                )
        except (
            Exception
        ) as problem:  # transformers raises many kinds: OSError, ValueError, SafetensorError, ...
            raise unloadable(source, problem) from problem
        # transformers fills what a checkpoint lacks with random numbers; the pooler is not used here.
        if random := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
            raise ModelError(
                f"{name} lacks {len(random)} weights of a {type(model).__name__}: {', '.join(random[:3])}",
                hint="the checkpoint is incomplete or of another architecture",
            )
        check_tokenizer(name, self._tokenizer, getattr(model.config, "vocab_size", None))
        self._device = choose_device(device)
        self._model = model.to(self._device).eval()
        self._first = _takes_first(source)
        self._limit = caption_limit(model, self._tokenizer)

    def encode(self, texts: Sequence[str], *, batch_size: int = 128) -> npt.NDArray[np.float32]:
        """Vectors of texts, float32 (n, d). Texts of like length go together; each distinct text once."""
        distinct = {text: n for n, text in enumerate(dict.fromkeys(texts))}
        ordered = sorted(distinct, key=len)
        if not ordered:
            return np.empty((0, self._model.config.hidden_size), np.float32)
        batches = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
        parts = [
            self._batch(batch)
            for batch in track(
                batches, total=len(ordered), description="texts", unit="texts", step=batch_size
            )
        ]
        made = np.concatenate(parts)
        place = {text: n for n, text in enumerate(ordered)}
        vectors: npt.NDArray[np.float32] = made[[place[text] for text in texts]]
        return vectors

    @torch.inference_mode()
    def _batch(self, texts: list[str]) -> npt.NDArray[np.float32]:
        inputs = self._tokenizer(
            texts,
            padding=True,
            truncation=self._limit is not None,
            max_length=self._limit,
            return_tensors="pt",
        ).to(self._device)
        states = self._model(**inputs).last_hidden_state
        if self._first:
            pooled = states[:, 0]
        else:
            mask = inputs["attention_mask"].unsqueeze(-1)
            pooled = (states * mask).sum(1) / mask.sum(1)
        unit: npt.NDArray[np.float32] = torch.nn.functional.normalize(pooled.float(), dim=1).cpu().numpy()
        return unit


def _takes_first(source: Source) -> bool:
    name = source.name
    modules, pooling = _layout(source, "modules.json") or [], _layout(source, POOLING)
    if not (
        isinstance(modules, list)
        and all(isinstance(module, dict) and "type" in module for module in modules)
        and (pooling is None or isinstance(pooling, dict))
    ):
        raise ModelError(
            f"{name}: modules.json or {POOLING} is not of the sentence-transformers layout",
            hint="copy all its files again",
        )
    if other := {str(module["type"]).rsplit(".", 1)[-1] for module in modules} - STEPS:
        raise ModelError(
            f"{name} has steps that are not known here: {', '.join(sorted(other))}",
            hint="encoders of a transformer and a pooling are supported",
        )
    if pooling is None:
        return False
    modes = {key for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True}
    if modes == {"pooling_mode_cls_token"}:
        return True
    if modes != {"pooling_mode_mean_tokens"}:
        raise ModelError(
            f"{name}/{POOLING} asks for {', '.join(sorted(modes)) or 'no pooling'}",
            hint="encoders that take the mean of the tokens or the first token are supported",
        )
    return False


def _layout(source: Source, file: str) -> Any:
    # A JSON file of the model; None where it has no such file. Where that cannot be told, a guess would give other vectors.
    path = model_file(source, file)
    return None if path is None else read_json(path, error=ModelError)
