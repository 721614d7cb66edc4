"""`tiir doctor` on this machine as it is, and on one with broken, crashing and outdated packages."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiir.doctor import Finding, examine, folder_size
from tiir.probe import COMPILED, _torch_devices, ask


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
    assert f"{tmp_path / 'hub'}: 1 model, 3 MB" in found["cache"]["found"]
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
def test_a_model_that_a_broken_torchvision_keeps_from_loading(
    broken: str, tiny_clip: Path, tmp_path: Path
) -> None:
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
    assert "-> `tiir doctor` says what is broken, and what to do" in done.stderr


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, Any]], dict[str, Finding]]:
    """What doctor makes of these answers of the process that loads libraries, by name."""

    def examined(answers: Mapping[str, Any]) -> dict[str, Finding]:
        monkeypatch.setattr("tiir.doctor.ask", lambda: answers)
        return {finding.name: finding for finding in examine()}

    return examined


Findings = Callable[[Mapping[str, Any]], dict[str, Finding]]


def test_the_table(
    tiir: Callable[..., tuple[int, str, str]], findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    error = "RuntimeError: operator torchvision::nms does not exist"
    loads = {name: {"error": None} for name in COMPILED}
    findings(
        loads
        | {
            "torchvision": {"error": error},
            "PIL": {"error": "ImportError: [no] symbol"},
            "matplotlib": {"error": "ImportError: [no] symbol"},
        }
    )
    code, out, err = tiir("doctor")
    words = " ".join(out.split())
    assert code == 1
    assert f"BROKEN cannot be loaded: {error}" in words
    assert "-> pip uninstall torchvision" in words
    assert "cannot be loaded: ImportError: [no] symbol -> install pillow again" in words
    assert "[no] symbol -> mend PIL first" in words
    assert "broken: torchvision, PIL, matplotlib" in err
    findings(loads)
    assert tiir("doctor")[::2] == (0, "")


def test_where_tiir_is_not_installed(findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with PYTHONPATH=clone/src."""

    def installed(name: str) -> metadata.Distribution:
        if name == "tiir":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    real = metadata.Distribution.from_name
    monkeypatch.setattr(metadata.Distribution, "from_name", installed)
    found = findings({name: {"error": None} for name in COMPILED})
    assert found["tiir"].broken
    assert "install it with pip" in found["tiir"].advice
    assert found["torch"].found == torch.__version__


def test_a_cache_and_a_home_that_this_user_may_not_see(
    findings: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stat(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(str(tmp_path / "locked")):
            raise PermissionError(13, "Permission denied", path)
        return real(path, **options)

    real = os.stat
    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setenv("HOME", str(tmp_path / "locked"))
    cache = tmp_path / "locked" / "hub"
    found = findings({"hub": {"cache": str(cache), "offline": False}})
    assert found["cache"].found.startswith(f"{cache}: 0 models, 0 MB")
    assert "free" in found["disk of hub cache"].found
    assert found["completion"].found == "not installed"


def test_a_gpu_that_is_listed_and_refuses_to_work(
    findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(device: object) -> None:
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered\nmore")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", refuse)
    monkeypatch.setattr(torch, "ones", lambda *size, device: torch.zeros(*size))  # no GPU here
    found = findings({"devices": {"found": _torch_devices()}})
    assert found["cuda:0"].broken
    assert (
        found["cuda:0"].found
        == "cannot be used: RuntimeError: CUDA error: uncorrectable ECC error encountered"
    )
    assert not found["cpu"].broken


def test_a_library_that_never_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("tiir.probe.LONGEST", 3)
    answers = ask()
    assert answers.keys() == {"numpy"}
    assert "or took more than" in answers["numpy"]["error"]


def test_size_of_a_folder_does_not_follow_links_out(tmp_path: Path) -> None:
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "cache" / "deep" / "a").write_bytes(b"12345")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b").write_bytes(b"1" * 1000)
    (tmp_path / "cache" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "cache" / "file").symlink_to(tmp_path / "elsewhere" / "b")
    (tmp_path / "cache" / "loop").symlink_to(tmp_path / "cache")
    assert folder_size(tmp_path / "cache") == 5
