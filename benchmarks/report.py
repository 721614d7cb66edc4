"""The explorer's data at COCO-5K size: the site's blocks against the same tables by pandas, in one process.

    python benchmarks/report.py [RUN ...] [--runs 2] [--images 5000]

Without Runs it makes some: random embeddings of 5,000 images with five captions each (Zipf's words), the nearer the lower
the noise. The analyses are made before the clock starts. Then the same is written in two ways:

- site: what `tiir report` writes (columns, positions, five digits, chunks of 500 queries), thumbnails and page apart;
- rival: pandas' DataFrame.to_json(orient="records") of the query table, the tags and the suspects of each Run (what most
  people would hand to a page), one file each; and orient="split", which does not repeat the columns' names.

"first look" is what a browser reads before the Overview stands, "one query" before a query does.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from measure import table
from tiir.analysis.background import background
from tiir.analysis.diagnose import diagnose
from tiir.analysis.queries import galleries_of, query_table
from tiir.data.dataset import Dataset
from tiir.metrics.evaluate import evaluate
from tiir.report.chunks import data_script
from tiir.report.content import SiteContent
from tiir.report.site_data import RunView
from tiir.scoring.run import Run, RunInfo

PLAN = {"format": 1, "tiir": "benchmark", "created": "", "options": {"single_file": False}}


def made(n_images: int, n_runs: int) -> tuple[Dataset, list[Run]]:
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(n_images), 5)
    words = np.minimum(rng.zipf(1.3, (len(owner), 10)), 20_000)
    texts = [" ".join(f"word{n}" for n in row) for row in words]
    ids = [f"{n:012d}" for n in range(n_images)], [str(n) for n in range(len(owner))]
    data = Dataset("random", "test", *ids, texts, owner)
    runs = []
    for n in range(n_runs):
        images = rng.normal(size=(n_images, 64)).astype(np.float32)
        texts_ = images[owner] + rng.normal(0, 1.5 + n / 4, (len(owner), 64)).astype(np.float32)
        info = RunInfo.about(data, "-", f"run {n}")
        runs.append(Run(info, image_embeds=images, text_embeds=texts_.astype(np.float32)))
    return data, runs


def viewed(data: Dataset, runs: list[Run]) -> SiteContent:
    shared, galleries = background(data, photos=False), galleries_of(data, None)
    views = []
    for n, run in enumerate(runs):
        table = query_table(run, data, galleries)
        found = diagnose(run, data, galleries, table=table, shared=shared, resamples=0)
        views.append(RunView(f"run {n}", run, evaluate(run, data, resamples=0), found))
    return SiteContent(data, PLAN, views, None, shared.typos, False, len(galleries))


def by_site(content: SiteContent, out: Path) -> None:
    for name, value in content.blocks():
        (out / f"{name}.js").write_bytes(data_script(name, value).encode())


def by_pandas(content: SiteContent, out: Path, orient: str) -> None:
    for n, view in enumerate(content.views):
        found = view.diagnosis
        for name, frame in (("queries", found.table), ("tags", found.tags), ("suspects", found.suspects)):
            frame.to_json(out / f"{name}-{n}.json", orient=orient, force_ascii=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--images", type=int, default=5000)
    asked = parser.parse_args()
    if asked.paths:
        runs = [Run.load(path) for path in asked.paths]
        data = runs[0].load_dataset()
    else:
        data, runs = made(asked.images, asked.runs)
    started = time.process_time()
    content = viewed(data, runs)
    print(f"{data!r}, {len(runs)} Runs: analysed in {time.process_time() - started:.1f} s of processor time")
    ways = {
        "site": lambda out: by_site(content, out),
        "to_json records": lambda out: by_pandas(content, out, "records"),
        "to_json split": lambda out: by_pandas(content, out, "split"),
    }
    results = {}
    for name, write in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            started = time.process_time()
            write(out)
            seconds = time.process_time() - started
            sizes = {path.stem: path.stat().st_size for path in out.iterdir()}
        total = first = query = sum(sizes.values())
        if name == "site":
            first = sizes["site"]
            query = sum(
                size
                for stem, size in sizes.items()
                if not stem.startswith(("lists", "wrong"))
                or (stem.startswith("lists") and stem.endswith("-0"))
            )
            kinds: dict[str, int] = {}
            for stem, size in sizes.items():
                kinds[stem.split("-")[0]] = kinds.get(stem.split("-")[0], 0) + size
            print("bytes by kind:", ", ".join(f"{kind} {size:,}" for kind, size in sorted(kinds.items())))
        results[name] = seconds, total, first, query
    rows = [
        (name, f"{seconds:.1f}", *(f"{size / 1e6:.2f}" for size in sizes_))
        for name, (seconds, *sizes_) in results.items()
    ]
    table(["", "seconds", "MB", "MB before the Overview stands", "MB before one query stands"], rows)
    mine = results["site"]
    for name, (seconds, total, _, query) in list(results.items())[1:]:
        print(
            f"{name} / site: {seconds / mine[0]:.2f} x the seconds, {total / mine[1]:.2f} x the bytes, "
            f"{query / mine[3]:.1f} x the bytes before one query is shown"
        )
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
