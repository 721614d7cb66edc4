"""Pairs per second of LXMERT-base: the factored model against the plain transformers forward in padded batches.

    python benchmarks/lxmert_pairs.py [--captions 192] [--images 16] [--rounds 3] [--device cuda --precision bfloat16]

Random weights of LXMERT-base's shape and random regions (36 x 2048): neither changes the work. Caption lengths are
those of real COCO captions (TIIR_SHARED) under a word tokenizer, else drawn about their mean.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from transformers import LxmertConfig

from measure import alternate, ratio, table
from tiir.models.base import ModelInfo
from tiir.models.factored import multiplications
from tiir.models.lxmert import LxmertMatcher
from tiir.models.pairs import PairScorer

BATCH = 64  # pairs of a plain batch
REGIONS = 36


class Regions:
    """What a PairScorer asks of a FeatureStore, in memory."""

    width, n_regions = 2048, REGIONS

    def __init__(self, images: int) -> None:
        draw = np.random.default_rng(0)
        self.regions = draw.random((images, REGIONS, 2048), np.float32)
        self.boxes = np.sort(draw.random((images, REGIONS, 2, 2), np.float32), axis=2).reshape(
            images, REGIONS, 4
        )

    def rows(self, image_ids: list[int]) -> np.ndarray:
        return np.asarray(image_ids)

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.regions[rows], self.boxes[rows]


def caption_lengths(n: int) -> tuple[np.ndarray, str]:
    """Tokens of n captions: words and marks, [CLS] and [SEP]."""
    draw = np.random.default_rng(0)
    file = Path(os.environ.get("TIIR_SHARED", "../shared")) / "coco" / "dataset_coco.json"
    if file.exists():
        import re

        images = json.loads(file.read_text())["images"]
        texts = [sentence["raw"] for image in images for sentence in image["sentences"]]
        chosen = draw.choice(len(texts), n, replace=False)
        return np.array([len(re.findall(r"\w+|[^\w\s]", texts[i])) + 2 for i in chosen]), "real COCO captions"
    return np.clip(draw.normal(13.5, 2.7, n).round(), 8, 40).astype(int), "drawn lengths"


class Contest:
    """All pairs of some images and captions, by the plain forward pass and by the factored model.

    Args:
        captions, images: how many.
        device, dtype: where, and in what precision.
    """

    def __init__(self, captions: int, images: int, device: torch.device, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.config, self.device, self.dtype = LxmertConfig(), device, dtype
        self.matcher = LxmertMatcher(self.config).eval()
        self.matcher.cls = None
        self.matcher.to_precision(dtype).to(device)
        self.lengths, self.source = caption_lengths(captions)
        self.ids = [torch.randint(1, self.config.vocab_size, (int(n),)).tolist() for n in self.lengths]
        self.store = Regions(images)
        info = ModelInfo(
            "lxmert-base shape", "", str(device), str(dtype).removeprefix("torch."), "grouped by length"
        )
        self.shape = images, captions
        self.scorer = PairScorer(
            self.matcher, info, self.ids, list(range(images)), self.store, memory=2 * 1024**3
        )
        self.padded = 0  # tokens of the plain pass, padding included

    @torch.inference_mode()
    def plain(self) -> np.ndarray:
        scores, self.padded = np.empty(self.shape, np.float32), 0
        flat = list(np.ndindex(self.shape))
        for start in range(0, len(flat), BATCH):
            image, caption = map(list, zip(*flat[start : start + BATCH], strict=True))
            words = [torch.tensor(self.ids[c]) for c in caption]
            tokens = torch.nn.utils.rnn.pad_sequence(words, batch_first=True).to(self.device)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(w) for w in words], batch_first=True)
            regions, boxes = (
                torch.from_numpy(a).to(self.device, self.dtype) for a in self.store.read(np.array(image))
            )
            found = self.matcher(tokens, mask.to(self.device), regions, boxes)
            scores[image, caption] = found.float().cpu().numpy()
            self.padded += tokens.numel()
        return scores

    def factored(self) -> np.ndarray:
        return self.scorer.score_block(*map(np.arange, self.shape))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=192)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    given = parser.parse_args()
    device, dtype = torch.device(given.device), getattr(torch, given.precision)
    contest = Contest(given.captions, given.images, device, dtype)
    lengths, pairs = contest.lengths, given.captions * given.images

    def timed(work) -> tuple[float, np.ndarray]:
        start = time.perf_counter()
        result = work()
        return time.perf_counter() - start, result

    ways = {"plain transformers forward, batches of 64": contest.plain, "factored": contest.factored}
    alternate(ways, 1)  # once untimed
    seconds, scores = alternate(ways, given.rounds)
    expected, found = scores.values()
    difference = float(np.abs(found - expected).max())
    slow, fast = (statistics.median(spent) for spent in seconds.values())
    padded = contest.padded
    work_plain = multiplications(contest.config, round(padded / pairs), REGIONS, factored=False)
    work_fast = np.mean([multiplications(contest.config, int(n), REGIONS, factored=True) for n in lengths])
    # The floor: the same machine's rate in one large matrix product.
    a = torch.randn(4096, 4096, device=device, dtype=dtype)
    with torch.inference_mode():
        a @ a
        peak = max(2 * 4096**3 / timed(lambda: (a @ a).float().sum().item())[0] for _ in range(5))
    print(
        f"{pairs:,} pairs, {contest.source}, a token a word: {lengths.mean():.1f} tokens on average, {padded / pairs:.1f} with padding"
    )
    rates, work = (f"{pairs / slow:.1f}", f"{pairs / fast:.1f}"), (work_plain, work_fast)
    rows = [(name, rate, f"{w / 1e9:.2f} G") for name, rate, w in zip(ways, rates, work, strict=True)]
    rows.append(("ratio", ratio(*seconds.values()), f"{work_plain / work_fast:.2f}x"))
    table(["", "pairs/s", "multiply-adds a pair"], rows)
    print(f"largest difference of scores {difference:.1e} (their spread: {expected.std():.1e})")
    share = 2 * work_fast * pairs / fast / peak
    print(f"factored reaches {share:.0%} of one large matrix product's {peak / 1e9:,.0f} GFLOP/s")
    for name, images, captions in (("1K", 1_000, 5_000), ("5K", 5_000, 25_010)):
        print(f"all pairs of COCO {name}: {images * captions / (pairs / fast) / 3600:,.1f} h")


if __name__ == "__main__":
    main()
