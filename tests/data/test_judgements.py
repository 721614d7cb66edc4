from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiir.data.dataset import Dataset
from tiir.data.judgements import read_judgements
from tiir.errors import DataError
from tiir.report.judged import JudgementFile

IDS = ["a", "../../etc/passwd", 'q"uo\\te', "line\nbreak\u2028", "<b>ü🎈"]


@pytest.fixture
def data() -> Dataset:
    """Five images with ids that would like to be something else, two captions each."""
    captions = [f"{name} {n}" for name in IDS for n in (0, 1)]
    return Dataset("odd", "test", IDS, captions, captions, np.repeat(np.arange(5), 2))


def line(data: Dataset, image: int, caption: int, said: Any, **other: Any) -> str:
    record = {
        "image_id": data.image_ids[image],
        "caption_id": data.caption_ids[caption],
        "relevant": said,
        "dataset": "odd/test",
        "fingerprint": data.fingerprint,
        "run": "clip",
        "time": "2026-01-01T00:00:00Z",
    }
    return json.dumps(record | other, ensure_ascii=False) + "\n"


def pairs(path: Path, data: Dataset) -> list[tuple[int, int, bool]]:
    read = read_judgements(path, data)
    return list(zip(read.image.tolist(), read.caption.tolist(), read.relevant.tolist(), strict=True))


