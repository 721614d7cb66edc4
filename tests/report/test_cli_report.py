from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiir.data.dataset import Dataset
from tiir.report import page
from tiir.report.chunks import read_data
from tiir.scoring.run import Run, RunInfo


@pytest.mark.slow
def test_report(colours: tuple[Dataset, Run], tiir: Any, tmp_path: Path, monkeypatch: Any) -> None:
    data, run = colours
    scores = np.random.default_rng(0).random((12, 24)).astype(np.float32)
    other = Run(RunInfo.about(data, tmp_path / "data", "other"), scores=scores).save(tmp_path / "b" / "run")
    out = tmp_path / "site"
    code, shown, notes = tiir("report", run.path, other.path, "--out", out, "--resamples", 20)
    assert code == 0, notes
    assert f"{out / 'index.html'}: open it" in shown
    front = read_data(out / "data" / "site.js")
    assert [made["name"] for made in front["runs"]] == [f"{tmp_path.name}/run", "b/run"]
    assert front["photos"]
    assert len(list((out / "thumbs").glob("*.webp"))) == 12

    code, _, notes = tiir("report", run.path, "--out", out)
    assert code == 2
    assert "already holds a site" in notes
    options = ("--no-images", "--max-queries", 5, "--captions-per-image", 1, "--seed", 3, "--protocol", "own")
    code, _, notes = tiir("report", run.path, "--out", out, "--overwrite", *options)
    assert code == 0, notes
    front = read_data(out / "data" / "site.js")
    assert front["sampled"] == {"i2t": [5, 12], "t2i": [5, 12]}
    assert "the first 1 of each image" in front["protocol"]["title"]
    assert not front["photos"]
    assert not (out / "thumbs").exists()

    monkeypatch.setattr(page, "LIMIT", 1000)
    code, _, notes = tiir("report", run.path, "--out", tmp_path / "one", "--single-file")
    assert code == 2
    assert "the limit is" in notes
    assert "--max-queries" in notes


def test_a_list_of_images_that_is_no_text_is_named(
    colours: tuple[Dataset, Run], tiir: Any, tmp_path: Path
) -> None:
    _, run = colours
    (tmp_path / "keys.txt").write_bytes("caf\xe9.jpg\n".encode("cp1252"))
    code, _, notes = tiir("report", run.path, "--keys", tmp_path / "keys.txt", "--out", tmp_path / "site")
    assert code == 1
    assert f"{tmp_path / 'keys.txt'}" in notes
    assert "UTF-8" in notes


def test_report_of_what_is_no_run(tiir: Any, tmp_path: Path) -> None:
    code, _, notes = tiir("report", tmp_path / "nothing", "--out", tmp_path / "site")
    assert code == 1
    assert "nothing" in notes
    assert not (tmp_path / "site").exists()


def test_a_moved_data_set_is_named(colours: tuple[Dataset, Run], tiir: Any, tmp_path: Path) -> None:
    _, run = colours
    (tmp_path / "data").rename(tmp_path / "moved")
    code, _, notes = tiir("report", run.path, "--out", tmp_path / "site")
    assert code == 1
    assert "--dataset" in notes
    code, _, notes = tiir("report", run.path, "--out", tmp_path / "site", "--dataset", tmp_path / "moved")
    assert code == 0, notes
