"""The law of cost of an exact evaluation: 10,000 captions against galleries of 10,000 to 1,000,000 images.

    python benchmarks/million.py [--sizes 10000 31623 100000 316228 1000000] [--workers 1] [--plot docs/images/scaling.png]

Synthetic embeddings, 256-d float16, in shards of 100,000 rows; each gallery is a data set whose first 10,000 images own a
caption each, the rest are distractors, and a Run that names the shards (`--in-place`). Each is evaluated by `tiir evaluate` in
a child process: its seconds (the best of up to five, for a minute) and its peak of resident memory, mapped pages included
(VmHWM of the child, and of its workers).

The answer is checked. At the smallest size every rank equals that of a plain sort of the float64 matrix. There and at the
largest, 1,000 captions have ranks known by construction: each points along one of 8 axes that only their images, at 125 heights, and
some distractors (which tie) reach. And 100 others are compared with a plain count in float64 over the whole gallery.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from measure import table
from tiir.data.dataset import Dataset
from tiir.metrics import bootstrap, metrics_of, rank_run
from tiir.scoring.foreign import import_embeddings
from tiir.scoring.run import Run

SIZES = (10_000, 31_623, 100_000, 316_228, 1_000_000)
CAPTIONS, WIDTH, SHARD, PLANTED = 10_000, 256, 100_000, 1000


def make(folder: Path, n: int) -> tuple[Path, np.ndarray]:
    """A data set and a Run in `folder`; the known ranks of the first captions, (PLANTED,)."""
    rng = np.random.default_rng(n)
    (folder / "images").mkdir(parents=True)
    captions = rng.standard_normal((CAPTIONS, WIDTH), dtype=np.float32)
    captions /= np.linalg.norm(captions, axis=1, keepdims=True)
    # Planted: caption k points along axis k % 8, its image stands there at height k // 8 + 1. The rest has nothing there.
    captions[:, :8] = 0
    captions[:PLANTED] = 0
    captions[np.arange(PLANTED), np.arange(PLANTED) % 8] = 1
    planted = {k: (k % 8, k // 8 + 1) for k in range(PLANTED)}
    if n > 2 * CAPTIONS:
        ties = [(axis, height) for axis in range(8) for height in range(2, 126, 5)]
        places = np.linspace(CAPTIONS, n - 1, len(ties)).astype(int).tolist()
        planted |= dict(zip(places, ties, strict=True))
    places_of = np.array(list(planted.values()))
    rank = np.array(
        [((places_of[:, 0] == k % 8) & (places_of[:, 1] >= k // 8 + 1)).sum() for k in range(PLANTED)]
    )
    for start in range(0, n, SHARD):
        stop = min(start + SHARD, n)
        rows = rng.standard_normal((stop - start, WIDTH), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        if start < CAPTIONS:
            own = slice(start, min(stop, CAPTIONS))
            rows[: own.stop - start] += 0.25 * captions[own]
        rows[:, :8] = 0
        for image, (axis, height) in planted.items():
            if start <= image < stop:
                rows[image - start] = 0
                rows[image - start, axis] = height / 128
        np.save(folder / "images" / f"part-{start // SHARD:03d}.npy", rows.astype(np.float16))
    np.save(folder / "captions.npy", captions.astype(np.float16))
    data = Dataset(
        "synthetic", "test", [f"image-{i:07d}" for i in range(n)], [f"caption-{i:05d}" for i in range(CAPTIONS)],
        [f"the caption of image {i}" for i in range(CAPTIONS)], np.arange(CAPTIONS),
    )  # fmt: skip
    data.save(folder / "data")
    run = folder / "run"
    import_embeddings(
        folder / "images",
        folder / "captions.npy",
        data,
        folder / "data",
        run,
        name="synthetic",
        in_place=True,
    )
    return run, rank


CHILD = """
import resource, sys, time
start = time.perf_counter()
from tiir.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(time.perf_counter() - start, own, workers, file=sys.stderr)
"""


def verb(*words: Any) -> tuple[dict[str, float], str]:
    """A verb of tiir in a child process: its seconds, CPU seconds, peak MB of it and of its largest worker; stdout."""
    begin, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    after = os.times()
    _, own, workers = done.stderr.splitlines()[-1].split()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    facts = {"seconds": time.perf_counter() - begin, "cpu": cpu}
    return facts | {"peak": int(own) / 1024, "worker": int(workers) / 1024}, done.stdout


def check(run_path: Path, rank: np.ndarray, values: dict[str, float], whole: bool) -> tuple[float, float]:
    """Refuse wrong ranks; how long the ranks took in this process, and how long the intervals."""
    run = Run.load(run_path)
    begin = time.perf_counter()
    ranks = rank_run(run, run.load_dataset(), "own", empty="exclude")
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    bootstrap(metrics_of(ranks))
    intervals = time.perf_counter() - begin
    assert abs(values["t2i_R@1"] - 100 * (ranks.t2i == 1).mean()) < 1e-9
    assert abs(values["t2i_mean_rank"] - ranks.t2i.mean()) < 1e-6 * ranks.t2i.mean()
    assert np.array_equal(ranks.t2i[:PLANTED], rank), "planted captions"
    texts = np.asarray(run.text_embeds, np.float64)
    asked = np.arange(CAPTIONS) if whole else np.linspace(PLANTED, CAPTIONS - 1, 100).astype(int)
    own = np.array([np.asarray(run.image_embeds[i : i + 1], np.float64)[0] for i in asked])
    best = (own * texts[asked]).sum(1)
    above = np.zeros(len(asked), np.int64)
    for start in range(0, run.info.images, 10_000):
        scores = np.asarray(run.image_embeds[start : start + 10_000], np.float64) @ texts[asked].T
        near = np.abs(scores - best) < 1e-9
        above += ((scores > best) & ~near).sum(0)
        for i, j in np.argwhere(near):  # by the definition: one pair alone
            exact = (np.asarray(run.image_embeds[start + i], np.float64) * texts[asked[j]]).sum()
            above[j] += exact >= best[j] and start + i != asked[j]
    assert np.array_equal(ranks.t2i[asked], 1 + above), "a plain count in float64"
    if whole:
        scores = texts @ np.asarray(run.image_embeds, np.float64).T
        place = (np.argsort(np.argsort(-scores, axis=1), axis=1) + 1)[
            np.arange(CAPTIONS), np.arange(CAPTIONS)
        ]
        planted = np.arange(CAPTIONS) < PLANTED
        assert (place <= ranks.t2i)[planted].all()  # ties of planted ones fall by accident
        assert np.array_equal(place[~planted], ranks.t2i[~planted]), "a plain sort"
    return seconds, intervals


def affine(sizes: np.ndarray, spent: np.ndarray) -> tuple[float, float]:
    """The a and b of a + b * images that fit best, relative to what was spent."""
    terms = np.stack([1 / spent, sizes / spent], axis=1)
    a, b = np.linalg.lstsq(terms, np.ones(len(sizes)), rcond=None)[0]
    return float(a), float(b)


def exponent(sizes: Any, seconds: Any) -> float:
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def plot(path: Path, rows: list[dict[str, float]], fixed: float, power: float) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sizes = np.array([row["images"] for row in rows])
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.loglog(sizes, [row["seconds"] for row in rows], "o-", label="tiir evaluate")
    left.loglog(
        sizes, [row["seconds"] - fixed for row in rows], "s--", label=f"less {fixed:.1f} s that are fixed"
    )
    last = rows[-1]["seconds"] - fixed
    left.loglog(sizes, last * sizes / sizes[-1], ":", color="grey", label="proportional")
    left.set(xlabel="images", ylabel="seconds", title=f"{CAPTIONS:,} captions: exponent {power:.2f}")
    left.legend(frameon=False)
    right.semilogx(sizes, [row["peak"] for row in rows], "o-", label="peak of resident memory")
    right.semilogx(sizes, sizes * WIDTH * 2 / 2**20, "--", label="the embeddings")
    right.semilogx(sizes, sizes * CAPTIONS * 4 / 2**20, ":", color="grey", label="the score matrix")
    right.set(xlabel="images", ylabel="MB", ylim=(0, 2048), title="memory of the process")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--folder", type=Path, help="where galleries are made (1 GB); a temporary one by default"
    )
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows: list[dict[str, float]] = []
        notes: list[str] = []
        start = min(verb("--version")[0]["seconds"] for _ in range(3))
        for n in options.sizes:
            run, rank = make(Path(folder, str(n)), n)
            begin = time.perf_counter()
            Dataset.load(run.parent / "data")
            loading = time.perf_counter() - begin
            tried: list[tuple[dict[str, float], str]] = []
            while not tried or (len(tried) < 5 and sum(facts["seconds"] for facts, _ in tried) < 60):
                tried.append(
                    verb("evaluate", run, "--empty", "exclude", "--workers", options.workers, "--json")
                )
            facts, out = min(tried, key=lambda one: one[0]["seconds"])
            values = json.loads(out)[0]["values"]
            rows.append({"images": n, **facts})
            notes.append(
                f"{n:,} images: loading the data set {loading:.1f} s, t2i R@1 {values['t2i_R@1']:.2f}"
            )
            if n in (min(options.sizes), max(options.sizes)):
                ranking, intervals = check(run, rank, values, whole=n == min(options.sizes))
                notes.append(
                    f"{n:,} images: checked; in this process the ranks took {ranking:.1f} s "
                    f"({n * CAPTIONS / ranking / 1e6:.0f} million pairs a second), the intervals {intervals:.1f} s"
                )
        workers = ("MB, a worker",) if options.workers > 1 else ()
        table(
            ["images", "seconds", "seconds of CPU", "MB, peak", *workers],
            [
                (f"{row['images']:,}", f"{row['seconds']:.1f}", f"{row['cpu']:.1f}", f"{row['peak']:,.0f}",
                 *(f"{row['worker']:,.0f}" for _ in workers))
                for row in rows
            ],
        )  # fmt: skip
        print("\n".join(notes))
        sizes = np.array([row["images"] for row in rows])
        for what in ("cpu", "seconds"):
            spent = np.array([row[what] for row in rows])
            fixed, each = affine(sizes, spent)
            power = exponent(sizes, spent - fixed)
            off = np.abs((fixed + each * sizes) / spent - 1).max()
            print(
                f"{what}: {fixed:.1f} s and {1e6 * each:.1f} s a million images (off by {100 * off:.0f}% at most); "
                f"exponent {exponent(sizes, spent):.3f}, less what is fixed {power:.3f}"
            )
        print(f"start of tiir: {start:.1f} s")
        if options.plot:
            plot(options.plot, rows, fixed, power)
            print(f"-> {options.plot}")


if __name__ == "__main__":
    main()
