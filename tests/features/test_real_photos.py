"""Fifty real photos through `tiir features extract` with the golden detector, killed on the way; and a photo with its regions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.models.frcnn.conftest import golden, golden_detector  # noqa: F401 - fixtures

from tiir.features import FeatureStore
from tiir.features.layout import read_header

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiir.data.sources.flickr8k import prepare

    out = tmp_path_factory.mktemp("flickr8k") / "data"
    prepare(shared / "flickr8k", split="test", images=shared / "flickr8k" / "Images").subset(range(50)).save(
        out
    )
    return out


def test_killed_twice_and_resumed(photos: Path, golden_detector: Path, tmp_path: Path) -> None:  # noqa: F811
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(out: Path) -> list[str]:
        return [sys.executable, "-m", "tiir", "features", "extract", str(photos), "-e", f"frcnn:{golden_detector}",
                "--keep-detections", "--resume", "--batch-size", "4", "--device", "cpu", "-o", str(out)]  # fmt: skip

    whole, killed = tmp_path / "whole.h5", tmp_path / "killed.h5"
    subprocess.run(command(whole), check=True, env=environment, capture_output=True)
    part = tmp_path / "killed.h5.part"
    for goal in (5, 30):
        process = subprocess.Popen(command(killed), env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (part.exists() and int(read_header(part).written.sum()) >= goal):
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not killed.exists()
    subprocess.run(command(killed), check=True, env=environment, capture_output=True)
    one, other = FeatureStore.open(whole), FeatureStore.open(killed)
    assert one.verify() == other.verify() == []
    assert one.fingerprint == other.fingerprint  # ids, shapes, every checksum
    assert one.regions.tobytes() == other.regions.tobytes()
    assert one.boxes.tobytes() == other.boxes.tobytes()
    for name in one.columns:
        assert one.columns[name].tobytes() == other.columns[name].tobytes()


def test_show(
    photos: Path,
    golden_detector: Path,  # noqa: F811
    tmp_path: Path,
    tiir: Callable[..., tuple[int, str, str]],
) -> None:
    (golden_detector / "objects_vocab.txt").write_text("".join(f"thing {i},other\n" for i in range(20)))
    store, picture = tmp_path / "a.h5", tmp_path / "a.png"
    code, _, err = tiir("features", "extract", photos, "-e", f"frcnn:{golden_detector}", "--keep-detections",
                        "--boxes", 10, "-o", store)  # fmt: skip
    assert code == 0, err
    (golden_detector / "objects_vocab.txt").unlink()
    image_id = FeatureStore.open(store).image_ids[3]
    code, out, err = tiir("features", "show", store, image_id, "--out", picture)
    assert code == 0, err
    assert out.count("thing ") == 10
    drawn = np.array(Image.open(picture))
    assert max(drawn.shape[:2]) == 1000
    code, out, _ = tiir("features", "info", store)
    assert code == 0
    assert '"objects": 20' in out
    assert '"0.60": 50' in out
    code, out, _ = tiir("features", "show", store, image_id, "--out", picture, "--top", 2)
    assert out.count("thing ") == 2
    code, _, err = tiir("features", "show", store, "nobody.jpg", "--out", picture)
    assert code != 0
    assert "nobody.jpg" in err
    code, _, err = tiir("features", "extract", photos, "-e", "scenes", "--boxes", 3, "-o", tmp_path / "b.h5")
    assert code != 0
    assert "--boxes does nothing" in err
