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
from tiir.errors import RunError, TiirError
from tiir.io import read_json, remove_leftovers
from tiir.revisions import commit
from tiir.scoring.engines import open_engine
from tiir.scoring.run import HEADER, Run, check_run_out
from tiir.scoring.tiles import Tiles, plan_hash

__all__ = ["begun_commit", "carry_out", "tile_of"]

Array = npt.NDArray[Any]


def begun_commit(out: Path, model: str) -> str | None:
    """The commit with which a half-done Run goes on; None where there is none, or of another model.

    Args:
        out: directory of the Run.
        model: as `tiir.models.load` takes it.
    """
    try:
        plan = read_json(out / ".parts" / "plan.json")
    except TiirError:  # there is none, or it is damaged: said when it is continued
        return None
    begun = isinstance(plan, dict) and plan.get("model") == model
    return commit(model, plan.get("revision")) if begun else None


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
        overwrite: replace a Run or an unfinished run in `out`; the Run stays until all tiles of the new one are there.
        check: gives a computed tile, or an error.
        announce: told of the work that is left, before it begins.

    Raises:
        RunError: `out` is taken, was begun with another plan, or another process failed.
    """
    parts = out / ".parts"
    with open_engine() if engine is None else nullcontext(engine) as engine:
        engine.agree(plan)
        if engine.first:
            check_run_out(out, overwrite=overwrite or resume, error=RunError)
        done = engine.first and not overwrite and _finished(out, plan)
        if engine.told(np.array([done]))[0]:
            return Run.load(out)
        opened = Tiles.open(parts, plan, resume=resume, overwrite=overwrite) if engine.first else None
        with opened or nullcontext(Tiles(parts, plan)) as tiles:
            missing, left = np.ones(len(keys), bool), 0
            if engine.first:
                remove_leftovers(out)
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
                # An earlier Run stays until now, and is not mistaken for this one.
                (out / HEADER).unlink(missing_ok=True)
                finish(tiles, left, time.monotonic() - started)
                tiles.remove()
            engine.wait()
        return Run.load(out)


def _finished(out: Path, plan: Mapping[str, Any]) -> bool:
    # Whether `out` holds the Run of this plan, finished by a process that was killed, or by none.
    if not (out / HEADER).exists():
        return False
    parts = out / ".parts"
    begun = (parts / "plan.json").exists()
    try:
        same = Run.load(out).info.notes.get("plan") == plan_hash(plan)
    except RunError:
        if not begun:
            raise
        same = False
    if not same and begun:  # a Run that was to be overwritten, damaged or not
        return False
    if not same:
        raise RunError(
            f"{out} already holds a finished Run, made otherwise", hint="choose another --out, or --overwrite"
        )
    if parts.exists():  # the kill came after the last write
        with Tiles.open(parts, plan, resume=True) as tiles:
            tiles.remove()
    return True


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
