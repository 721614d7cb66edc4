"""The same tiles, the same bytes, whoever computes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from tiir.data.dataset import Dataset
from tiir.engine import Engine
from tiir.errors import ConfigError, DataError, ModelError, RunError
from tiir.features.store import FeatureStore
from tiir.models import load
from tiir.scoring.cross import score_cross
from tiir.scoring.engines import open_engine
from tiir.scoring.engines.local import LocalEngine, chunks
from tiir.scoring.plan import carry_out
from tiir.scoring.run import Run

ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
SCORE = """
import sys
from pathlib import Path
from tiir.data.dataset import Dataset
from tiir.features.grid import grid_features
from tiir.features.store import FeatureStore
from tiir.models import load
from tiir.models.backbone import VisionBackbone
from tiir.scoring.cascade import rerank
from tiir.scoring.cross import score_cross
from tiir.scoring.dense import score_dual
from tiir.scoring.engines import open_engine
from tiir.scoring.run import Run


def work(folder, clip, lxmert, out, engine, everything=True):
    folder, out = Path(folder), Path(out)
    data, features = Dataset.load(folder / "data"), FeatureStore.open(folder / "features.h5")
    dual, cross = load(str(clip), device=engine.place("cpu")), load(f"lxmert:{lxmert}", device=engine.place("cpu"))
    first = score_dual(dual, data, folder / "data", out / "first", batch_size=3, engine=engine)
    if everything:
        grid_features(VisionBackbone(str(clip), device="cpu"), data, out / "grid.h5", cells=2, batch_size=4, engine=engine)
        score_cross(cross, data, folder / "data", features, out / "all", tile=(3, 5), memory=1 << 24, engine=engine)
    rerank(first, data, cross, features, out / "cascade", depth=5, tile=40, memory=1 << 24, engine=engine)


if __name__ == "__main__":
    name, workers, *paths = sys.argv[1:]
    with open_engine(name, workers=int(workers) or None) as engine:
        work(*paths, engine, everything=name != "local")
