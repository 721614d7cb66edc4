"""LXMERT as a matcher of images and captions: loaded from anywhere, scored exactly and fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor, nn
from transformers.models.lxmert.modeling_lxmert import (
    LxmertModel,
    LxmertPreTrainedModel,
    LxmertVisualAnswerHead,
)

from tiir.errors import ModelError
from tiir.models.base import ModelInfo
from tiir.models.loading import (
    Precision,
    caption_limit,
    check_tokenizer,
    choose_device,
    quiet,
    settle,
    versions,
)
from tiir.models.source import Source, unloadable
from tiir.revisions import pinned

if TYPE_CHECKING:
    from tiir.features.store import FeatureStore
    from tiir.models.pairs import PairScorer

__all__ = ["Lxmert", "LxmertMatcher", "load_matcher"]


class LxmertMatcher(LxmertPreTrainedModel):  # type: ignore[misc]
    """LxmertModel with a head that says how well an image and a caption match.

    The head is the original study's (`match_head.logit_fc`: Linear h to 2h, GELU, LayerNorm, Linear 2h to 1) or
    LXMERT's own of the pre-training (`cls.seq_relationship`: matched against not matched), which makes a
    zero-shot matcher. `save_pretrained` and `load_matcher` are inverse.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.lxmert = LxmertModel(config)
        self.match_head: nn.Module | None = LxmertVisualAnswerHead(config, 1)
        self.cls: nn.Module | None = _Relationship(config.hidden_size)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, visual_feats: Tensor, visual_pos: Tensor
    ) -> Tensor:
        """The plain forward pass of transformers: the definition of the score.

        Args:
            input_ids, attention_mask: (B, T).
            visual_feats: (B, R, D).
            visual_pos: (B, R, 4).

        Returns:
            Matching scores (B,), logits: above 0 means matched.
        """
        outputs = self.lxmert(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=torch.zeros_like(input_ids),
            visual_feats=visual_feats,
            visual_pos=visual_pos,
            return_dict=True,
        )
        return self.head(outputs.pooled_output)

    def head(self, pooled: Tensor) -> Tensor:
        """Scores (p,) of pooled outputs (p, h), in the head's own precision."""
        head: Any = self.cls.seq_relationship if self.match_head is None else self.match_head  # type: ignore[union-attr]
        with torch.autocast(pooled.device.type, enabled=False):
            scores: Tensor = head(pooled.to(next(head.parameters()).dtype))  # (p, 1), or (p, 2): no and yes
        return scores[:, 0] if self.match_head is not None else scores[:, 1] - scores[:, 0]

    def to_precision(self, dtype: torch.dtype) -> LxmertMatcher:
        """Bring the layers to a precision, but the head to float32: 16 bits know so few scores that they tie."""
        self.to(dtype)
        for head in (self.match_head, self.cls):
            if head is not None:
                head.float()
        return self


class _Relationship(nn.Module):
    # Named as in LXMERT's checkpoints: cls.seq_relationship.
    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq_relationship = nn.Linear(width, 2)


def load_matcher(name: str | Source, *, new_head: bool = False) -> tuple[LxmertMatcher, Any]:
    """Read an LXMERT with its tokenizer, as float32 on the CPU.

    Args:
        name: hub id, such as "unc-nlp/lxmert-base-uncased", or a directory: fine-tuned by tiir, by the original
            study, or pre-trained; or where it was found.
        new_head: where the checkpoint has no `match_head`, add one with random weights to be trained, instead
            of LXMERT's own zero-shot head.

    Returns:
        The matcher in evaluation mode, and the tokenizer.

    Raises:
        ModelError: missing, damaged, incomplete, no LXMERT, or without any head that matches.
    """
    source = Source.of(name)
    name = source.name
    try:
        config = transformers.AutoConfig.from_pretrained(name, **source.arguments)
        if config.model_type != "lxmert":
            raise ModelError(f"{name} is a {config.model_type} model", hint="it must be an LXMERT")
        if not config.x_layers:
            raise ModelError(f"{name} has no cross layers", hint="it cannot score a pair")
        with quiet():
            matcher, report = LxmertMatcher.from_pretrained(
                name,
                config=config,
                dtype=torch.float32,
                weights_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name
                **source.arguments,
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **source.arguments)
    except ModelError:
        raise
    except Exception as problem:  # transformers raises many kinds: OSError, ValueError, SafetensorError, ...
        raise unloadable(source, problem) from problem
    heads = ("match_head.", "cls.")
    own = set(matcher.state_dict())
    reshaped = {key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]}
    lost = set(report["missing_keys"]) | reshaped
    absent = [head for head in heads if {key for key in own if key.startswith(head)} <= lost - reshaped]
    wrong = sorted(key for key in lost if not key.startswith(tuple(absent)))
    if wrong:
        raise ModelError(
            f"{name} lacks {len(wrong)} weights of an LXMERT, or has them in another shape: {', '.join(wrong[:3])}",
            hint="the checkpoint is incomplete or of another architecture",
        )
    if "match_head." not in absent or new_head:
        matcher.cls = None
    elif "cls." not in absent:
        matcher.match_head = None
    else:
        raise ModelError(
            f"{name} has no head that matches images and captions (match_head or cls.seq_relationship)",
            hint="fine-tune it first: tiir train lxmert",
        )
    check_tokenizer(name, tokenizer, config.vocab_size)
    return matcher.eval(), tokenizer


