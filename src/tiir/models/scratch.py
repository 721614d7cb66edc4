"""Small models with random weights and their own tokenizers, written like any local model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiir.errors import ModelError

if TYPE_CHECKING:
    from tiir.models.source import Source

__all__ = ["new_clip", "new_lxmert"]

WORD_END = "</w>"


def new_clip(
    captions: Iterable[str],
    out: Path,
    *,
    vocabulary: int = 600,
    text_length: int = 48,
    image_size: int = 60,
    patch_size: int = 10,
    width: int = 128,
    heads: int = 2,
    image_layers: int = 3,
    text_layers: int = 2,
    seed: int = 0,
) -> None:
    """Write a CLIP directory: random weights, image processor, and a BPE tokenizer trained on `captions`.

    Args:
        captions: the texts that the vocabulary is made from.
        out: directory to write.
        vocabulary: largest number of tokens.
        text_length: tokens a caption can have, start and end included.
        image_size, patch_size: pixels.
        width, heads: of both towers and of the shared space.
        image_layers, text_layers: depth.
        seed: of the weights.
    """
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tokenizer = _new_tokenizer(captions, vocabulary, text_length)
    side = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": heads,
        "hidden_act": "gelu",  # faster on CPUs than CLIP's quick_gelu
    }
    config = CLIPConfig(
        text_config=side
        | {
            "num_hidden_layers": text_layers,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": text_length,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config=side
        | {"num_hidden_layers": image_layers, "image_size": image_size, "patch_size": patch_size},
        projection_dim=width,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(out)
    size = {"shortest_edge": image_size}
    CLIPImageProcessor(size=size, crop_size={"height": image_size, "width": image_size}).save_pretrained(out)
    tokenizer.save_pretrained(out)


def new_lxmert(
    captions: Iterable[str],
    out: Path,
    *,
    feature_width: int,
    language: str | Source | None = None,
    vocabulary: int = 600,
    text_length: int = 48,
    width: int = 128,
    heads: int = 4,
    language_layers: int = 2,
    vision_layers: int = 1,
    cross_layers: int = 2,
    seed: int = 0,
) -> None:
    """Write an LXMERT matcher directory: random weights with the study's head, and a tokenizer.

    Args:
        captions: the texts that the vocabulary is made from, where `language` is None.
        out: directory to write.
        feature_width: of the region features.
        language: hub id or directory, or where it was found, of a BERT of the same width and heads, whose tokenizer, embeddings and
            first `language_layers` layers start the language side.
        vocabulary: largest number of tokens, where `language` is None.
        text_length: tokens a caption can have, start and end included, where `language` is None.
        width, heads: of all layers.
        language_layers, vision_layers, cross_layers: depth.
        seed: of the weights.

    Raises:
        ModelError: `language` cannot be loaded, is not a BERT, or has another shape.
    """
    import torch
    from transformers import LxmertConfig

    from tiir.models.lxmert import LxmertMatcher

    bert, tokenizer = (None, _new_tokenizer(captions, vocabulary, text_length)) if language is None else (
        _bert(language, width, heads, language_layers)
    )  # fmt: skip
    if bert is not None:
        text_length = bert.config.max_position_embeddings
        tokenizer.model_max_length = min(tokenizer.model_max_length, text_length)
    config = LxmertConfig(
        vocab_size=len(tokenizer) if bert is None else bert.config.vocab_size,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=text_length,
        l_layers=language_layers,
        r_layers=vision_layers,
        x_layers=cross_layers,
        visual_feat_dim=feature_width,
        hidden_act="gelu" if bert is None else bert.config.hidden_act,
        type_vocab_size=2 if bert is None else bert.config.type_vocab_size,
        # LXMERT's own 0.02 lets little through its layers at the start. With the variance that keeps a signal's size,
        # 200 steps on Scenes give a rsum of 381 where 0.02 gives 28 (100 pictures).
        initializer_range=width**-0.5,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        matcher = LxmertMatcher(config)
    matcher.cls = None
    if bert is not None:
        weights = {f"embeddings.{key}": value for key, value in bert.embeddings.state_dict().items()}
        for n in range(language_layers):
            layer = bert.encoder.layer[n].state_dict()
            weights |= {f"encoder.layer.{n}.{key}": value for key, value in layer.items()}
        unknown = matcher.lxmert.load_state_dict(weights, strict=False).unexpected_keys
        assert set(unknown) <= {"embeddings.position_ids", "embeddings.token_type_ids"}, unknown
    matcher.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _bert(language: str | Source, width: int, heads: int, layers: int) -> tuple[Any, Any]:
    import torch
    import transformers

    from tiir.models.loading import check_tokenizer, quiet
    from tiir.models.source import Source, unloadable

    source = Source.of(language)
    name = source.name
    try:
        with quiet():
            bert, report = transformers.AutoModel.from_pretrained(
                name, dtype=torch.float32, weights_only=True, output_loading_info=True, **source.arguments
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **source.arguments)
    except Exception as problem:  # transformers raises many kinds: OSError, ValueError, SafetensorError, ...
        raise unloadable(source, problem) from problem
    if bert.config.model_type != "bert":
        raise ModelError(
            f"{name} is a {bert.config.model_type} model", hint="language layers come from a BERT"
        )
    if bert.config.layer_norm_eps != 1e-12 or getattr(bert.config, "position_embedding_type", None) not in (
        None,
        "absolute",
    ):
        raise ModelError(
            f"{name} has a layer norm or positions that LXMERT lacks", hint="choose a BERT of the usual kind"
        )
    if lost := [key for key in report["missing_keys"] if not key.startswith("pooler.")]:
        raise ModelError(f"{name} lacks {len(lost)} weights: {', '.join(lost[:3])}", hint="it is incomplete")
    have = (bert.config.hidden_size, bert.config.num_attention_heads, bert.config.intermediate_size)
    if have != (width, heads, 4 * width) or bert.config.num_hidden_layers < layers:
        raise ModelError(
            f"{name} has width {have[0]}, {have[1]} heads, inner width {have[2]}, {bert.config.num_hidden_layers} layers; "
            f"asked for {width}, {heads}, {4 * width}, {layers}",
            hint="set width, heads and language_layers to the BERT's",
        )
    check_tokenizer(name, tokenizer, bert.config.vocab_size)
    return bert, tokenizer


def _new_tokenizer(captions: Iterable[str], vocabulary: int, length: int) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=_train_bpe(list(captions), vocabulary),
        pad_token="<pad>",
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unknown>",
        model_max_length=length,
        model_input_names=["input_ids", "attention_mask"],
    )


def _train_bpe(captions: Sequence[str], vocabulary: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    # CLIPTextModel takes an end token of id 2 for a mistake of old checkpoints and pools elsewhere: end is not 2.
    special = ["<pad>", "<unknown>", "<start>", "<end>"]
    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    split = pre_tokenizers.BertPreTokenizer()
    letters = sorted(
        {letter for text in captions for letter in "".join(normalizer.normalize_str(text).split())}
    )
    # The trainer numbers letters at a word's end in an order that changes from run to run, and breaks ties of
    # merges by number. Named beforehand, as special tokens of a first tokenizer, they are always the same.
    learner = Tokenizer(models.BPE())
    learner.normalizer, learner.pre_tokenizer = normalizer, split
    learner.train_from_iterator(
        captions,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[*special, *(letter + WORD_END for letter in letters)],
            initial_alphabet=letters,
            end_of_word_suffix=WORD_END,
            show_progress=False,
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    merges = [(left, right) for left, right in learned["merges"]]
    bpe = Tokenizer(models.BPE(learned["vocab"], merges, unk_token="<unknown>", end_of_word_suffix=WORD_END))
    bpe.normalizer, bpe.pre_tokenizer = normalizer, split
    bpe.decoder = decoders.BPEDecoder(suffix=WORD_END)
    bpe.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[(token, bpe.token_to_id(token)) for token in ("<start>", "<end>")],
    )
    return bpe
