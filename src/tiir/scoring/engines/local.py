"""Tiles computed in this process, or shared among the processes that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.errors import RunError
from tiir.progress import track
from tiir.scoring.tiles import Tiles

__all__ = ["Team", "run_tiles", "team"]

Flags = npt.NDArray[np.bool_]
TORCHRUN = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


@dataclass(frozen=True)
class Team:
    """The processes that share the tiles of one plan.

    Args:
        rank: number of this process; 0 plans, holds the lock and puts the tiles together.
        size: how many there are.
        group: of torch.distributed (gloo); None for a process on its own.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    def wait(self) -> None:
        """Go on when all processes are here.

        Raises:
            RunError: one of them failed.
        """
        self.told(np.zeros(1, bool))

    def told(self, flags: Flags) -> Flags:
        """What process 0 gives here, in all processes, once all are here.

        Args:
            flags: bool (n,); of the others only n counts.

        Raises:
            RunError: one of them failed.
        """
        if self.group is None:
            return flags
        import torch
        import torch.distributed as dist

        shared = torch.from_numpy(flags.astype(np.uint8))
        try:
            dist.broadcast(shared, src=0, group=self.group)
            dist.barrier(group=self.group)
        except RuntimeError as problem:
            raise RunError(
                f"process {self.rank} of {self.size} stops: another one failed",
                hint="its own message says why; finished tiles stay, --resume goes on",
            ) from problem
        return shared.numpy().astype(bool)


@contextmanager
def team() -> Iterator[Team]:
    """The processes that torchrun (or the same environment variables) started; this one alone without it."""
    if not os.environ.keys() >= TORCHRUN or int(os.environ["WORLD_SIZE"]) < 2:
        yield Team()
        return
    import torch.distributed as dist

    started = not dist.is_initialized()
    if started:
        dist.init_process_group("gloo")
    try:
        # A process that dies breaks the connection at once; one that works may keep the others waiting for days.
        yield Team(
            dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=timedelta(days=30))
        )
    finally:
        if started:
            dist.destroy_process_group()


def run_tiles(
    tiles: Tiles,
    keys: Sequence[str],
    missing: npt.NDArray[np.int64],
    compute: Callable[[int], npt.NDArray[Any]],
    *,
    weights: Sequence[int],
    unit: str = "pairs",
    team: Team | None = None,
) -> None:
    """Compute this process's share of the missing tiles.

    Args:
        tiles: where they lie.
        keys: name of each tile.
        missing: the tiles to compute, the same in all processes; neighbours cost about the same.
        compute: gives tile n.
        weights: work of each tile, counted in `unit` (for the progress bar).
        unit: such as "pairs".
        team: the processes that share: each takes every `team.size`-th of the missing.
    """
    team = team or Team()
    mine = missing[team.rank :: team.size].tolist()
    total = sum(weights[n] for n in mine)
    step = max((weights[n] for n in mine), default=1)
    bar = track(mine, total=total, description="scoring", unit=unit, step=step) if team.rank == 0 else mine
    for n in bar:
        tiles.put(keys[n], compute(n))
