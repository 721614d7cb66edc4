"""The SLURM jobs: what sbatch and tiir would refuse, and each of them run to its end with a stand-in for srun."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import typer

from tiir import models
from tiir.cli.verbs import app
from tiir.data.sources import scenes
from tiir.features.scenes import scenes_features
from tiir.features.store import FeatureStore
from tiir.scoring.dense import score_dual
from tiir.scoring.run import Run, RunInfo

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "src" / "tiir" / "assets"
JOBS = sorted((ROOT / "slurm").glob("*.sbatch"))
# Options of sbatch that jobs may use: sbatch(1) of Slurm 22.05.
SBATCH = """account array begin chdir comment constraint cpus-per-gpu cpus-per-task dependency error exclude exclusive
    export gpus gpus-per-node gpus-per-task gres hint input job-name licenses mail-type mail-user mem mem-per-cpu
    mem-per-gpu nice no-kill no-requeue nodelist nodes ntasks ntasks-per-node open-mode output partition prefer
    priority qos requeue reservation signal switches time time-min tmp wait-all-nodes wckey"""
# As many tasks as the job has nodes, all on this machine.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for ((n = SLURM_NNODES - 1; n > 0; n--)); do SLURM_PROCID=$n SLURM_NODEID=$n "$@" & done
if ((SLURM_NNODES == 1)); then SLURM_PROCID=0 SLURM_NODEID=0 exec "$@"; fi
SLURM_PROCID=0 SLURM_NODEID=0 "$@" && wait -n
"""
ECHO = (
    '#!/bin/bash\nprintf "%s\\n" "$(basename "$0")" "$@" ---\n'  # a command that only says how it was called
)
# What each job must be told.
INPUTS: dict[str, dict[str, str]] = {
    "train-clip": {"TRAIN": "a", "VALIDATION": "b", "CONFIG": "c", "OUT": "d"},
    "train-lxmert": {
        "TRAIN": "a",
        "FEATURES": "b",
        "VALIDATION": "c",
        "VALIDATION_FEATURES": "d",
        "CONFIG": "e",
        "OUT": "f",
    },
    "extract": {"DATASETS": "a b"},
    "zero-shot": {"DATASET": "a", "OUT": "b"},
    "predict": {"MODEL": "a", "DATASET": "b", "FEATURES": "c", "OUT": "d"},
    "rerank": {"RUN": "a", "MODEL": "b", "FEATURES": "c", "OUT": "d"},
    "analyze": {"RUNS": "a", "OUT": "b"},
    "compare": {"RUNS": "a b", "OUT": "c.parquet"},
    "ray": {},
}
Job = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Runs a job as sbatch would, in `tmp_path`, with the given variables in its environment."""
    shutil.copytree(ROOT / "slurm", tmp_path / "slurm")
    stand_in(tmp_path, "srun", SRUN)

    def run(name: str, *arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
        known = {
            "SLURM_JOB_ID": os.getpid(),
            "SLURM_NNODES": 1,
            "SLURM_CPUS_ON_NODE": 1,
            "OMP_NUM_THREADS": 1,
        }
        path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "RANK", "WORLD_SIZE"))
        }
        environment |= {k: str(v) for k, v in (known | variables | {"PATH": path}).items()}
        return subprocess.run(
            ["bash", f"slurm/{name}.sbatch", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    return run


def stand_in(folder: Path, name: str, text: str) -> None:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_every_job_is_tested() -> None:
    assert {path.stem for path in JOBS} == set(INPUTS)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_sbatch_knows_the_options(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    directives = [line for line in lines if line.startswith("#SBATCH")]
    body = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert lines.index(directives[-1]) < body  # what comes after the first command, sbatch does not read
    options = dict(re.fullmatch(r"--([a-z-]+)(?:=(\S+))?", word).groups() for line in directives for word in line.split()[1:])  # type: ignore[union-attr]  # fmt: skip
    assert set(options) <= set(SBATCH.split())
    assert {"job-name", "nodes", "time"} <= set(options)
    assert re.fullmatch(r"\d\d:\d\d:\d\d", options["time"])
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


@pytest.mark.parametrize("name", [path.stem for path in JOBS if path.stem != "ray"])
def test_tiir_knows_the_options(job: Job, tmp_path: Path, name: str) -> None:
    """What a job would call, parsed by the parser of tiir and of torchrun; and what it says where an input is missing."""
    for command in ("torchrun", "tiir"):
        stand_in(tmp_path, command, ECHO)
    inputs = INPUTS[name]
    called = job(name, **inputs, NEGATIVES="x")
    assert called.returncode == 0, called.stderr
    verbs = called.stdout.split("---\n")[:-1]
    assert verbs
    for said in verbs:
        command, *arguments = said.splitlines()
        if command == "torchrun":
            from torch.distributed.run import get_args_parser

            parsed = get_args_parser().parse_args(arguments)
            assert (parsed.training_script, parsed.module, parsed.nnodes) == ("tiir", True, "1")
            arguments = parsed.training_script_args
        parse(arguments)
    for missing in inputs:
        left = job(name, **{key: value for key, value in inputs.items() if key != missing})
        assert left.returncode != 0
        assert re.search(rf"{missing}: .+", left.stderr)


def parse(arguments: list[str]) -> None:
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *arguments = arguments
        assert name in command.commands, name
        command = command.commands[name]
    command.make_context(command.name, arguments)  # raises for what it does not know


def test_a_wrong_option_would_be_noticed() -> None:
    for wrong in (["scores", "m"], ["score", "m", "d", "--out", "o", "--ouch"], ["score", "m", "--out", "o"]):
        with pytest.raises(Exception, match=r"scores|ouch|dataset"):
            parse(wrong)


def test_a_job_goes_back_into_the_queue_before_its_time_is_over(job: Job, tmp_path: Path) -> None:
    stand_in(tmp_path, "scontrol", '#!/bin/bash\necho "$*" >> queue\n')
    text = f"source slurm/common.sh\n(sleep 0.3; kill -{signal.SIGUSR1:d} $$) &\nrun bash -c 'sleep 1; exit $0' 7\n"
    (tmp_path / "slurm" / "long.sbatch").write_text(text)
    assert job("long", SLURM_JOB_ID=17).returncode == 7  # the verb's own code, though a signal came
    assert (tmp_path / "queue").read_text() == "requeue 17\n"
    assert job("long", SLURM_JOB_ID=17, SLURM_RESTART_COUNT=20).returncode == 7
    assert (tmp_path / "queue").read_text() == "requeue 17\n"
    assert "with sbatch" in job("long", SLURM_JOB_ID="").stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of a few scenes, their regions, and a Run; recipes of a training of seconds."""
    folder = tmp_path_factory.mktemp("slurm")
    data = scenes.prepare(folder / "data", split="train", n=16)
    data.save(folder / "data")
    scenes_features(data, folder / "data.h5")
    clip = models.load(str(ASSETS / "scenes-clip"), device="cpu")
    run = score_dual(clip, data, folder / "data", folder / "run")
    other = RunInfo.about(data, folder / "data", "other")
    Run(other, image_embeds=-np.asarray(run.image_embeds), text_embeds=run.text_embeds).save(folder / "other")
    training = (
        "training: {num_train_epochs: 1, per_device_train_batch_size: 8, use_cpu: true, report_to: none}\n"
    )
    small = "heads: 2, width: 32, language_layers: 1, vision_layers: 1, cross_layers: 1"
    (folder / "lxmert.yaml").write_text(f"scratch: {{{small}}}\nobjective: contrastive\n{training}")
    (folder / "clip.yaml").write_text(f"model: {ASSETS / 'scenes-clip'}\n{training}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", list(INPUTS))
