"""A small CLIP with random weights and its own tokenizer, written like any local model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["new_clip"]

WORD_END = "</w>"


def new_clip(
    captions: Iterable[str],
    out: Path,
    *,
    vocabulary: int = 600,
    text_length: int = 48,
    image_size: int = 64,
    patch_size: int = 8,
    width: int = 128,
    heads: int = 4,
    image_layers: int = 4,
    text_layers: int = 3,
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
    import json

    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

    # CLIPTextModel takes an end token of id 2 for a mistake of old checkpoints and pools elsewhere: end is not 2.
    special = ["<pad>", "<unknown>", "<start>", "<end>"]
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = list(captions)
    letters = sorted({letter for text in texts for letter in bpe.normalizer.normalize_str(text)} - {" "})
    # The trainer numbers letters at a word's end in an order that changes from run to run. Named beforehand (as
    # special tokens, which the final tokenizer does not take over) they and all merges are always the same.
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[*special, *(letter + WORD_END for letter in letters)],
            initial_alphabet=letters,
            end_of_word_suffix=WORD_END,
            show_progress=False,
        ),
    )
    learned = json.loads(bpe.to_str())["model"]
    bpe.model = models.BPE(
        learned["vocab"],
        [(left, right) for left, right in learned["merges"]],
        unk_token="<unknown>",
        end_of_word_suffix=WORD_END,
    )
    rules = (bpe.normalizer, bpe.pre_tokenizer)
    bpe = Tokenizer(bpe.model)
    bpe.normalizer, bpe.pre_tokenizer = rules
    bpe.decoder = decoders.BPEDecoder(suffix=WORD_END)
    start, end = bpe.token_to_id("<start>"), bpe.token_to_id("<end>")
    bpe.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", start), ("<end>", end)]
    )
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
        "hidden_act": "gelu",  # several times faster on CPUs than CLIP's quick_gelu
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
