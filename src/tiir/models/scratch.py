"""A small CLIP with random weights and its own tokenizer, written like any local model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["new_clip"]

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
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

    bpe = _train_bpe(list(captions), vocabulary)
    start, end = bpe.token_to_id("<start>"), bpe.token_to_id("<end>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unknown>",
        model_max_length=text_length,
        model_input_names=["input_ids", "attention_mask"],
    )
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
            "vocab_size": bpe.get_vocab_size(),
            "max_position_embeddings": text_length,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": start,
            "eos_token_id": end,
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
