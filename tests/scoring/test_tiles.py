from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiir.errors import RunError
from tiir.scoring.engines.torchrun import TorchrunEngine
from tiir.scoring.tiles import Tiles

PLAN = {"model": "m", "batch_size": 4}


def test_tiles_survive_and_damaged_ones_do_not_count(tmp_path: Path) -> None:
    parts = tmp_path / "run" / ".parts"
    with Tiles.open(parts, PLAN) as tiles:
        tiles.put("images-0", np.arange(6.0).reshape(2, 3))
        tiles.put("images-1", np.ones(2))
    with Tiles.open(parts, PLAN, resume=True) as tiles:
        good = tiles.get("images-0")
        assert good is not None
        assert good.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert tiles.get("images-2") is None
        (path,) = parts.glob("images-1.*")
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        assert tiles.get("images-1") is None
        assert not path.exists()


def test_unfinished_work_is_neither_mixed_nor_lost(tmp_path: Path) -> None:
    parts = tmp_path / "run" / ".parts"
    with Tiles.open(parts, PLAN) as tiles:
        tiles.put("images-0", np.ones(2))
    with pytest.raises(RunError, match=r"unfinished run[\s\S]*--resume"), Tiles.open(parts, PLAN):
        pass
    other = PLAN | {"batch_size": 8}
    with pytest.raises(RunError, match="batch_size 4, now it is 8"), Tiles.open(parts, other, resume=True):
        pass
    with Tiles.open(parts, PLAN, resume=True) as tiles:
        assert tiles.get("images-0") is not None
    with Tiles.open(parts, other, overwrite=True) as tiles:
        assert tiles.get("images-0") is None


def hold(parts: Path, ready: Any, release: Any) -> None:
    with Tiles.open(parts, PLAN):
        ready.set()
        release.wait(30)


def test_a_second_writer_is_refused_and_a_dead_one_forgotten(tmp_path: Path) -> None:
    parts = tmp_path / "run" / ".parts"
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    first = context.Process(target=hold, args=(parts, ready, release))
    first.start()
    try:
        assert ready.wait(60)
        with pytest.raises(RunError, match=f"process {first.pid} on"), Tiles.open(parts, PLAN, resume=True):
            pass
    finally:
        first.kill()
        first.join()
    with Tiles.open(parts, PLAN, resume=True):
        pass


def test_tiles_of_another_plan_are_never_taken(tmp_path: Path) -> None:
    parts = tmp_path / "run" / ".parts"
    with Tiles.open(parts, PLAN) as tiles:
        tiles.put("images-0", np.ones(2))
    (parts / "plan.json").unlink()  # as a kill in the middle of --overwrite leaves it
    with Tiles.open(parts, PLAN | {"model": "other"}) as tiles:
        assert tiles.get("images-0") is None


def test_tiles_of_other_processes_are_found_and_the_folder_is_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"pairs-{n}" for n in range(9)]
    with Tiles.open(tmp_path / "parts", PLAN) as tiles:
        assert tiles.keys() == set()
        missing = np.array([0, 1, 2, 4, 5, 8])
        shares = [[], []]  # type: ignore[var-annotated]
        for rank, share in enumerate(shares):  # as processes of torchrun do
            other = Tiles(tmp_path / "parts", PLAN)

            class Numbers:
                def results(self, numbers: Sequence[int]) -> Any:
                    share.extend(numbers)  # noqa: B023
                    return ((n, np.full(2, n)) for n in numbers)

            engine = TorchrunEngine(rank, 2, None)
            engine.run(Numbers(), missing.tolist(), lambda n, tile: other.put(keys[n], tile),  # noqa: B023
                       weights=[1] * 9, unit="", description="")  # fmt: skip
        assert shares == [[0, 2, 5], [1, 4, 8]]
        listings, glob = [], Path.glob
        monkeypatch.setattr(Path, "glob", lambda *a: (listings.append(a), glob(*a))[1])
        assert [tiles.get(keys[n])[0] for n in missing] == missing.tolist()  # type: ignore[index]
        assert len(listings) == 1
        assert tiles.get(keys[3]) is None


def test_a_file_system_that_keeps_open_files_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_on_nfs(folder: Path, ignore_errors: bool = False) -> None:
        (folder / "plan.json").unlink()
        (folder / "lock").rename(folder / ".nfs0001")
        if not ignore_errors:
            raise OSError(39, "Directory not empty")

    with monkeypatch.context() as patch, Tiles.open(tmp_path / "parts", PLAN) as tiles:
        patch.setattr("tiir.scoring.tiles.shutil.rmtree", as_on_nfs)
        tiles.remove()
    with Tiles.open(tmp_path / "parts", PLAN) as tiles:
        assert tiles.keys() == set()
        tiles.remove()
    assert not (tmp_path / "parts").exists()