"""
FILES = [
    "grid.h5",
    "first/image_embeds.npy",
    "first/text_embeds.npy",
    "all/scores.npy",
    "cascade/shortlist.npz",
]


@pytest.fixture(scope="module")
def photos_data(pairs_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of `pairs_data` with a small picture of each image."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    data = Dataset.load(pairs_data / "data")
    (folder / "images").mkdir()
    names = [f"{image_id}.png" for image_id in data.image_ids]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(folder / "images" / name)
    ids = list(data.image_ids), list(data.caption_ids), list(data.captions)
    Dataset("pairs", "test", *ids, data.caption_image, folder / "images", names).save(folder / "data")
    (folder / "features.h5").symlink_to(pairs_data / "features.h5")
    return folder


@pytest.fixture(scope="module")
def alone(
    photos_data: Path, tiny_clip: Path, tiny_lxmert: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Any]:
    """What one process writes."""
    out = tmp_path_factory.mktemp("alone")
    module: dict[str, Any] = {"__name__": "score"}
    exec(SCORE, module)
    module["work"](photos_data, tiny_clip, tiny_lxmert, out, Engine())
    assert np.std(Run.load(out / "cascade").shortlist.score) > 0  # type: ignore[union-attr]
    assert np.std(Run.load(out / "all").scores) > 0  # type: ignore[arg-type]
    return [content(out / name) for name in FILES]


def content(path: Path) -> Any:
    """Bytes; of a store, which says when it was made, those of its arrays."""
    if path.suffix != ".h5":
        return path.read_bytes()
    store = FeatureStore.open(path)
    assert np.std(store.regions) > 0
    return store.regions.tobytes(), store.boxes.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "torchrun", "ray"])
def test_two_workers_end_with_the_bytes_of_one(
    photos_data: Path, tiny_clip: Path, tiny_lxmert: Path, alone: list[Any], tmp_path: Path, engine: str
) -> None:
    script = tmp_path / "score.py"
    script.write_text(SCORE)
    start, workers = [sys.executable], "2"
    if engine == "torchrun":
        start, workers = [*start, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"], "0"
    arguments = [str(script), engine, workers, *map(str, (photos_data, tiny_clip, tiny_lxmert, tmp_path))]
    subprocess.run([*start, *arguments], env=ONE_THREAD, check=True, timeout=240)
    for name, expected in zip(FILES, alone, strict=True):
        if engine != "local" or name.startswith(
            ("first", "cascade")
        ):  # each start of local workers takes seconds
            assert content(tmp_path / name) == expected
            assert not (tmp_path / name).with_name(".parts").exists()


class Pieces:
    """A job whose piece n is n * n; pieces may fail, or kill their worker, `times` times."""

    chunk = 2

    def __init__(self, folder: Path, *, fails: int = -1, kills: int = -1, times: int = 1) -> None:
        self.folder, self.fails, self.kills, self.times = folder, fails, kills, times

    def results(self, numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
        for n in numbers:
            if n == self.fails:
                raise ModelError(f"piece {n} cannot be", hint="try another")
            if n == self.kills and len(list(self.folder.iterdir())) < self.times:
                (self.folder / str(time.monotonic_ns())).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield n, n * n

    def to(self, device: str) -> None:
        raise AssertionError("there is no model to move")


def squares(engine: Engine, job: Pieces, n: int = 9) -> dict[int, int]:
    found: dict[int, int] = {}
    engine.run(job, range(n), found.__setitem__, weights=[1] * n, unit="pieces", description="")
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster: a head that computes nothing, and two nodes."""
    os.environ.setdefault("RAY_AUTH_TOKEN", "0" * 64)  # else Ray writes one to the home folder
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    here = {"object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **here})
    nodes = [made.add_node(num_cpus=1, **here) for _ in range(2)]
    paths = os.pathsep.join(sys.path)  # where the workers find this module
    ray.init(address=made.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    yield made, nodes
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_what_a_piece_raises_arrives_as_it_is(cluster: Any, tmp_path: Path) -> None:
    with open_engine("ray") as engine:
        assert engine.workers == 2
        assert engine.place("auto") == "cpu"
        assert squares(engine, Pieces(tmp_path)) == {n: n * n for n in range(9)}
        for one in (engine, LocalEngine(2)):
            with pytest.raises(ModelError, match="piece 3 cannot be") as caught:
                squares(one, Pieces(tmp_path, fails=3))
            assert caught.value.hint == "try another"
        with pytest.raises(ConfigError, match=r"cannot take over .*replaced[\s\S]*every node"):
            squares(engine, Torn(Path("known")))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_by_ray(cluster: Any, tmp_path: Path) -> None:
    with open_engine("ray") as engine:
        assert squares(engine, Pieces(tmp_path, kills=4)) == {n: n * n for n in range(9)}
        assert len(list(tmp_path.iterdir())) == 1
        with pytest.raises(RunError, match=r"gave up a piece of the work after 3 retries[\s\S]*--resume"):
            squares(engine, Pieces(tmp_path, kills=4, times=99))


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_a_local_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a worker process died[\s\S]*--resume"):
        squares(LocalEngine(2), Pieces(tmp_path, kills=4))


class Torn(Pieces):
    """Pieces that a worker cannot take over."""

    def __reduce__(self) -> Any:
        return _torn, (self.folder,)


def _torn(folder: Path) -> Pieces:
    raise (DataError if folder.name == "known" else KeyError)("replaced")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "error", "words"),
    [
        ("known", DataError, "^replaced"),
        ("x", ConfigError, r"cannot take over .*KeyError: 'replaced'[\s\S]*torchrun"),
    ],
)
def test_a_worker_that_cannot_take_over_says_why(folder: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        squares(LocalEngine(2), Torn(Path(folder)))


def test_a_job_that_cannot_be_sent_is_refused_in_words(tmp_path: Path) -> None:
    job = Pieces(tmp_path)
    job.results = lambda numbers: iter([(n, n) for n in numbers])  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"cannot be sent to other processes[\s\S]*torchrun"):
        squares(LocalEngine(2), job)


