"""`tiir demo`, as `make demo` runs it, with fewer pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tiir.data.dataset import Dataset
from tiir.demo import DEPTHS
from tiir.metrics.evaluate import evaluate
from tiir.report.chunks import read_data
from tiir.scoring.run import Run


@pytest.mark.slow
def test_the_demo_runs_the_whole_main_job(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "tiir", "demo", "--out", str(out), "--images", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "scenes/test, own: 200 images x 1,000 captions" in text
    data = Dataset.load(out / "scenes")
    names = ["clip", "lxmert", *(f"cascade-{depth}" for depth in DEPTHS)]
    results = {name: evaluate(Run.load(out / name), data, resamples=0) for name in names}
    first = {name: e.values["t2i_R@1"] for name, e in results.items()}
    assert all(f"{value:.2f}" in text for value in first.values())
    assert first["clip"] >= 40
    assert all(first[name] > first["clip"] + 10 for name in names[1:])
    pairs = {name: e.cross["pairs"] for name, e in results.items() if e.cross}
    assert pairs["lxmert"] == 200 * len(set(data.captions))
    assert pairs["cascade-10"] < pairs["lxmert"] / 10
    assert pairs["cascade-10"] < pairs["cascade-50"] < pairs["lxmert"] / 3
    assert all(f"{n:,}" in text for n in pairs.values())
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 600
        assert len(sheet.convert("RGB").getcolors(1 << 24)) > 1000
    front = read_data(out / "site" / "data" / "site.js")
    assert [run["name"] for run in front["runs"]] == names
    assert front["runs"][0]["values"]["t2i_R@1"] == round(first["clip"], 2)
    assert front["photos"]
    assert (out / "site" / "index.html").resolve().as_uri() in text
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 2
    assert "already holds a demo" in again.stderr


def test_a_model_of_the_users_is_not_replaced(tmp_path: Path) -> None:
    from tiir.demo import run_demo
    from tiir.errors import ConfigError

    theirs = tmp_path / "clip-model" / "training.json"
    theirs.parent.mkdir()
    theirs.write_text("{}")
    with pytest.raises(ConfigError, match="already holds a demo"):
        run_demo(tmp_path, train=True)
    assert theirs.read_text() == "{}"


def test_pictures_of_the_users_are_no_demo(tmp_path: Path) -> None:
    from tiir.demo import run_demo
    from tiir.errors import ConfigError

    theirs = tmp_path / "scenes" / "images" / "test-000000.png"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(ConfigError, match="files that are not part of a demo, such as scenes"):
        run_demo(tmp_path, images=2, overwrite=True)
    assert theirs.read_text() == "mine"


def test_the_packaged_models_are_small() -> None:
    from importlib.resources import files

    assets = files("tiir") / "assets"
    weights = [assets / name / "model.safetensors" for name in ("scenes-clip", "scenes-lxmert")]
    assert sum(Path(str(path)).stat().st_size for path in weights) < 4_000_000
