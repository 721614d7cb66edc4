"""The explorer as a static site: from Runs to a folder that any browser opens, from disk or from a web host."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tiir import __version__
from tiir.analysis.background import background
from tiir.analysis.compare import compare
from tiir.analysis.diagnose import diagnose
from tiir.analysis.queries import query_table
from tiir.data.dataset import Dataset
from tiir.data.protocols import default_protocol, resolve
from tiir.errors import ConfigError, ProtocolError
from tiir.io import atomic_write, read_ids
from tiir.metrics.evaluate import evaluate
from tiir.metrics.ranks import Empty
from tiir.report.chunks import data_script
from tiir.report.content import SiteContent
from tiir.report.folder import check_folder, clear_folder, digest, finish_folder, finished_plan
from tiir.report.names import short_name
from tiir.report.page import check_size, page_files, single_page, thumbs_script
from tiir.report.site_data import DEPTH, HARD_AFTER, RunView
from tiir.report.thumbs import make_thumbs
from tiir.scoring.run import Run

__all__ = ["build_site", "distinct_names"]

FORMAT = 1
Say = Callable[[str], None]


def build_site(
    runs: Sequence[Run],
    dataset: Dataset,
    out: Path | str,
    *,
    protocol: str | None = None,
    keys: Path | str | Sequence[str] | None = None,
    captions_per_image: int | None = None,
    empty: Empty = "error",
    images: bool = True,
    max_queries: int | None = None,
    single_file: bool = False,
    resamples: int = 1000,
    seed: int = 0,
    overwrite: bool = False,
    reuse: bool = False,
    say: Say = lambda text: None,
) -> Path:
    """Write a site of one or more Runs: numbers, queries, what was retrieved, and why it failed.

    The folder is touched only when all is computed; `site.json` is written last. What a kill left is taken up again.

    Args:
        runs: of one data set.
        dataset: it.
        out: folder to write: new, empty, or holding a site.
        protocol, keys, captions_per_image, empty: as of `tiir.metrics.evaluate.evaluate`; the protocol is the first
            Run's where None, else the data set's.
        images: show photos, where the data set has any; else no thumbnail is made and none kept.
        max_queries: show a sample of so many queries a direction; numbers, curves and slices are still of all.
        single_file: all in one `index.html`.
        resamples, seed: of the bootstrap over images (0: no intervals); the seed also draws the sample.
        overwrite: replace the site that `out` holds. Files that are no site's stay.
        reuse: leave the site that `out` holds where the same would be written again.
        say: called with a line before each step.

    Returns:
        The path of `index.html`.

    Raises:
        ConfigError: `out` is taken, two Runs are one, options that cannot be, or a single file beyond its limit.
        RunError, ProtocolError, RanksError, ImageError: Runs, data set and protocol do not fit, or a photo is gone.
    """
    if not runs:
        raise ConfigError("a site of no Runs", hint="name one or more")
    if max_queries is not None and max_queries < 1:
        raise ConfigError(f"max_queries={max_queries} must be at least 1")
    for run in runs:
        run.check(dataset)
    out, protocol = Path(out), protocol or runs[0].info.protocol or default_protocol(dataset)
    options = {
        "keys": keys if keys is None or isinstance(keys, (str, Path)) else list(keys),
        "captions_per_image": captions_per_image,
        "empty": empty,
        "images": images,
        "max_queries": max_queries,
        "single_file": single_file,
        "resamples": resamples,
        "seed": seed,
    }
    names = distinct_names(runs)
    plan = _plan(runs, names, dataset, protocol, options)
    if reuse and not overwrite and _without_time(finished_plan(out)) == _without_time(plan):
        say(f"{out} holds this site already")
        return out / "index.html"
    check_folder(out, overwrite=overwrite)
    photos = images and dataset.image_root is not None
    galleries = resolve(protocol, dataset, keys=keys, captions_per_image=captions_per_image)
    say("reading captions" + (" and photos" if photos else ""))
    shared = background(dataset, protocol, photos=photos)
    views = []
    for name, run in zip(names, runs, strict=True):
        say(f"{name}: ranks, lists and reasons")
        table = query_table(run, dataset, galleries, depth=DEPTH, hard_after=HARD_AFTER, empty=empty)
        made = diagnose(run, dataset, galleries, table=table, shared=shared, resamples=resamples, seed=seed)
        numbers = evaluate(
            run,
            dataset,
            protocol,
            keys=keys,
            captions_per_image=captions_per_image,
            empty=empty,
            resamples=resamples,
            seed=seed,
        )
        views.append(RunView(name, run, replace(numbers, run=name), made))
    compared = None
    if len(runs) > 1 and resamples:
        say("comparing them, pair by pair")
        tables = [view.table for view in views]
        compared = compare(runs, dataset, galleries, names=names, tables=tables, seed=seed)
    say("writing")
    site = SiteContent(
        dataset, plan, views, compared, shared.typos, photos, len(galleries), max_queries, seed
    )
    if single_file:
        _write_single(site, out, say)
    else:
        _write_folder(site, out, say)
    return out / "index.html"


def distinct_names(runs: Sequence[Run]) -> list[str]:
    """A name for each Run: its folder's, with as many folders above as tell the Runs apart.

    Raises:
        ConfigError: nothing tells two of them apart.

    Example:
        >>> import numpy as np
        >>> from tiir.scoring.run import RunInfo
        >>> data = Dataset("pets", "test", ["a"], ["a0"], ["a cat"], np.array([0]))
        >>> one = Run(RunInfo.about(data, "pets", "by hand"), scores=np.ones((1, 1), np.float32))
        >>> distinct_names([replace(one, path=Path(path)) for path in ("/runs/one/clip", "/runs/two/clip")])
        ['one/clip', 'two/clip']
    """
    places = [("", run.info.model) if run.path is None else run.path.resolve().parts for run in runs]
    for length in range(1, max(map(len, places)) + 1):
        names = ["/".join(parts[-length:]) for parts in places]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"two of these Runs are the same: {', '.join(names)}", hint="name each once")


def _write_folder(site: SiteContent, out: Path, say: Say) -> None:
    clear_folder(out, keep_thumbs=site.photos)
    for name, value in site.blocks():
        _write(out / "data" / f"{name}.js", data_script(name, value))
    if site.photos:
        say("thumbnails")
        make_thumbs(site.dataset, out / "thumbs", site.images())
    page = page_files()
    for path in sorted(
        page, key=lambda path: path == "index.html"
    ):  # it comes last: no page without its parts
        _write(out / path, page[path])
    finish_folder(out, site.plan)


def _write_single(site: SiteContent, out: Path, say: Say) -> None:
    scripts, size = [], 0
    for name, value in site.blocks():
        scripts.append(data_script(name, value))
        size += len(scripts[-1].encode())
        check_size(size)
    if site.photos:
        say("thumbnails")
        with tempfile.TemporaryDirectory() as folder:
            make_thumbs(site.dataset, Path(folder), site.images())
            scripts.append(thumbs_script(Path(folder), site.images()))
    html = single_page(scripts)
    check_size(len(html.encode()))
    clear_folder(out, keep_thumbs=False)
    _write(out / "index.html", html)
    finish_folder(out, site.plan)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(text.encode())


def _plan(
    runs: Sequence[Run], names: Sequence[str], dataset: Dataset, protocol: str, options: dict[str, Any]
) -> dict[str, Any]:
    # What decides the site's content. Of keys and Runs' folders only a hash: a site may be put where all read it.
    if options["keys"] is not None:
        keys = options["keys"]
        said = keys if isinstance(keys, list) else read_ids(Path(keys), error=ProtocolError)
        options = options | {"keys": digest(said)}
    judged = dataset.judgements
    return {
        "format": FORMAT,
        "tiir": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "page": digest(page_files()),
        "dataset": {"name": dataset.name, "split": dataset.split, "fingerprint": dataset.fingerprint},
        "judgements": None if judged is None else digest([judged.caption.tolist(), judged.grade.tolist()]),
        "protocol": protocol,
        "runs": [
            {"name": name, "model": short_name(run.info.model), "hash": digest(run.info.model_dump())}
            for name, run in zip(names, runs, strict=True)
        ],
        "options": options,
    }


def _without_time(plan: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if plan is None else {key: value for key, value in plan.items() if key != "created"}
