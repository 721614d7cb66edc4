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
        if self.group is None:
            return
        import torch.distributed as dist

        try:
            dist.barrier(group=self.group)
        except RuntimeError as problem:
            raise RunError(
                f"process {self.rank} of {self.size} stops: another one failed",
                hint="its own message says why; finished tiles stay, --resume goes on",
            ) from problem


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
    compute: Callable[[int], npt.NDArray[Any]],
    *,
    weights: Sequence[int],
    unit: str = "pairs",
    team: Team | None = None,
) -> int:
    """Compute this process's share of the tiles that are not there yet.

    Args:
        tiles: where they lie.
        keys: name of each tile.
        compute: gives tile n.
        weights: work of each tile, counted in `unit` (for the progress bar and the result).
        unit: such as "pairs".
        team: the processes that share; tile n is of process n modulo their number.

    Returns:
        The work done.
    """
    team = team or Team()
    there = tiles.keys()
    mine = [n for n in range(team.rank, len(keys), team.size) if keys[n] not in there]
    total = int(np.sum([weights[n] for n in mine], initial=0))
    step = max((weights[n] for n in mine), default=1)
    bar = track(mine, total=total, description="scoring", unit=unit, step=step) if team.rank == 0 else mine
    for n in bar:
        tiles.put(keys[n], compute(n))
    return total