def test_the_last_word_on_a_pair_counts(data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    lines = [(0, 1, True), (3, 2, True), (0, 1, False), (4, 9, False), (4, 9, True), (3, 2, None)]
    path.write_text("".join(line(data, *one) for one in lines) + "\n", encoding="utf-8")
    assert pairs(path, data) == [(0, 1, False), (4, 9, True)]


def test_what_a_browser_exports_is_read(data: Dataset, tmp_path: Path) -> None:
    """Without a last line end, with fields that only the page knows, with Windows line ends."""
    path = tmp_path / "j.jsonl"
    text = line(data, 0, 1, True, row=7) + line(data, 1, 1, False)
    path.write_bytes(text.rstrip("\n").replace("}\n", "}\r\n").encode())
    assert pairs(path, data) == [(0, 1, True), (1, 1, False)]
    assert read_judgements(path, data).torn == 0
    path.write_bytes(b"")
    assert len(read_judgements(path, data)) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"relevant": "yes"}, "line 2: relevant"),
        ({"relevant": 1}, "line 2: relevant"),
        ({"image_id": 3}, "line 2: image_id"),
        ({"image_id": "nobody"}, "line 2: there is no image 'nobody'"),
        ({"caption_id": "nobody"}, "line 2: there is no caption 'nobody'"),
        (
            {"fingerprint": "other", "dataset": "coco/test"},
            "line 2: judged on 'coco/test' (fingerprint 'other')",
        ),
    ],
)
def test_errors_name_the_line(data: Dataset, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(line(data, 0, 0, True) + line(data, 0, 1, True, **change) + line(data, 0, 2, True))
    with pytest.raises(DataError) as problem:
        read_judgements(path, data)
    assert said in str(problem.value)
    with pytest.raises(DataError):
        JudgementFile(path, data)
    assert len(path.read_text().splitlines()) == 3  # nothing was touched


@pytest.mark.parametrize(
    "raw", [b"not json\n", b"[]\n", b'"x"\n', b"{}\n", b"\xff\xfe\n", b"notes of mine", b"{"]
)
def test_other_files_are_refused_and_left_alone(data: Dataset, tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(raw)
    if raw == b"{":  # the first byte of a line of ours
        assert read_judgements(path, data).torn == 1
        return
    with pytest.raises(DataError, match="line 1"):
        read_judgements(path, data)
    with pytest.raises(DataError, match="line 1"):
        JudgementFile(path, data)
    assert path.read_bytes() == raw
    with pytest.raises(DataError, match="no such file"):
        read_judgements(tmp_path / "gone", data)
    with pytest.raises(DataError, match="cannot read"):
        read_judgements(tmp_path, data)


def test_written_and_read(data: Dataset, tmp_path: Path) -> None:
    path, other = tmp_path / "j.jsonl", tmp_path / "read-only" / "j.jsonl"
    with JudgementFile(path, data) as file:
        assert not path.exists()
        for image in range(5):
            file.add(image, 2 * image + 1, image % 2 == 0, run="clip")
        file.add(0, 1, None)
        assert [entry["image_id"] for entry in file.entries()] == IDS[1:]
    assert len(path.read_bytes().splitlines()) == 6
    assert pairs(path, data) == [(1, 3, False), (2, 5, True), (3, 7, False), (4, 9, True)]
    with JudgementFile(path, data) as file:
        file.add(1, 3, True)
    assert pairs(path, data)[-1] == (1, 3, True)
    with pytest.raises(DataError, match="cannot write"):
        JudgementFile(other, data).add(0, 0, True)


@pytest.mark.parametrize("cut", range(0, 30, 3))
def test_a_line_that_a_crash_cut_off(data: Dataset, tmp_path: Path, cut: int) -> None:
    """However much of it is there: it does not count, the reader is told, and the next line is whole."""
    path = tmp_path / "j.jsonl"
    whole, torn = line(data, 0, 0, True).encode(), line(data, 4, 9, True).encode()
    path.write_bytes(whole + torn[: len(torn) - 2 - 7 * cut] + b"\0" * (cut % 2 * 5))
    assert pairs(path, data) == [(0, 0, True)]
    assert read_judgements(path, data).torn > 0
    with JudgementFile(path, data) as file:
        assert file.torn > 0
        file.add(1, 1, True)
    assert pairs(path, data) == [(0, 0, True), (1, 1, True)]


def test_a_file_without_a_last_line_end_goes_on(data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(line(data, 0, 0, True).rstrip("\n"))
    with JudgementFile(path, data) as file:
        file.add(1, 1, True)
    assert pairs(path, data) == [(0, 0, True), (1, 1, True)]


def test_a_full_disk_leaves_whole_lines(data: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    path, write = tmp_path / "j.jsonl", os.write
    with JudgementFile(path, data) as file:
        file.add(0, 0, True)
        with monkeypatch.context() as patch:
            room = iter([lambda handle, raw: write(handle, raw[:9])])

            def full(handle: int, raw: bytes) -> int:
                for step in room:
                    return int(step(handle, raw))
                raise OSError(28, "No space left on device")

            patch.setattr(os, "write", full)
            with pytest.raises(DataError, match="No space left"):
                file.add(1, 1, True)
            assert len(file.entries()) == 1
        file.add(2, 2, True)
    assert pairs(path, data) == [(0, 0, True), (2, 2, True)]


def test_threads_write_whole_lines(data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with JudgementFile(path, data) as file:
        threads = [
            threading.Thread(target=lambda n=n: [file.add(n, c, True) for c in range(10)]) for n in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(pairs(path, data)) == 50


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of this kind")
def test_one_process_writes_at_a_time(data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with JudgementFile(path, data) as file:
        file.add(0, 0, True)
        with pytest.raises(DataError, match="another process"):
            JudgementFile(path, data)
    JudgementFile(path, data).close()


def test_what_was_saved_survives_a_kill(data: Dataset, tmp_path: Path) -> None:
    """A process that says what it saved, and kills itself with SIGKILL in the middle of a line."""
    path = tmp_path / "j.jsonl"
    data.save(tmp_path / "data")
    script = f"""
import os, signal
from pathlib import Path
from tiir.data.dataset import Dataset
from tiir.report.judged import JudgementFile

file = JudgementFile(Path({str(path)!r}), Dataset.load({str(tmp_path / "data")!r}))
for n in range(7):
    file.add(n % 5, n, n % 2 == 0)
    print(n, flush=True)
write = os.write
def half(handle, raw):
    write(handle, raw[: len(raw) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
os.write = half
file.add(4, 8, True)
print("never", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert done.stdout.split() == list("0123456")
    assert read_judgements(path, data).torn > 0
    assert pairs(path, data) == [(n % 5, n, n % 2 == 0) for n in range(7)]
    with JudgementFile(path, data) as file:
        assert len(file.entries()) == 7
