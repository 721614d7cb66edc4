"""One plan of tiles carried out: from the first check, by an engine, to the finished Run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.engine import Engine, Job
from tiir.errors import RunError
from tiir.io import remove_leftovers
from tiir.scoring.engines import open_engine
from tiir.scoring.run import Run, finished_run
from tiir.scoring.tiles import Tiles

__all__ = ["carry_out", "tile_of"]

Array = npt.NDArray[Any]


def carry_out(
    out: Path,
    plan: Mapping[str, Any],
    job: Job,
    keys: Sequence[str],
    weights: Sequence[int],
    finish: Callable[[Tiles, int, float], None],
    *,
    unit: str,
    description: str,
    engine: Engine | None = None,
    resume: bool = False,
    overwrite: bool = False,
    check: Callable[[int, Array], Array] = lambda n, tile: tile,
    announce: Callable[[int, Engine], None] = lambda left, engine: None,
) -> Run:
    """Compute the tiles that are missing, and write the Run.

    Args:
        out: directory of the Run.
        plan: everything that decides the bytes of a tile; see `Tiles.open`.
        job: gives tile n.
        keys, weights: name and work of each tile, the work counted in `unit`.
        finish: writes the Run, `run.json` last; given the tiles, the work that was left and the seconds it took.
        unit, description: for the progress bar.
        engine: where tiles are computed; where None, this process or those that torchrun started.
        resume: continue a killed run; a finished one is returned as it is.
        overwrite: replace a Run or an unfinished run in `out`.
        check: gives a computed tile, or an error.
        announce: told of the work that is left, before it begins.

    Raises:
        RunError: `out` is taken, was begun with another plan, or another process failed.
    """
    parts = out / ".parts"
    with open_engine() if engine is None else nullcontext(engine) as engine:
        if (out / "run.json").exists() and not overwrite:
            if engine.first:
                finished_run(out, plan, resume=resume, overwrite=False)
            engine.wait()
            return Run.load(out)
        opened = Tiles.open(parts, plan, resume=resume, overwrite=overwrite) if engine.first else None
        with opened or nullcontext(Tiles(parts, plan)) as tiles:
            missing, left = np.ones(len(keys), bool), 0
            if engine.first:
                remove_leftovers(out)
                (out / "run.json").unlink(missing_ok=True)  # no earlier Run to mistake for this one
                there = tiles.keys()
                missing = np.array([key not in there or tiles.get(key) is None for key in keys], bool)
                left = int(np.asarray(weights)[missing].sum())
                announce(left, engine)
            missing = engine.told(missing)
            started = time.monotonic()
            engine.run(
                job,
                np.flatnonzero(missing).tolist(),
                lambda n, tile: tiles.put(keys[n], check(n, tile)),
                weights=weights,
                unit=unit,
                description=description,
            )
            engine.wait()
            if engine.first:
                finish(tiles, left, time.monotonic() - started)
                tiles.remove()
            engine.wait()
        return Run.load(out)


def tile_of(tiles: Tiles, key: str) -> Array:
    """A tile that was computed.

    Raises:
        RunError: it was damaged since.
    """
    tile = tiles.get(key)
    if tile is None:
        raise RunError(
            f"tile {key} in {tiles.directory} is gone or damaged", hint="--resume computes it again"
        )
    return tile
