"""Text vectors of CLIP ViT-B/32: captions bucketed by length against every caption padded to 77 tokens.

    python benchmarks/encode_text.py [--captions 2000] [--rounds 3] [--threads 2]

The captions are COCO's, spread over the Karpathy test split (from $TIIR_SHARED/coco/dataset_coco.json). The text
tower has ViT-B/32's shape (512 wide, 12 layers, 49,408 tokens) and random weights: neither time nor equality depends
on the weights. CLIP's own tokenizer is not needed: a BPE is trained here on the split's captions, which gives the
tokens per caption that are printed. Both ways use the same loaded model, tokenizer and batch size; padding every
caption is what open_clip and CLIP_benchmark do. Rounds alternate, the median of their ratios counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

from measure import alternate, ratio, table
from tiir.io import read_json
from tiir.models.dual import TransformersDualEncoder
from tiir.models.scratch import new_clip

LENGTH = 77


def coco_captions() -> list[str]:
    root = Path(os.environ.get("TIIR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    path = root / "coco" / "dataset_coco.json"
    if not path.is_file():
        raise SystemExit(f"skipped: no captions at {path} (set TIIR_SHARED)")
    return [sentence["raw"] for image in read_json(path)["images"] for sentence in image["sentences"]]


def vit_b32(captions: list[str], out: Path, *, pictures: bool) -> TransformersDualEncoder:
    """CLIP ViT-B/32 with random weights; where `pictures` take no part, their tower is as small as it gets."""
    import transformers

    size = 224 if pictures else 32
    new_clip(captions, out, vocabulary=10_000, text_length=LENGTH, image_size=size, patch_size=32, width=64)
    config = transformers.CLIPConfig.from_pretrained(out)
    tokens = {key: getattr(config.text_config, f"{key}_token_id") for key in ("pad", "bos", "eos")}
    full = transformers.CLIPConfig(
        text_config={f"{key}_token_id": value for key, value in tokens.items()},  # all else as in ViT-B/32
        vision_config={} if pictures else config.vision_config.to_dict(),
    )
    torch.manual_seed(0)
    transformers.CLIPModel(full).save_pretrained(out)
    return TransformersDualEncoder(str(out), device="cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    everything = coco_captions()
    captions = everything[:: max(1, len(everything) // options.captions)][: options.captions]
    with tempfile.TemporaryDirectory() as folder:
        model = vit_b32(everything, Path(folder), pictures=False)
    tower = model._model.text_model
    lengths = model.caption_lengths(captions)
    print(
        f"{len(captions):,} COCO captions, {lengths.mean():.1f} tokens on average (longest {lengths.max()}); text tower "
        f"with {sum(p.numel() for p in tower.parameters()) / 1e6:.1f} M random weights, {model.info.captions}, "
        f"torch {torch.__version__}, {options.threads} threads"
    )

    def padded() -> np.ndarray:
        batches = [captions[start : start + 256] for start in range(0, len(captions), 256)]
        return np.concatenate([model._encode(batch, LENGTH) for batch in batches])

    ways = {"bucketed by length": lambda: model.encode_captions(captions), "padded to 77": padded}
    for pad_to in (None, LENGTH):  # warm up
        model._encode(captions[:32], pad_to)
    seconds, vectors = alternate(ways, options.rounds)
    slow = seconds["padded to 77"]
    rows = [
        (name, f"{len(captions) / statistics.median(spent):.0f}", ratio(slow, spent))
        for name, spent in seconds.items()
    ]
    table(["", "captions/s", "faster than padded"], rows)
    a, b = vectors.values()
    print(f"largest difference of unit vectors {np.abs(a - b).max():.1e}")


if __name__ == "__main__":
    main()
