"""Machines as they are: full and read-only disks, too little memory, signals, clocks. Nothing that was finished is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiir.data.dataset import Dataset
from tiir.models import load
from tiir.scoring.dense import score_dual
from tiir.scoring.run import Run

Tiir = Callable[..., tuple[int, str, str]]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
FILES = ("image_embeds.npy", "text_embeds.npy")


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small pictures with a caption each."""
    folder, draw = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    (folder / "images").mkdir()
    names = [f"{n}.png" for n in range(40)]
    for name in names:
        Image.fromarray(draw.integers(0, 256, (30, 40, 3), np.uint8)).save(folder / "images" / name)
    captions = [" ".join(draw.choice(["a", "dog", "cat", "red"], n % 7 + 1)) for n in range(40)]
    data = Dataset("noise", "test", names, [f"c{n}" for n in range(40)], captions, np.arange(40),
                   folder / "images", names)  # fmt: skip
    data.save(folder / "data")
    return folder / "data"


@pytest.fixture(scope="module")
def whole(noise: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What an undisturbed run writes."""
    out = tmp_path_factory.mktemp("whole") / "run"
    score_dual(load(str(tiny_clip), device="cpu"), Dataset.load(noise), noise, out, batch_size=1)
    return [(out / name).read_bytes() for name in FILES]


def child(script: str, *arguments: object, start: tuple[str, ...] = ()) -> Any:
    """What a script prints as JSON, in a process of its own."""
    command = [*start, sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=ONE_THREAD, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


VERB = """
import contextlib, io, json, os, subprocess, sys
from pathlib import Path
from tiir.cli import main

def verb(*arguments):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(list(map(str, arguments)))
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    return code, said.getvalue()
"""
DISK = (
    VERB
    + """
disk, data, model = map(Path, sys.argv[1:])
def mount(options, kind=("-t", "tmpfs")):
    subprocess.run(["mount", *kind, "-o", options, "tmpfs", disk], check=True)
mount("size=64k")
score = ["score", model, data, "-o", disk / "run", "--batch-size", "1"]
full = verb(*score)
kept = len(list((disk / "run" / ".parts").glob("*.npy")))
mount("remount,size=20m", ())
resumed = verb(*score, "--resume")
held = {name: (disk / "run" / name).read_bytes().hex() for name in ("image_embeds.npy", "text_embeds.npy")}
left = sorted(path.name for path in (disk / "run").iterdir())
mount("remount,ro", ())
readonly = verb("score", model, data, "-o", disk / "other")
again = verb("score", model, data, "-o", disk / "run", "--overwrite")
same = all((disk / "run" / name).read_bytes().hex() == held[name] for name in held)
print(json.dumps({"full": full, "kept": kept, "resumed": resumed, "held": list(held.values()), "left": left,
                  "readonly": readonly, "again": again, "same": same}))
"""
)


@pytest.mark.slow
def test_a_full_disk_then_a_larger_one_then_a_read_only_one(
    noise: Path, tiny_clip: Path, whole: list[bytes], tmp_path: Path
) -> None:
    try:
        subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody mount a small disk")
    seen = child(DISK, tmp_path, noise, tiny_clip, start=("unshare", "-m"))
    code, said = seen["full"]
    assert code == 1
    assert "No space left on device" in said
    assert "Traceback" not in said
    assert 0 < seen["kept"] < 50
    assert seen["resumed"][0] == 0
    assert [bytes.fromhex(data) for data in seen["held"]] == whole
    assert seen["left"] == ["image_embeds.npy", "run.json", "text_embeds.npy"]
    for code, said in (seen["readonly"], seen["again"]):
        assert code == 1
        assert "Read-only file system" in said
        assert "Traceback" not in said
    assert seen["same"]


SIGNALS = (
    VERB
    + """
import signal, time
out, data, model = map(Path, sys.argv[1:])
verb("score", model, data, "-o", out / "warm")  # forks start with everything imported
found = {}
for name, signals in {"once": ["SIGINT"], "twice": ["SIGINT", "SIGINT"], "term": ["SIGTERM"]}.items():
    said = out / f"{name}.txt"
    process = os.fork()
    if not process:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
        try:
            main(["score", str(model), str(data), "-o", str(out / name), "--batch-size", "1"])
        except SystemExit as stop:
            code = stop.code
        os._exit(code)  # at once: taking torch down takes seconds
    deadline = time.monotonic() + 60
    while not list(out.glob(f"{name}/.parts/*.npy")) and time.monotonic() < deadline:
        time.sleep(0.001)
    for one in signals:
        os.kill(process, getattr(signal, one))
        time.sleep(0.003)
    status = os.waitpid(process, 0)[1]
    found[name] = os.waitstatus_to_exitcode(status), said.read_text(), (out / name / "run.json").exists()
print(json.dumps(found))
"""
)


@pytest.mark.slow
def test_ctrl_c_once_and_twice_and_term(
    tiir: Tiir, noise: Path, tiny_clip: Path, whole: list[bytes], tmp_path: Path
) -> None:
    seen = child(SIGNALS, tmp_path, noise, tiny_clip)
    assert {name: code for name, (code, _, _) in seen.items()} == {"once": 130, "twice": 130, "term": 143}
    for name, (_, said, finished) in seen.items():
        lines = [line for line in said.splitlines() if line.startswith("stopped by")]
        assert len(lines) == 1
        assert "what was finished is kept" in lines[0]
        assert "Traceback" not in said
        assert not finished
        code, _, _ = tiir("score", tiny_clip, noise, "-o", tmp_path / name, "--batch-size", 1, "--resume")
        assert code == 0
        assert [(tmp_path / name / file).read_bytes() for file in FILES] == whole


MEMORY = (
    VERB
    + """
import resource
import numpy as np
run = sys.argv[1]
first = verb("evaluate", run, "--resamples", 0)
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (4 << 20), -1))
second = verb("evaluate", run, "--resamples", 0)
print(json.dumps([first, second]))
"""
)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux's /proc")
def test_too_little_memory_is_one_line(noise: Path, tmp_path: Path) -> None:
    from tiir.scoring.run import RunInfo

    n, draw = 3000, np.random.default_rng(0)
    ids = [f"i{i}" for i in range(n)]
    data = Dataset("many", "test", ids, [f"c{i}" for i in range(n)], ids, np.arange(n))
    data.save(tmp_path / "data")
    embeds = draw.normal(size=(n, 16)).astype(np.float32)
    Run(RunInfo.about(data, tmp_path / "data", "m"), embeds, embeds).save(tmp_path / "run")
    (code, _), (limited, said) = child(MEMORY, tmp_path / "run")
    assert (code, limited) == (0, 1)
    assert "not enough memory" in said
    assert "Traceback" not in said


def test_a_clock_that_goes_backwards_changes_nothing(
    noise: Path, tiny_clip: Path, whole: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing asks which file is newer: tiles of the future are resumed in the past."""
    model, data, out = load(str(tiny_clip), device="cpu"), Dataset.load(noise), tmp_path / "run"
    encode, calls = model.encode_prepared, []

    def stop(pixels: Any) -> Any:
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return encode(pixels)

    monkeypatch.setattr(model, "encode_prepared", stop)
    with pytest.raises(KeyboardInterrupt):
        score_dual(model, data, noise, out, batch_size=1)
    monkeypatch.undo()
    for path in (out / ".parts").iterdir():
        os.utime(path, (2**32, 2**32))  # the year 2106
    monkeypatch.setattr(time, "time", lambda: 0.0)  # 1970
    score_dual(model, data, noise, out, batch_size=1, resume=True)
    assert [(out / name).read_bytes() for name in FILES] == whole
