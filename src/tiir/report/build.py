"""The explorer as a static site: from Runs to a folder that any browser opens, from disk or from a web host."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

from tiir import __version__
from tiir.analysis.compare import compare
from tiir.analysis.diagnose import Background, background, diagnose
from tiir.analysis.queries import query_table
from tiir.analysis.typos import Typo
from tiir.data.dataset import Dataset
from tiir.data.protocols import default_protocol, resolve
from tiir.errors import ConfigError
from tiir.io import atomic_write, write_json
from tiir.metrics.evaluate import evaluate
from tiir.metrics.ranks import Empty
from tiir.report import site_data as data
from tiir.report.chunks import write_data
from tiir.report.tables import title
from tiir.report.thumbs import make_thumbs
from tiir.scoring.run import Run

__all__ = ["build_site"]

FORMAT = 1
APP = re.compile(r"[\w-]+\.(?:js|css)")
Say = Callable[[str], None]


def build_site(
    runs: Sequence[Run],
    dataset: Dataset,
    out: Path,
    *,
    protocol: str | None = None,
    images: bool = True,
    max_queries: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    overwrite: bool = False,
    say: Say = lambda text: None,
) -> Path:
    names = [run.name for run in runs]
    protocol = protocol or runs[0].info.protocol or default_protocol(dataset)
    photos = images and dataset.image_root is not None
    galleries = resolve(protocol, dataset)
    say("looking at the data set")
    shared = background(dataset, protocol, photos=photos)
    views = []
    for name, run in zip(names, runs, strict=True):
        say(f"diagnosing {name}")
        table = query_table(run, dataset, galleries, depth=data.DEPTH, hard_after=data.HARD_AFTER)
        made = diagnose(run, dataset, galleries, table=table, shared=shared, resamples=resamples, seed=seed)
        evaluation = evaluate(run, dataset, protocol, resamples=resamples, seed=seed)
        views.append(data.RunView(name, run, evaluation, made))
    compared = None
    if len(runs) > 1:
        say("comparing")
        compared = compare(runs, dataset, galleries, names=names, tables=[v.table for v in views])
    rows = data.sample_rows(views[0].table, max_queries, seed)
    tags = data.tags_of(views)
    site = {
        "format": FORMAT,
        "tiir": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "live": False,
        "photos": photos,
        "single": False,
        "dataset": {
            "name": dataset.name,
            "split": dataset.split,
            "fingerprint": dataset.fingerprint,
            "images": dataset.n_images,
            "captions": dataset.n_captions,
        },
        "protocol": {"name": protocol, "title": title(views[0].evaluation)},
        **data.overview(views, compared, tags, n_folds=len(galleries)),
    }
    folder = out / "data"
    typos: dict[int, list[Typo]] = {}
    for typo in shared.typos:
        typos.setdefault(typo.caption, []).append(typo)
    say("writing")
    write_data(folder, "images", data.images_data(dataset, photos=photos))
    write_data(folder, "captions", data.captions_data(dataset))
    write_data(folder, "queries", data.queries_data(views, dataset, rows, tags))
    for r, view in enumerate(views):
        for c, block in enumerate(data.lists_data(view, dataset, rows, tags, typos)):
            write_data(folder, f"lists-{r}-{c}", block)
        for c, block in enumerate(data.wrong_data(view, dataset, rows)):
            write_data(folder, f"wrong-{r}-{c}", block)
    write_data(folder, "site", site)
    if photos:
        say("thumbnails")
        make_thumbs(dataset, out / "thumbs")
    for file in files("tiir").joinpath("report", "site").iterdir():
        if APP.fullmatch(file.name) or file.name == "index.html":
            place = out / file.name if file.name == "index.html" else out / "app" / file.name
            with atomic_write(place) as temporary:
                temporary.write_bytes(file.read_bytes())
    write_json(out / "site.json", {"format": FORMAT})
    return out / "index.html"