def test_jobs_run_to_their_end(job: Job, world: Path, tmp_path: Path, name: str) -> None:
    data, regions, out = world / "data", world / "data.h5", tmp_path / "out"
    lxmert, clip, first = ASSETS / "scenes-lxmert", ASSETS / "scenes-clip", world / "run"
    train = {"TRAIN": data, "VALIDATION": data, "OUT": out}
    ended: subprocess.CompletedProcess[str]

    if name == "train-clip":
        ended = job(name, **train, CONFIG=world / "clip.yaml")
        made = out / "model.safetensors"
    elif name == "train-lxmert":
        ended = job(
            name, **train, CONFIG=world / "lxmert.yaml", FEATURES=regions, VALIDATION_FEATURES=regions
        )
        made = out / "model.safetensors"
    elif name == "extract":
        shutil.copytree(data, tmp_path / "again")
        ended = job(name, DATASETS="nothing again", SLURM_ARRAY_TASK_ID=1, EXTRACTOR="scenes")
        made = tmp_path / "again.h5"
        assert FeatureStore.open(made).fingerprint == FeatureStore.open(regions).fingerprint
    elif name == "zero-shot":
        ended = job(name, MODELS=clip, DATASET=data, OUT=out)
        made = out / "scenes-clip" / "run.json"
        assert "i2t" in ended.stdout
    elif name == "predict":
        ended = job(name, MODEL=lxmert, DATASET=data, FEATURES=regions, OUT=out, SLURM_NNODES=2)
        made = out / "run.json"
        assert Run.load(out).scores is not None
    elif name == "rerank":
        ended = job(name, "--depth", "3", RUN=first, MODEL=lxmert, FEATURES=regions, OUT=out)
        made = out / "shortlist.npz"
    elif name == "analyze":
        ended = job(name, RUNS=first, OUT=out)
        made = out / "run" / "queries.parquet"
    elif name == "compare":
        ended = job(
            name, "--resamples", "100", RUNS=f"{first} {world / 'other'}", OUT=tmp_path / "queries.parquet"
        )
        made = tmp_path / "queries.parquet"
    else:
        with TemporaryDirectory(prefix="ray-") as short:  # the names of sockets have a limit
            ended = job(name, "evaluate", str(first), "--resamples", "0", "--json", RAY_TMPDIR=short)
        assert '"i2t_R@1"' in ended.stdout
        made = first
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert made.exists()
