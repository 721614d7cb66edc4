"""Ranks of 5,000 images x 25,010 captions: counting against the usual ways, in one process.

    python benchmarks/ranks.py [--rounds 2] [--small]

Rivals, all of which need the matrix:
- double argsort each way: the argsort of the argsort is every candidate's rank;
- argsort each way + search: one sort each way, then the positive is searched in every query's order;
- torch.topk with k=10: recall at 1, 5 and 10 but no rank, and ties broken by accident.
"matrix" compares them given the matrix; "with product" adds the matrix product to the rival and compares it
with ranks from embeddings, which compute it tile by tile.
Memory is what numpy allocates (tracemalloc) and the growth of the process (a thread samples its size).
"""

from __future__ import annotations

import argparse
import statistics
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import torch

from measure import alternate, ratio, table
from tiir.metrics import rank_embeddings, rank_scores, recall

KS = (1, 5, 10)


def data(n_images: int, n_captions: int, d: int = 512) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    own = np.sort(np.arange(n_captions) % n_images)
    images = rng.standard_normal((n_images, d), dtype=np.float32)
    texts = rng.standard_normal((n_captions, d), dtype=np.float32) + np.float32(0.14) * images[own]
    for side in (images, texts):
        side /= np.linalg.norm(side, axis=1, keepdims=True)
    return images, texts, own


def recalls(i2t: Any, t2i: Any) -> dict[str, float]:
    return {
        f"{side}_R@{k}": 100 * float((np.asarray(ranks) <= k).mean())
        for side, ranks in (("i2t", i2t), ("t2i", t2i))
        for k in KS
    }


def argsort_search(scores: Any, own: Any) -> dict[str, float]:
    order = np.argsort(-scores, axis=1)
    i2t = [1 + int(np.flatnonzero(own[row] == i)[0]) for i, row in enumerate(order)]
    del order
    order = np.argsort(-scores.T, axis=1)
    t2i = [1 + int(np.flatnonzero(row == image)[0]) for row, image in zip(order, own, strict=True)]
    return recalls(i2t, t2i)


def double_argsort(scores: Any, own: Any) -> dict[str, float]:
    places = np.argsort(np.argsort(-scores, axis=1), axis=1)
    i2t = [1 + int(row[own == i].min()) for i, row in enumerate(places)]
    del places
    places = np.argsort(np.argsort(-scores.T, axis=1), axis=1)
    return recalls(i2t, 1 + places[np.arange(len(own)), own])


def topk(scores: Any, own: Any) -> dict[str, float]:
    matrix, owner = torch.from_numpy(scores), torch.from_numpy(own)
    i2t = owner[matrix.topk(max(KS), dim=1).indices] == torch.arange(len(scores))[:, None]
    t2i = matrix.T.topk(max(KS), dim=1).indices == owner[:, None]
    return {
        f"{side}_R@{k}": 100 * float(hit[:, :k].any(1).double().mean())
        for side, hit in (("i2t", i2t), ("t2i", t2i))
        for k in KS
    }


def memory(work: Callable[[], Any]) -> tuple[float, float]:
    """MB that numpy allocated at the peak, and MB that the process grew by."""
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    sizes = [before]

    def watch() -> None:
        while not done.wait(0.002):
            sizes.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6, (max(sizes) - before) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="each way is run so often")
    parser.add_argument("--small", action="store_true", help="500 x 2,501, to see that it runs")
    options = parser.parse_args()
    size = (500, 2501) if options.small else (5000, 25010)
    images, texts, own = data(*size)
    print(f"{size[0]:,} images x {size[1]:,} captions, {images.shape[1]}-d float32, numpy {np.__version__}")

    grown = memory(lambda: rank_embeddings(images, texts, own))  # before the matrix exists
    scores = images @ texts.T

    def product() -> dict[str, float]:
        np.matmul(images, texts.T)
        return {}

    ways: dict[str, Callable[[], dict[str, float]]] = {
        "matrix product, numpy": product,
        "tiir, from the matrix": lambda: recall(rank_scores(scores, own)),
        "tiir, from embeddings": lambda: recall(rank_embeddings(images, texts, own)),
        "torch.topk, k=10 (recall only)": lambda: topk(scores, own),
        "argsort each way + search": lambda: argsort_search(scores, own),
        "double argsort each way": lambda: double_argsort(scores, own),
    }
    seconds, results = alternate(ways, options.rounds)
    multiplied, matrix, streamed = (seconds[name] for name in list(ways)[:3])
    rows = []
    for name, spent in seconds.items():
        with_product = [a + b for a, b in zip(spent, multiplied, strict=True)]
        rival = name not in ("matrix product, numpy", "tiir, from embeddings")
        cells = (ratio(spent, matrix), ratio(with_product, streamed)) if rival else ("", "")
        rows.append((name, f"{statistics.median(spent):.2f}", *cells))
    table(["", "seconds", "of tiir's time, given the matrix", "of tiir's time, from embeddings"], rows)
    print(
        f"from embeddings: numpy allocates {grown[0]:.0f} MB at its peak, the process grows by {grown[1]:.0f} MB; "
        f"the matrix would be {scores.nbytes / 1e6:.0f} MB"
    )
    ours = results["tiir, from embeddings"]
    for name, found in results.items():
        if found:
            off = max(abs(found[key] - ours[key]) for key in found if key in ours)
            print(f"recall, {name:<32} largest difference {off:.4f} points")
    print({key: round(value, 2) for key, value in ours.items()})


if __name__ == "__main__":
    main()
