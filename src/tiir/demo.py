"""The demo: the whole main job on Scenes, offline, with a small CLIP that ships in the package."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

from tiir.data.dataset import Dataset
from tiir.data.protocols import resolve
from tiir.data.sources.scenes import prepare
from tiir.errors import ConfigError
from tiir.metrics.evaluate import Evaluation, evaluate
from tiir.report.sheet import contact_sheet, sample_queries
from tiir.scoring.dense import score_dual

__all__ = ["run_demo", "train_demo_model"]


def run_demo(
    out: Path, *, train: bool = False, overwrite: bool = False, say: Callable[[str], None] = lambda text: None
) -> tuple[Evaluation, Path]:
    """Prepare 1,000 test scenes, score them with the small CLIP, evaluate, draw hard and easy queries.

    Args:
        out: directory to write: `scenes/`, the Run `scenes-clip/`, `sheet.png` (with `train` also `model/` and its data).
        train: train the small CLIP again, by the recipe it was made with, instead of using the packaged one.
        overwrite: replace an earlier demo in `out`.
        say: called with a line before each step.

    Returns:
        The evaluation and the path of the contact sheet.

    Raises:
        ConfigError: `out` already holds a demo and `overwrite` is False, or is a file.
    """
    from tiir.models import load

    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file", hint="name a directory")
    if (out / "scenes-clip" / "run.json").exists() and not overwrite:
        raise ConfigError(f"{out} already holds a demo", hint="choose another --out, or --overwrite")
    say("preparing Scenes: 1,000 drawn pictures, five captions each")
    folder = out / "scenes"
    prepare(folder, split="test").save(folder, overwrite=True)
    dataset = Dataset.load(folder)
    with as_file(files("tiir") / "assets" / "scenes-clip") as packaged:
        model = train_demo_model(out, say=say) if train else packaged
        say(
            f"scoring every picture against every caption with {'the new' if train else 'the packaged'} small CLIP"
        )
        run = score_dual(load(str(model)), dataset, folder, out / "scenes-clip", overwrite=True)
    say("counting ranks")
    evaluation = evaluate(run, dataset)
    hard, easy = sample_queries(evaluation.ranks)
    sheet = out / "sheet.png"
    groups = [("hard: not in the top 10", hard), ("easy: found first", easy)]
    contact_sheet(run, dataset, resolve("own", dataset)[0], evaluation.ranks, groups, sheet)
    return evaluation, sheet


def train_demo_model(out: Path, *, say: Callable[[str], None] = lambda text: None) -> Path:
    """Train the small CLIP by `recipes/scenes-clip.yaml` on freshly drawn training scenes.

    Args:
        out: directory to write `scenes-train/`, `scenes-val/` and `model/` into.
        say: called with a line before each step.

    Returns:
        The directory of the trained model.
    """
    from tiir.train.config import read_config
    from tiir.train.trainer import train_clip

    if (out / "model" / "training.json").exists():  # an earlier demo's, which the caller agreed to replace
        shutil.rmtree(out / "model")
    data = {}
    for split in ("train", "val"):
        say(f"drawing the {split} scenes")
        folder = out / f"scenes-{split}"
        prepare(folder, split=split).save(folder, overwrite=True)
        data[split] = Dataset.load(folder)
    say("training the small CLIP")
    with as_file(files("tiir") / "assets" / "scenes-clip.yaml") as recipe:
        config = read_config(recipe)
    return train_clip(data["train"], config, out=out / "model", validation=data["val"], resume=False)
