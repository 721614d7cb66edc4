"""Where `tiir explore` keeps judgements: appended line by line, each on the disk before it counts as saved."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tiir.data.dataset import Dataset
from tiir.data.judgements import Judgement, last_words, split_torn
from tiir.errors import DataError
from tiir.io import sync_directory

__all__ = ["JudgementFile"]


class JudgementFile:
    """A judgements file being written, by one process at a time.

    Nothing that `add` returned from is lost by a crash: it is flushed to the disk before. A line that a crash cut
    off (`add` had not returned) is removed when the file is opened again.

    Args:
        path: the file; it is made with the first judgement.
        dataset: what is judged.

    Raises:
        DataError: the file cannot be read or written, is damaged, of another data set, or in use.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> data = Dataset("pets", "test", ["a"], ["a0"], ["a cat"], np.array([0]))
        >>> with JudgementFile(Path(tempfile.mkdtemp()) / "judgements.jsonl", data) as judged:
        ...     judged.add(0, 0, True, run="clip")
        ...     [(entry["image"], entry["relevant"]) for entry in judged.entries()]
        [(0, True)]
    """

    def __init__(self, path: Path, dataset: Dataset) -> None:
        self.path, self.torn = path, 0
        self._dataset, self._lock, self._handle = dataset, threading.Lock(), -1
        self._said: dict[tuple[int, int], Judgement] = {}
        if path.exists():
            self._open()

    def __enter__(self) -> JudgementFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, image: int, caption: int, relevant: bool | None, *, run: str | None = None) -> None:
        """Save a judgement; None takes an earlier one back.

        Args:
            image, caption: positions of the pair.
            relevant: whether the caption describes the image.
            run: the Run that had retrieved it.

        Raises:
            DataError: it could not be saved.
        """
        data = self._dataset
        word = Judgement(
            image_id=data.image_ids[image],
            caption_id=data.caption_ids[caption],
            relevant=relevant,
            dataset=f"{data.name}/{data.split}",
            fingerprint=data.fingerprint,
            run=run,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        # In ASCII: no text of an id, whatever it holds, can end a line.
        line = json.dumps(word.model_dump()).encode("ascii") + b"\n"
        with self._lock:
            if self._handle < 0:
                self._open()
            self._append(line)
            self._said.pop((image, caption), None)
            self._said[image, caption] = word

    def entries(self) -> list[dict[str, Any]]:
        """What is judged now, in the order it was: the line's fields, and `image` and `caption`, the positions."""
        with self._lock:
            return [
                {"image": image, "caption": caption, **word.model_dump()}
                for (image, caption), word in self._said.items()
                if word.relevant is not None
            ]

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1

    def _open(self) -> None:
        try:
            new = not self.path.exists()
            self._handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            if new:
                sync_directory(self.path.parent)
        except OSError as problem:
            raise DataError(f"cannot write {self.path}: {problem.strerror}") from None
        try:
            self._claim()
            raw = self.path.read_bytes()
            whole, torn = split_torn(raw)
            self._said = dict(last_words(whole, self.path, self._dataset))
            if torn:
                self.torn = len(torn)
                os.ftruncate(self._handle, len(whole))
            elif raw and not raw.endswith(b"\n"):
                self._append(b"\n")
        except DataError:
            os.close(self._handle)
            self._handle = -1
            raise

    def _claim(self) -> None:
        # The system drops the lock when its process dies, so a lock is never stale.
        with contextlib.suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(
                    f"another process is writing {self.path}",
                    hint="stop it, or name another --judgements FILE",
                ) from None
            except OSError:  # a file system without locks
                pass

    def _append(self, line: bytes) -> None:
        size = os.fstat(self._handle).st_size
        try:
            rest = line
            while rest:
                rest = rest[os.write(self._handle, rest) :]
            os.fsync(self._handle)
        except OSError as problem:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, size)  # no half line for the next one to run into
            raise DataError(f"cannot write {self.path}: {problem.strerror}") from None
