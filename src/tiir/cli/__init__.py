"""The command line: `main` runs a verb, and turns what can go wrong into one message and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from tiir.errors import ConfigError, TiirError

__all__ = ["main"]

SIGNALS = {signal.SIGINT: "ctrl-C", signal.SIGTERM: "the signal TERM"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    A mistake ends with one message and exit code 1 (2: of options), not a traceback; so do a full disk and too little
    memory. Ctrl-C and the signal TERM (which SLURM sends before it kills) stop the work, with one line and exit code
    130 or 143; a second one stops it at once.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its warnings are for its developers
    if not sys.stderr.isatty():  # bars are for who watches
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if hasattr(sys.stdout, "reconfigure"):  # no caption or file name is a reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    stop = _Stop()
    try:
        from tiir.cli.verbs import app  # here, so that ctrl-C during the imports is one line too

        app(arguments, standalone_mode=True)
    except BaseException as problem:
        if stop.signal is not None and not (isinstance(problem, SystemExit) and problem.code in (0, None)):
            stop.say()
            sys.exit(128 + stop.signal)
        if (said := _said(problem)) is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        sys.exit(2 if isinstance(problem, ConfigError) else 1)
    finally:
        stop.forget()


def _said(problem: BaseException) -> str | None:
    """What to say of an error, None where only a traceback tells it."""
    if isinstance(problem, TiirError):
        return str(problem)
    if isinstance(problem, OSError):  # no space, no permission, a file where a folder should be
        return ": ".join(str(part) for part in (problem.strerror or problem, problem.filename) if part)
    if isinstance(problem, ImportError) and not (problem.name or "").startswith("tiir"):
        return (
            f"a library cannot be loaded: {problem}\n  -> `tiir doctor` says what is broken, and what to do"
        )
    # torch has no type of its own for what the CPU's allocator refuses.
    words = str(problem).lower()
    if isinstance(problem, MemoryError) or (
        isinstance(problem, RuntimeError) and ("out of memory" in words or "allocate memory" in words)
    ):
        hint = "give it more, or ask for less at a time (such as a smaller --batch-size or --memory)"
        return (
            f"not enough memory: {(str(problem).splitlines() or [''])[0] or 'no more to be had'}\n  -> {hint}"
        )
    return None


class _Stop:
    """Ctrl-C and TERM while a verb runs: the first interrupts it, the second ends the process."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._said = False
        self._owner = os.getpid()
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # no other may set them
            for number in SIGNALS:
                # nohup, and a shell's background jobs, ignore ctrl-C; so do we then.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._on)

    def _on(self, number: int, frame: Any) -> None:
        if os.getpid() != self._owner:  # a forked worker: its process ends it, or it ends with it
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self.signal is None:
            self.signal = number
            raise KeyboardInterrupt
        else:
            self.say()
            os._exit(128 + number)

    def say(self) -> None:
        """One line, once in a process that torchrun started: the others are silent."""
        if os.environ.get("RANK", "0") == "0" and not self._said:
            self._said = True
            line = (
                f"stopped by {SIGNALS[signal.Signals(self.signal or signal.SIGINT)]}: what was finished is kept; "
                "run the same command again (with --resume where the verb has it)\n"
            )
            os.write(2, line.encode())  # print may be what was interrupted

    def forget(self) -> None:
        """The handlers as they were; after a signal ours stay, for a second one while the process ends."""
        if self.signal is None:
            for number, before in self._before.items():
                signal.signal(number, before)