class Apart(Engine):
    """Stands for two processes, the second of which found another commit on the hub."""

    def gathered(self, value: Any) -> list[Any]:
        return [value, {**value, "revision": 20 * "1b"}]


def test_processes_with_different_plans_stop(tmp_path: Path) -> None:
    plan, job = {"model": "some/clip", "revision": 20 * "0a"}, Pieces(tmp_path)
    with pytest.raises(RunError, match=r"do not share revision: '0a.*' and '1b[\s\S]*--revision 1b"):
        carry_out(
            tmp_path / "run", plan, job, [], [], lambda *_: None, unit="", description="", engine=Apart()
        )
    assert not (tmp_path / "run").exists()


def test_torchrun_of_one_process_shares_with_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="torchrun did not start"), open_engine("torchrun"):
        pass
    for name, value in (
        ("RANK", "0"),
        ("WORLD_SIZE", "1"),
        ("MASTER_ADDR", "localhost"),
        ("MASTER_PORT", "1"),
    ):
        monkeypatch.setenv(name, value)
    with open_engine("torchrun") as engine:
        assert (engine.name, engine.workers, engine.first) == ("local", 1, True)


@pytest.mark.parametrize(("n", "most", "workers"), [(36, 16, 2), (7, 16, 2), (1000, 16, 8), (40, 1, 3)])
def test_every_worker_gets_several_chunks(n: int, most: int, workers: int) -> None:
    parts = chunks(range(n), most, workers)
    assert [number for part in parts for number in part] == list(range(n))
    assert max(map(len, parts)) <= most
    assert len(parts) >= min(n, 4 * workers)


@pytest.mark.slow
def test_a_node_that_dies_in_the_middle_changes_no_byte(
    cluster: Any, photos_data: Path, tiny_lxmert: Path, alone: list[Any], tmp_path: Path
) -> None:
    made, nodes = cluster
    data, features = Dataset.load(photos_data / "data"), FeatureStore.open(photos_data / "features.h5")
    model, out, seen = load(f"lxmert:{tiny_lxmert}", device="cpu"), tmp_path / "all", []

    def kill() -> None:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            done = len(list((out / ".parts").glob("*.npy"))) if (out / ".parts").exists() else 0
            if done >= 20:
                made.remove_node(nodes[0], allow_graceful=False)
                seen.append(done)
                return
            time.sleep(0.005)

    killer = threading.Thread(target=kill)
    with open_engine("ray") as engine:
        killer.start()
        score_cross(
            model, data, photos_data / "data", features, out, tile=(3, 5), memory=1 << 24, engine=engine
        )
        killer.join()
    n_tiles = 10 * -(-len(set(data.captions)) // 5)
    assert 20 <= seen[0] < n_tiles - 10  # in the middle indeed
    assert (out / "scores.npy").read_bytes() == alone[FILES.index("all/scores.npy")]


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "wait.py"
    script.write_text(
        "import os, time\n"
        "from tiir.scoring.engines.local import LocalEngine\n"
        "class Wait:\n"
        "    chunk = 1\n"
        "    def results(self, numbers):\n"
        "        open(f'{os.getpid()}.pid', 'w').close()\n"
        "        time.sleep(60)\n"
        "        yield from ((n, n) for n in numbers)\n"
        "if __name__ == '__main__':\n"
        "    LocalEngine(2).run(Wait(), range(4), print, weights=[1] * 4, unit='', description='')\n"
    )
    for how in (signal.SIGKILL, signal.SIGINT):
        parent = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        workers = [psutil.Process(int(path.stem)) for path in tmp_path.glob("*.pid")]
        assert len(workers) == 2
        parent.send_signal(how)
        parent.wait(20)
        assert psutil.wait_procs(workers, timeout=20)[1] == []
        for path in tmp_path.glob("*.pid"):
            path.unlink()