class Lxmert:
    """An LXMERT to score with, as `tiir.models.load("lxmert:NAME")` gives it.

    Args:
        name: hub id or directory.
        device: "auto" (cuda, else mps, else cpu) or a torch device.
        precision: of the weights and the arithmetic; "auto" is float32. Scores are always float32.
        revision: of a hub model.

    Raises:
        ModelError: it cannot be loaded, or the device is not there.
    """

    def __init__(
        self, name: str, *, device: str = "auto", precision: Precision = "auto", revision: str | None = None
    ) -> None:
        if precision not in get_args(Precision):
            raise ModelError(f"no precision {precision!r}", hint=f"one of: {', '.join(get_args(Precision))}")
        chosen = choose_device(device)
        dtype = torch.float32 if precision == "auto" else getattr(torch, precision)
        source = Source.of(name, revision)
        matcher, self.tokenizer = load_matcher(source)
        self.matcher = matcher.to_precision(dtype)
        settle(self.matcher, chosen)
        positions: int = matcher.config.max_position_embeddings
        self.max_length = caption_limit(matcher, self.tokenizer) or positions
        self.info = ModelInfo(
            name=f"lxmert:{name}",
            revision=source.revision,
            device=str(chosen),
            precision=str(dtype).removeprefix("torch."),
            captions="grouped by length",
            versions=versions(),
        )

    def caption_lengths(self, captions: Sequence[str]) -> npt.NDArray[np.int64]:
        """Tokens of each caption before the model's limit cuts it, (n,)."""
        if not captions:
            return np.empty(0, np.int64)
        tokens = self.tokenizer(list(captions), truncation=False, padding=False, verbose=False)["input_ids"]
        return np.fromiter(map(len, tokens), np.int64, len(tokens))

    def tokens(self, captions: Sequence[str]) -> list[list[int]]:
        """Token ids of each caption, cut at the model's limit."""
        if not captions:
            return []
        ids: list[list[int]] = self.tokenizer(
            list(captions), truncation=True, max_length=self.max_length, padding=False
        )["input_ids"]
        return ids

    def bind(
        self,
        captions: Sequence[str],
        image_ids: Sequence[str],
        features: FeatureStore,
        *,
        memory: int = 2 * 1024**3,
    ) -> PairScorer:
        """The CrossEncoder of these captions and images.

        Args:
            captions: texts.
            image_ids: images whose regions are in `features`.
            features: region features of the width that the model was trained with.
            memory: bytes that tensors of images, captions and pairs may take together, besides the weights.

        Raises:
            DataError: an image is not in `features`.
            ModelError: the features are not of the extractor, or not of the width, that the model was trained with.
            ConfigError: the memory does not hold one pair.
        """
        from tiir.models.pairs import PairScorer

        self._check_extractor(features)
        tokens = self.tokens(captions)
        return PairScorer(self.matcher, self.info, tokens, image_ids, features, memory=memory)

    def _check_extractor(self, features: FeatureStore) -> None:
        # Training by tiir writes down what the model saw; models from elsewhere say nothing.
        seen = getattr(self.matcher.config, "region_features", None) or {}
        if key := features.info.difference(seen):
            raise ModelError(
                f"{self.info.name} was trained on features with {key} {seen[key]!r}, "
                f"these have {features.info.origin[key]!r}",
                hint=f"extract the features with {seen.get('extractor')}{pinned(seen[key])}",
            )
