from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from tiir.data.dataset import Dataset
from tiir.data.protocols import resolve
from tiir.errors import DataError
from tiir.metrics.ranking import rank_run
from tiir.report.sheet import HIT, contact_sheet, sample_queries
from tiir.scoring.run import Run


def count_pixels(path: Path, colour: str) -> int:
    rgb = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)])
    with Image.open(path) as picture:
        return int((np.asarray(picture.convert("RGB")) == rgb).all(-1).sum())


def test_hits_are_framed(colours: tuple[Dataset, Run], tmp_path: Path) -> None:
    data, run = colours
    gallery = resolve("own", data)[0]
    ranks = rank_run(run, data, "own")
    hit, miss = int(np.argmin(ranks.t2i)), int(np.argmax(ranks.t2i))
    assert ranks.t2i[hit] <= 5 < ranks.t2i[miss]
    for name, query in [("hit.png", hit), ("miss.png", miss)]:
        contact_sheet(run, data, gallery, ranks, [("one", [query])], tmp_path / name)
    # The frame is thicker than the green words "found at rank ..." have pixels; a miss has neither.
    assert count_pixels(tmp_path / "hit.png", HIT) > 500
    assert count_pixels(tmp_path / "miss.png", HIT) == 0


def test_sample_follows_the_rules_and_the_seed(colours: tuple[Dataset, Run]) -> None:
    data, run = colours
    ranks = rank_run(run, data, "own")
    hard, easy = sample_queries(ranks, n=2, seed=1)
    assert all(ranks.t2i[q] > 10 for q in hard)
    assert all(ranks.t2i[q] == 1 for q in easy)
    assert (hard, easy) == sample_queries(ranks, n=2, seed=1)


def test_nothing_to_draw_is_said(colours: tuple[Dataset, Run], tmp_path: Path) -> None:
    data, run = colours
    ranks = rank_run(run, data, "own")
    with pytest.raises(DataError, match="no query"):
        contact_sheet(run, data, resolve("own", data)[0], ranks, [("none", [])], tmp_path / "x.png")


def test_a_notebook_keeps_its_figures(colours: tuple[Dataset, Run], tmp_path: Path) -> None:
    data, run = colours
    with matplotlib.rc_context({"backend": "svg"}):  # as a notebook has its own
        contact_sheet(
            run, data, resolve("own", data)[0], rank_run(run, data), [("one", [0])], tmp_path / "x.png"
        )
        assert matplotlib.get_backend() == "svg"
