"""Verbs of tiir in forks of one process, so that torch is imported once; and their death by SIGKILL."""

from __future__ import annotations

import importlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODULES = [
    "h5py",
    "pandas",
    "pyarrow.dataset",
    "accelerate",
    "torch.utils.tensorboard",
    "tiir.cli",
    "tiir.cli.verbs",
    "tiir.models.frcnn",
    "tiir.models.dual",
    "tiir.models.lxmert",
    "tiir.models.backbone",
    "tiir.scoring.cascade",
    "tiir.scoring.cross",
    "tiir.scoring.dense",
    "tiir.features.detected",
    "tiir.features.grid",
    "tiir.report.cascade",
    "tiir.train.clip",
    "tiir.train.lxmert",
]


@dataclass(frozen=True)
class Moment:
    """When a process dies: `seconds` after its start, or after its `nth` touch of a file as `what` describes it.

    Args:
        what: None, or an entry of `Ended.touched`.
        nth: from 1.
        seconds: after that; 0 with `what` is just before the touch.
    """

    seconds: float
    what: str | None = None
    nth: int = 1


@dataclass(frozen=True)
class Ended:
    """A process that ended: its exit code (-9: killed), the seconds it took, and how often it touched which files."""

    code: int
    seconds: float
    touched: dict[str, int]


class Forks:
    """A process that has imported everything; `run` forks it. It runs nothing itself: a thread does not survive a fork,
    and a fork waits for ever for what that thread held.

    Args:
        folder: for what the forks print.
    """

    def __init__(self, folder: Path) -> None:
        self.log, self._touched = folder / "log.txt", folder / "touched.json"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, env=environment)  # fmt: skip
        assert self._line() == "ready"

    def run(self, arguments: list[Any], below: Path, moment: Moment | None = None) -> Ended:
        """Run a verb, until it ends or its moment has come.

        Args:
            arguments: as a user types them.
            below: the folder whose files count as touched.
            moment: when it is killed; None for never.
        """
        assert self._process.stdout is not None
        own = moment if moment and moment.what else None
        order = {"arguments": [str(a) for a in arguments], "log": str(self.log), "below": str(below.resolve()),
                 "touched": str(self._touched), "moment": vars(own) if own else None}  # fmt: skip
        self._touched.unlink(missing_ok=True)
        started = time.monotonic()
        self._order(order)
        process = int(self._line())
        ended = select.select([self._process.stdout], [], [], moment.seconds if moment and not own else 120)[
            0
        ]
        if not ended:
            os.kill(process, signal.SIGKILL)
        code = int(self._line())
        touched = json.loads(self._touched.read_text()) if self._touched.exists() else {}
        return Ended(code, time.monotonic() - started, touched)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _order(self, order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for name in MODULES:
        importlib.import_module(name)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if not process:
            _work(order)
        print(process, file=answers, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), file=answers, flush=True)


def _run(arguments: list[str]) -> int:
    from tiir.cli import main

    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _work(order: dict[str, Any]) -> None:
    log = os.open(order["log"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(log, standard)
    touched: dict[str, int] = {}
    _watch(order["below"] + os.sep, order["moment"], touched)
    code = 1
    try:
        code = _run(order["arguments"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        Path(order["touched"]).write_text(json.dumps(touched))
        os._exit(code)


def _watch(below: str, moment: dict[str, Any] | None, touched: dict[str, int]) -> None:
    # Python tells of every file that is opened, renamed or removed before it happens.
    kinds = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if event not in kinds or not isinstance(values[0], (str, bytes, os.PathLike)):
            return
        if event == "open" and not (isinstance(values[2], int) and values[2] & writes):
            return
        path = os.path.abspath(os.fsdecode(values[1] if event == "os.rename" else values[0]))
        if event in ("os.remove", "os.rmdir") and values[1] >= 0:  # a name within an open folder
            path = os.path.join(os.readlink(f"/proc/self/fd/{values[1]}"), os.path.basename(path))
        if not path.startswith(below):
            return
        what = f"{event} {re.sub(r'[0-9a-f]{4,}|[0-9]+', '*', os.path.basename(path))}"
        touched[what] = touched.get(what, 0) + 1
        if moment and (what, touched[what]) == (moment["what"], moment["nth"]):
            die = (os.getpid(), signal.SIGKILL)
            threading.Timer(moment["seconds"], os.kill, die).start() if moment["seconds"] else os.kill(*die)

    sys.addaudithook(hook)


if __name__ == "__main__":
    _serve()
