"""`tiir demo`, as `make demo` runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tiir.data.dataset import Dataset
from tiir.metrics.evaluate import evaluate
from tiir.scoring.run import Run


@pytest.mark.slow
def test_the_demo_runs_the_whole_main_job(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "tiir", "demo", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "scenes/test, own: 1,000 images x 5,000 captions" in " ".join(done.stdout.split())
    run = Run.load(out / "scenes-clip")
    result = evaluate(run, Dataset.load(out / "scenes"))
    assert f"{result.values['t2i_R@1']:.2f}" in done.stdout
    assert result.values["t2i_R@1"] >= 20
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 600
        assert len(sheet.convert("RGB").getcolors(1 << 24)) > 1000
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 2
    assert "already holds a demo" in again.stderr
