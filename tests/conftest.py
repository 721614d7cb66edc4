"""What every test may use."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tiir.data.dataset import Dataset

ROOT = Path(__file__).resolve().parent.parent
settings.register_profile("tiir", deadline=None)  # the time that an example takes decides nothing
settings.load_profile("tiir")
# A shell starts what it runs in the background with ctrl-C ignored, and its children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, or a skip where there is none."""
    path = Path(os.environ.get("TIIR_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path} (set TIIR_SHARED)")
    return path


@pytest.fixture(scope="session")
def coco(shared: Path) -> Dataset:
    """The Karpathy test split, captions only, straight from the file."""
    from tiir.data.dataset import Dataset

    images = json.loads((shared / "coco" / "dataset_coco.json").read_text())["images"]
    pairs = [(i, sentence) for i, image in enumerate(images) for sentence in image["sentences"]]
    return Dataset(
        "coco",
        "test",
        [str(image["cocoid"]) for image in images],
        [str(sentence["sentid"]) for _, sentence in pairs],
        [sentence["raw"] for _, sentence in pairs],
        np.array([i for i, _ in pairs]),
    )


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP directory with random weights, as a user's local model would lie on disk."""
    from tiir.models.scratch import new_clip

    out = tmp_path_factory.mktemp("models") / "tiny-clip"
    words = "a the man woman dog cat red blue green runs sits on in with grass water street two three people"
    new_clip(
        [words, "A dog runs on the grass."],
        out,
        vocabulary=200,
        text_length=77,
        image_size=32,
        patch_size=16,
        width=32,
        heads=2,
        image_layers=2,
        text_layers=2,
    )
    return out


@pytest.fixture
def tiir(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A verb as a user types it: its exit code, stdout and stderr."""
    from tiir.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
