"""The demo: the whole main job on Scenes, offline, with a small CLIP and a small LXMERT that ship in the package."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

from tiir.data.dataset import Dataset
from tiir.data.protocols import resolve
from tiir.data.sources.scenes import prepare
from tiir.features.scenes import scenes_features
from tiir.metrics.evaluate import Evaluation, evaluate
from tiir.out import check_out, is_begun
from tiir.report.build import build_site
from tiir.report.folder import check_folder
from tiir.report.sheet import contact_sheet, sample_queries
from tiir.scoring.cascade import rerank
from tiir.scoring.cross import score_cross
from tiir.scoring.dense import score_dual

__all__ = ["DEPTHS", "run_demo", "train_demo_models"]

DEPTHS = (10, 50)  # of the cascades
Say = Callable[[str], None]


def run_demo(
    out: Path,
    *,
    images: int = 1000,
    train: bool = False,
    overwrite: bool = False,
    say: Say = lambda text: None,
) -> tuple[list[Evaluation], Path, Path]:
    """Prepare test scenes, score them with the small CLIP, with the small LXMERT, and with cascades of both.

    Args:
        out: directory to write: the data set `scenes/`, its regions `scenes.h5`, the Runs `clip/`,
            `lxmert/` (all pairs) and `cascade-DEPTH/`, `sheet.png`, the page `site/` (with `train` also the two
            models and their data).
        images: how many scenes; the time grows with the square of their number.
        train: train both models again, by the recipes they were made with, instead of using the packaged ones.
        overwrite: replace an earlier demo in `out`.
        say: called with a line before each step.

    Returns:
        The evaluations of CLIP, LXMERT over all pairs and the cascades, and the paths of the contact sheet and of
        the page.

    Raises:
        ConfigError: `out` already holds a demo and `overwrite` is False, or is a file or holds other files; or its `site/` is no site.
    """
    from tiir.models import load
    from tiir.models.lxmert import Lxmert

    made = (
        "scenes/dataset.json",
        "clip/run.json",
        "clip-model/training.json",
        "lxmert-model/training.json",
    )
    finished, begun = any((out / name).exists() for name in made), is_begun(out / made[0])
    check_out(out, "a demo", finished=finished, begun=begun, overwrite=overwrite)
    check_folder(out / "site", overwrite=True)
    say(f"preparing Scenes: {images:,} drawn pictures, five captions each, and the regions of what is drawn")
    folder = out / "scenes"
    prepare(folder, split="test", n=images).save(folder, overwrite=True)
    dataset = Dataset.load(folder)
    regions = scenes_features(dataset, out / "scenes.h5", overwrite=True)
    with as_file(files("tiir") / "assets") as assets:
        models = (
            train_demo_models(out, say=say) if train else (assets / "scenes-clip", assets / "scenes-lxmert")
        )
        clip, lxmert = load(str(models[0]), device="cpu"), Lxmert(str(models[1]), device="cpu")
        say("CLIP: a vector for every picture and every caption")
        first = score_dual(clip, dataset, folder, out / "clip", overwrite=True)
        runs = [first]
        for depth in DEPTHS:
            say(f"cascade: LXMERT re-ranks CLIP's shortlists of {depth}")
            cascade = out / f"cascade-{depth}"
            runs.append(
                rerank(
                    first, dataset, lxmert, regions, cascade, depth=depth, dataset_path=folder, overwrite=True
                )
            )
        say("LXMERT: every picture with every caption")
        runs.insert(1, score_cross(lxmert, dataset, folder, regions, out / "lxmert", overwrite=True, say=say))
    say("counting ranks")
    evaluations = [evaluate(run, dataset) for run in runs]
    hard, easy = sample_queries(evaluations[0].ranks)
    sheet = out / "sheet.png"
    groups = [("hard: not in the top 10", hard), ("easy: found first", easy)]
    contact_sheet(first, dataset, resolve("own", dataset)[0], evaluations[0].ranks, groups, sheet)
    say("writing the page")
    page = build_site(runs, dataset, out / "site", overwrite=True)
    return evaluations, sheet, page


def train_demo_models(out: Path, *, say: Say = lambda text: None) -> tuple[Path, Path]:
    """Train the small CLIP and the small LXMERT by their recipes, on freshly drawn training scenes.

    Earlier ones in `out` are replaced.

    Args:
        out: directory to write `scenes-train/`, `scenes-val/`, their regions, `clip-model/` and `lxmert-model/` into.
        say: called with a line before each step.

    Returns:
        The directories of the two models.
    """
    from tiir.train.clip import train_clip
    from tiir.train.config import LxmertTrainConfig, TrainConfig, read_config
    from tiir.train.lxmert import train_lxmert

    data, regions = {}, {}
    for split in ("train", "val"):
        say(f"drawing the {split} scenes")
        folder = out / f"scenes-{split}"
        prepare(folder, split=split).save(folder, overwrite=True)
        data[split] = Dataset.load(folder)
        regions[split] = scenes_features(data[split], out / f"scenes-{split}.h5", overwrite=True)
    places = out / "clip-model", out / "lxmert-model"
    for place in places:
        if (place / "training.json").exists():  # an earlier demo's
            shutil.rmtree(place)
    with as_file(files("tiir") / "assets") as assets:
        clip = read_config(assets / "recipes" / "training" / "scenes-clip.yaml", TrainConfig)
        lxmert = read_config(assets / "recipes" / "training" / "scenes-lxmert.yaml", LxmertTrainConfig)
    say("training the small CLIP")
    train_clip(data["train"], clip, out=places[0], validation=data["val"])
    say("training the small LXMERT")
    train_lxmert(
        data["train"],
        lxmert,
        features=regions["train"],
        out=places[1],
        validation=data["val"],
        validation_features=regions["val"],
    )
    return places
