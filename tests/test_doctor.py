"""`tiir doctor` on this machine as it is, and on one with broken, crashing and outdated packages."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiir.doctor import folder_size


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tiir", "doctor", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def by_name(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


def distribution(folder: Path, name: str, version: str, *requires: str) -> None:
    """Metadata of an installed package, as pip writes them."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {r}" for r in requires)]) + "\n")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder for PYTHONPATH: a torchvision of another torch, a library that crashes, two old packages."""
    folder = tmp_path_factory.mktemp("broken")
    distribution(folder, "torchvision", "0.20.0", "torch==2.5.0")
    (folder / "torchvision").mkdir()
    # What the real one does first, and where it fails beside a torch that it was not made for.
    (folder / "torchvision" / "__init__.py").write_text(
        "import torch\ntorch.library.register_fake('torchvision::nms')(lambda *boxes: None)\n"
    )
    (folder / "matplotlib").mkdir()
    (folder / "matplotlib" / "__init__.py").write_text("import os\nprint('loading')\nos.abort()\n")
    distribution(folder, "rapidfuzz", "0.1")
    distribution(folder, "eccv_caption", "0.0.1")
    return str(folder)


@pytest.mark.slow
def test_of_this_machine(tmp_path: Path) -> None:
    blobs = tmp_path / "hub" / "models--some--clip" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "weights").write_bytes(b"x" * 3 * 2**20)
    (tmp_path / "hub" / "out").symlink_to(Path(torch.__file__).parent)
    done = doctor("--json", HF_HUB_CACHE=str(tmp_path / "hub"), HF_HUB_OFFLINE="1")
    found = by_name(done)
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True), done.stdout + done.stderr
    assert found["torch"]["found"] == torch.__version__
    assert found["numpy"]["found"] == np.__version__
    assert platform.python_version() in found["Python"]["found"]
    assert f"{os.cpu_count()} cores" in found["cpu"]["found"]
    assert f"{tmp_path / 'hub'}: 1 models, 3 MB" in found["cache"]["found"]
    assert found["offline"]["found"].startswith("on (HF_HUB_OFFLINE=1")
    assert "GB free" in found["disk of this folder"]["found"]
    assert {"coco", "explore", "faiss", "ray", "train"} <= found.keys()
    assert "dev" not in found


@pytest.mark.slow
def test_what_is_broken_is_named_and_nothing_ends_the_doctor(broken: str) -> None:
    done = doctor("--json", PYTHONPATH=broken)
    found = by_name(done)
    assert done.returncode == 1
    assert json.loads(done.stdout)["ok"] is False
    assert "torchvision::nms does not exist" in found["torchvision"]["found"]
    assert f"needs torch==2.5.0, there is {torch.__version__}" in found["torchvision"]["found"]
    assert "pip uninstall torchvision" in found["torchvision"]["advice"]
    assert "mend torchvision first" in found["transformers"]["advice"]
    assert "ended while loading" in found["matplotlib"]["found"]
    assert found["rapidfuzz"]["found"].startswith("0.1, tiir needs >=")
    assert found["rapidfuzz"]["advice"].startswith("pip install 'rapidfuzz>=")
    assert found["coco"]["found"].startswith("without eccv")
    assert "pip install 'tiir[coco]'" in found["coco"]["advice"]
    assert not found["coco"]["broken"]
    for name in ("torchvision", "transformers", "matplotlib", "rapidfuzz"):
        assert found[name]["broken"]
        assert name in done.stderr
    assert "cpu" in found


@pytest.mark.slow
def test_a_broken_hub_library(tmp_path: Path) -> None:
    (tmp_path / "huggingface_hub").mkdir()
    (tmp_path / "huggingface_hub" / "__init__.py").write_text("raise ImportError('no such symbol')\n")
    done = doctor("--json", PYTHONPATH=str(tmp_path))
    found = by_name(done)
    assert done.returncode == 1
    assert "no such symbol" in found["huggingface_hub"]["found"]
    assert found["transformers"]["broken"]
    assert "cache" not in found


@pytest.mark.slow
def test_the_table_and_a_model_that_a_broken_torchvision_keeps_from_loading(
    broken: str, tiny_clip: Path, tmp_path: Path
) -> None:
    done = doctor(PYTHONPATH=broken, COLUMNS="60")
    words = " ".join(done.stdout.split())
    assert done.returncode == 1
    assert "BROKEN cannot be loaded: RuntimeError: operator torchvision::nms" in words
    assert "-> pip uninstall torchvision" in words
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "captions.csv").write_text("image,caption\na.png,a dog\nb.png,a cat\n")
    script = f"""
from tiir.cli import main
for line in ("prepare folder photos --images none -o data", "score {tiny_clip} data -o run"):
    try:
        main(line.split())
    except SystemExit as end:
        assert end.code in (0, 1), end.code
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": broken},
        check=True,
    )
    assert f"cannot load {tiny_clip}: operator torchvision::nms does not exist" in done.stderr
    assert "`tiir doctor` says what is broken" in done.stderr


def test_size_of_a_folder_does_not_follow_links_out(tmp_path: Path) -> None:
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "cache" / "deep" / "a").write_bytes(b"12345")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b").write_bytes(b"1" * 1000)
    (tmp_path / "cache" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "cache" / "file").symlink_to(tmp_path / "elsewhere" / "b")
    (tmp_path / "cache" / "loop").symlink_to(tmp_path / "cache")
    assert folder_size(tmp_path / "cache") == 5
