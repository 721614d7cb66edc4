"""Pieces shared among the processes that torchrun (or the same environment variables) started, on one node or many."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.engine import Engine
from tiir.errors import RunError

__all__ = ["TorchrunEngine", "is_first", "launched", "started_by_torchrun"]

Flags = npt.NDArray[np.bool_]
VARIABLES = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def launched() -> bool:
    """Whether torchrun started this process, with others or alone."""
    return os.environ.keys() >= VARIABLES


def started_by_torchrun() -> bool:
    """Whether this process is one of several that share the work."""
    return launched() and int(os.environ["WORLD_SIZE"]) > 1


def is_first() -> bool:
    """Whether this process speaks for all that torchrun started (or is on its own)."""
    return os.environ.get("RANK", "0") == "0"


class TorchrunEngine(Engine):
    """Every process takes each `size`-th piece and keeps its results itself, in a file system that all of them see.

    Args:
        rank: number of this process; 0 plans, holds the lock and puts results together.
        size: how many there are.
        group: of torch.distributed (gloo).
    """

    name = "torchrun"

    def __init__(self, rank: int, size: int, group: Any) -> None:
        self.rank, self.workers, self._group = rank, size, group
        self.first = rank == 0

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[TorchrunEngine]:
        """Meet the other processes, and part from them at the end."""
        import torch.distributed as dist

        started = not dist.is_initialized()
        if started:
            dist.init_process_group("gloo")
        try:
            # A process that dies breaks the connection at once; one that works may keep the others waiting for days.
            group = dist.new_group(backend="gloo", timeout=timedelta(days=30))
            yield cls(dist.get_rank(), dist.get_world_size(), group)
        finally:
            if started:
                dist.destroy_process_group()

    def place(self, device: str) -> str:
        """A GPU for each process of a node, where "auto" or "cuda" is asked for."""
        import torch

        if device not in ("auto", "cuda") or not torch.cuda.is_available():
            return device
        return f"cuda:{int(os.environ.get('LOCAL_RANK', self.rank)) % torch.cuda.device_count()}"

    def _share(self, numbers: Sequence[int]) -> Sequence[int]:
        return numbers[self.rank :: self.workers]

    def told(self, flags: Flags) -> Flags:
        """What the first process gives here, in all of them; see `Engine.told`."""
        import torch
        import torch.distributed as dist

        shared = torch.from_numpy(flags.astype(np.uint8))
        with self._others():
            dist.broadcast(shared, src=0, group=self._group)
            dist.barrier(group=self._group)
        return shared.numpy().astype(bool)

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, in all of them; see `Engine.gathered`."""
        import torch.distributed as dist

        values: list[Any] = [None] * self.workers
        with self._others():
            dist.all_gather_object(values, value, group=self._group)
        return values

    @contextmanager
    def _others(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as problem:
            raise RunError(
                f"process {self.rank} of {self.workers} stops: another one failed",
                hint="its own message says why; finished tiles stay, --resume goes on",
            ) from problem
