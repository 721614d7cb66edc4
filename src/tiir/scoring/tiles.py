"""Work cut into tiles: each is computed on its own, written whole, and found again after a kill."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.errors import RunError
from tiir.io import atomic_write, read_json, write_json
from tiir.lock import locked
from tiir.revisions import pinned

__all__ = ["Tiles", "cut", "plan_hash"]


class Tiles:
    """The finished tiles of one plan, in `directory`.

    A tile is one .npy file whose name carries the hash of its plan and bytes, so that a damaged or foreign one is
    told from a good one and computed again. Nothing but the plan decides what a tile holds: a resumed run ends with
    the same bytes.

    Args:
        directory: where tiles lie until the whole is done.
        plan: see `open`.

    Example:
        >>> import tempfile
        >>> with Tiles.open(Path(tempfile.mkdtemp()) / "parts", {"model": "m"}) as tiles:
        ...     tiles.put("images-0", np.ones(3, np.float32))
        ...     tiles.get("images-0")
        array([1., 1., 1.], dtype=float32)
    """

    def __init__(self, directory: Path, plan: Mapping[str, Any]) -> None:
        self.directory = directory
        self._plan = _bytes(plan)
        self._paths: dict[str, list[Path]] = {}  # as last listed, and what was put since
        self._removed = False

    @classmethod
    @contextmanager
    def open(
        cls, directory: Path, plan: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False
    ) -> Iterator[Tiles]:
        """Start a plan, or continue one, as the only process that works on it.

        Args:
            directory: made where it is missing.
            plan: everything that decides the bytes of a tile; JSON values.
            resume: continue what an earlier process left.
            overwrite: throw away what an earlier process left (where `resume` is False).

        Raises:
            RunError: another process is at work here; tiles are there and `resume` is False; they are of
                another plan.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise RunError(
                f"cannot write {directory.parent}: {problem.strerror}", hint="choose another --out"
            ) from None
        with locked(directory / "lock", directory.parent, error=RunError):
            path = directory / "plan.json"
            plan = json.loads(json.dumps(plan))
            if path.exists() and overwrite and not resume:
                path.unlink()
                for tile in directory.glob("*.npy"):
                    tile.unlink()
            if path.exists():
                if not resume:
                    raise RunError(
                        f"{directory.parent} holds an unfinished run",
                        hint="continue it with --resume, or --overwrite",
                    )
                earlier = read_json(path, error=RunError)
                if not isinstance(earlier, dict):
                    raise RunError(f"{path} is not a plan", hint="start again with --overwrite")
                differ = [key for key in {**earlier, **plan} if earlier.get(key) != plan.get(key)]
                if differ:
                    key = differ[0]
                    raise RunError(
                        f"{directory.parent} was begun with {key} {earlier.get(key)!r}, now it is {plan.get(key)!r}",
                        hint=f"resume with the same model{pinned(earlier.get(key))}, data set and options, or start again with "
                        "--overwrite",
                    )
            else:
                write_json(path, plan)
            tiles = cls(directory, plan)
            yield tiles
        if tiles._removed:
            with contextlib.suppress(OSError):
                directory.rmdir()

    def get(self, key: str) -> npt.NDArray[Any] | None:
        """A finished tile, or None where it is missing or damaged (then it is removed)."""
        if key not in self._paths:
            self.keys()  # another process may have put it
        for path in self._paths.pop(key, []):
            data = path.read_bytes()
            if path.name.split(".")[1] == self._hash(data):
                array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
                self._paths[key] = [path]
                return array
            path.unlink()
        return None

    def put(self, key: str, array: npt.NDArray[Any]) -> None:
        """Write a tile, whole or not at all."""
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        data = buffer.getvalue()
        path = self.directory / f"{key}.{self._hash(data)}.npy"
        with atomic_write(path) as temporary:
            temporary.write_bytes(data)
        self._paths.setdefault(key, []).append(path)

    def keys(self) -> set[str]:
        """Tiles that are there; whether their bytes are whole, `get` says."""
        self._paths = {}
        for path in self.directory.glob("[!.]*.npy"):
            self._paths.setdefault(path.name.split(".")[0], []).append(path)
        return set(self._paths)

    def remove(self) -> None:
        """Delete the tiles, once the whole is written."""
        # NFS keeps a file that is open, the lock, under another name until it is closed; then the folder goes, too.
        shutil.rmtree(self.directory, ignore_errors=True)
        self._removed = True

    def _hash(self, data: bytes) -> str:
        return hashlib.sha256(self._plan + data).hexdigest()[:16]


def cut(costs: npt.ArrayLike, size: int) -> list[slice]:
    """Cut a sequence into slices that cost about the same.

    Args:
        costs: of each entry, integers above 0, (n,).
        size: entries of a slice, on average.

    Example:
        >>> cut([1, 1, 1, 1, 2, 2], 3)
        [slice(0, 4, None), slice(4, 6, None)]
    """
    total = np.cumsum(costs, dtype=np.int64)
    parts = max(1, -(-len(total) // size))
    inner = np.searchsorted(total * parts, total[-1] * np.arange(1, parts)) + 1
    edges = np.unique(np.concatenate([[0], inner, [len(total)]])).tolist()
    return [slice(start, stop) for start, stop in pairwise(edges)]


def plan_hash(plan: Mapping[str, Any]) -> str:
    """Short hash by which a finished Run tells what plan it is of."""
    return hashlib.sha256(_bytes(plan)).hexdigest()[:16]


def _bytes(plan: Mapping[str, Any]) -> bytes:
    return json.dumps(plan, sort_keys=True).encode()
