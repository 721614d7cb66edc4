"""Pairs per second of the same LXMERT tiles by every engine, and what each costs over bare compute.

    python benchmarks/engines.py [--images 32] [--captions 64] [--rounds 2] [--width 768]

Random weights of LXMERT-base's shape and random regions (36 x 2048). The rival is bare: as many processes, each a plain
loop over its share of the tiles, one thread a process everywhere. A rate is taken from the moment
when every worker is at work to the last tile's end; what comes before (processes, imports, the model) stands beside it. All
engines take turns in each round, and the median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
WORDS = [
    "a",
    "the",
    "man",
    "woman",
    "dog",
    "cat",
    "red",
    "blue",
    "green",
    "runs",
    "sits",
    "on",
    "in",
    "with",
    "grass",
    "water",
    "street",
    "two",
    "three",
    "people",
]
TILE = (16, 8)
WAYS = [("bare", 1), ("local", 1), ("bare", 2), ("local", 2), ("torchrun", 2), ("ray", 2)]


class Timed:
    """A job that tells when each of its pieces was computed."""

    chunk = 1

    def __init__(self, job: Any) -> None:
        self.job = job

    def results(self, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        for n in numbers:
            started = time.time()
            ((_, scores),) = self.job.results([n])
            yield n, (started, time.time(), scores, os.getpid())

    def to(self, device: str) -> None:
        self.job.to(device)


def prepare(folder: Path, n_images: int, n_captions: int, width: int) -> None:
    """A model, region features and captions, as a user has them on disk."""
    from tiir.features import FeatureInfo, FeatureStore
    from tiir.models.scratch import new_lxmert

    new_lxmert([" ".join(WORDS)], folder / "model", feature_width=2048, vocabulary=100, width=width, heads=width // 64,
               language_layers=9, vision_layers=5, cross_layers=5)  # fmt: skip
    draw, ids = np.random.default_rng(0), [f"i{n}" for n in range(n_images)]
    with FeatureStore.create(folder / "features.h5", FeatureInfo(extractor="noise"), ids, 36, 2048) as writer:
        writer.put(
            np.arange(n_images), draw.random((n_images, 36, 2048)), np.tile([0, 0, 1, 1], (n_images, 36, 1))
        )
    captions = [" ".join(draw.choice(WORDS, draw.integers(7, 15))) for _ in range(n_captions)]
    (folder / "captions.json").write_text(json.dumps(captions))


def tiles(folder: Path) -> tuple[Timed, list[int]]:
    """The job, and the pairs of each tile."""
    from tiir.features.store import FeatureStore
    from tiir.models import load
    from tiir.scoring.tiles import cut
    from tiir.scoring.work import PairTiles

    features = FeatureStore.open(folder / "features.h5")
    captions = json.loads((folder / "captions.json").read_text())
    model: Any = load(f"lxmert:{folder / 'model'}", device="cpu")
    captions.sort(key=lambda text: model.caption_lengths([text])[0])
    lengths = model.caption_lengths(captions)
    images = [np.arange(top, min(top + TILE[0], len(features))) for top in range(0, len(features), TILE[0])]
    blocks = [
        (rows[:, None], np.arange(part.start, part.stop))
        for part in cut(lengths + features.n_regions, TILE[1])
        for rows in images
    ]
    encoder = model.bind(captions, features.image_ids, features)
    return Timed(PairTiles(encoder, blocks)), [len(rows) * len(texts) for rows, texts in blocks]


def child(way: str, workers: int, rank: int, folder: Path, out: Path) -> None:
    """One process of a measurement; it leaves (start, end, sum of the scores, process) of the tiles it was given."""
    import torch

    from tiir.scoring.engines import open_engine

    torch.set_num_threads(1)
    found: dict[int, tuple[float, float, float, int]] = {}

    def put(n: int, result: Any) -> None:
        found[n] = (*result[:2], float(result[2].astype(np.float64).sum()), result[3])

    job, sizes = tiles(folder)
    if way == "bare":
        (out / f"ready-{rank}").touch()
        while len(list(out.glob("ready-*"))) < workers:  # all loops begin together
            time.sleep(0.005)
        for n, result in job.results(range(rank, len(sizes), workers)):
            put(n, result)
    else:
        with open_engine(way, workers=None if way == "torchrun" else workers) as engine:
            rank = getattr(engine, "rank", 0)
            engine.run(job, range(len(sizes)), put, weights=sizes, unit="pairs", description=way)
            engine.wait()
    (out / f"times-{rank}.json").write_text(json.dumps(found))


def measure(way: str, workers: int, folder: Path) -> tuple[float, float, float]:
    """Seconds until all workers are at work, tiles a second from then on, and the sum of all scores."""
    with tempfile.TemporaryDirectory() as out:
        start = [sys.executable]
        if way == "torchrun":
            start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
        n = workers if way == "bare" else 1
        began = time.time()
        processes = [
            subprocess.Popen([*start, __file__, "--child", way, str(workers), str(rank), str(folder), out],
                             stderr=subprocess.DEVNULL)
            for rank in range(n)
        ]  # fmt: skip
        if any(process.wait() for process in processes):
            raise SystemExit(f"{way} failed")
        found: dict[str, list[float]] = {}
        for path in Path(out).glob("times-*.json"):
            found |= json.loads(path.read_text())
    starts, ends, sums, pids = map(np.array, zip(*(found[n] for n in sorted(found, key=int)), strict=True))
    assert len(set(pids)) == workers, f"{way}: {len(set(pids))} workers"
    ready = max(starts[pids == pid].min() for pid in set(pids))
    done = np.clip(
        (ends - ready) / (ends - starts), 0, 1
    ).sum()  # a tile that began earlier counts by its rest
    return ready - began, done / (ends.max() - ready), sums.sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--captions", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, workers, rank, folder, out = options.child
        child(way, int(workers), int(rank), Path(folder), Path(out))
        return
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        prepare(folder, options.images, options.captions, options.width)
        rounds = [{way: measure(*way, folder) for way in WAYS} for _ in range(options.rounds)]
    assert len({found[2] for measured in rounds for found in measured.values()}) == 1, "other scores"
    n_pairs = options.images * options.captions
    print(
        f"{n_pairs:,} pairs, tiles of {TILE[0]} x {TILE[1]}, LXMERT of width {options.width}, the same scores by all"
    )
    print("| engine | workers | pairs/s | over bare compute | seconds until all work |\n|-|-|-|-|-|")
    for way in WAYS:
        rate = TILE[0] * TILE[1] * statistics.median(measured[way][1] for measured in rounds)
        extra = [measured["bare", way[1]][1] / measured[way][1] - 1 for measured in rounds]
        before = statistics.median(measured[way][0] for measured in rounds)
        cost = "" if way[0] == "bare" else f"{100 * statistics.median(extra):+.1f}%"
        print(f"| {way[0]} | {way[1]} | {rate:.1f} | {cost} | {before:.1f} |")


if __name__ == "__main__":
    main()
