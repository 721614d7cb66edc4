"""From a recipe to its steps: data, features, training, scoring, report. What is there and valid stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tiir.data.coco import PARTS
from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, MissingExtraError
from tiir.io import write_json
from tiir.metrics.evaluate import evaluate
from tiir.out import begin
from tiir.recipes.data import Sources, data_steps, keys_of, size_of
from tiir.recipes.made import check_unchanged, decisive, model_flaw, run_flaw, with_check
from tiir.recipes.outcome import Outcome
from tiir.recipes.place import Place
from tiir.recipes.recipe import Recipe
from tiir.scoring.engines.torchrun import started_by_torchrun
from tiir.scoring.plan import begun_commit
from tiir.scoring.run import HEADER, Run, check_run_out
from tiir.setup import Step, do_steps, extract_step
from tiir.train.config import LxmertTrainConfig

__all__ = ["check_extras", "recipe_steps", "run_recipe"]

Say = Callable[[str], None]


def run_recipe(
    recipe: Recipe,
    to: Path | str,
    *,
    device: str = "auto",
    sources: Sources = PARTS,
    how: Mapping[str, Any] = {},
    resamples: int = 1000,
    say: Say = lambda text: None,
) -> Outcome:
    """Do what is not done of a recipe, and evaluate. A killed one is continued by the next call.

    Args:
        recipe: from `find_recipe` or `read_recipe`.
        to: folder for everything: data (`coco/`, `scenes/`), which recipes share, and a folder for each recipe, which is
            its Run and holds `model/` and `report/`.
        device: of extractors and scoring; training takes what there is.
        sources: where COCO's files are fetched from, from `tiir.data.coco.read_sources`.
        how: `tries` and `wait` of the download.
        resamples: of the bootstrap; no intervals where 0.
        say: is told what happens.

    Raises:
        ConfigError: `to` holds results of the recipe as it was before a change, or torchrun started this.
        MissingExtraError: a package that the recipe needs is not installed.
        TiirError: as the steps raise it.
    """
    place = Place(recipe, to := Path(to))
    if started_by_torchrun():
        raise ConfigError(
            "a recipe is run by one process",
            hint=f"under torchrun, `tiir train` with --out {place.model} and `tiir score` with --out {place.folder}; "
            "the recipe finds them done",
        )
    check_extras(recipe)
    steps = recipe_steps(recipe, to, device=device, sources=sources, how=how, say=say)
    for part in _parts(recipe):
        folder = Place(part, to).folder
        if not (folder / HEADER).exists():
            begin(folder / HEADER)
        write_json(folder / "recipe.json", decisive(part))
    do_steps(to, steps, recipe.name, say)
    say("counting ranks")
    run = Run.load(place.folder)
    data = Dataset.load(place.data("test"))
    evaluations = [
        evaluate(run, data, protocol, keys=keys_of(protocol, data, to), resamples=resamples)
        for protocol in recipe.protocols
    ]
    return Outcome(
        recipe, tuple(replace(e, run=recipe.name) for e in evaluations), place.report / "index.html"
    )


def recipe_steps(
    recipe: Recipe,
    to: Path | str,
    *,
    device: str = "auto",
    sources: Sources = PARTS,
    how: Mapping[str, Any] = {},
    say: Say = lambda text: None,
) -> list[Step]:
    """What it takes to have a recipe's Run and report in `to`; nothing is written.

    Args:
        recipe, to, device, sources, how, say: see `run_recipe`.

    Raises:
        ConfigError: `to` holds results of the recipe as it was before a change, or files of others in their place.

    Example:
        >>> from tiir.recipes import find_recipe
        >>> [step.name for step in recipe_steps(find_recipe("clip-b32"), Path("results"))]
        ['download val2014', 'download karpathy', 'prepare coco-test', 'score clip-b32', 'report clip-b32']
    """
    to = Path(to)
    for part in _parts(recipe):
        check_unchanged(part, place := Place(part, to))
        if not (place.folder / "recipe.json").exists():
            check_run_out(place.folder, overwrite=True)
    steps = data_steps(recipe, to, sources, how)
    models = _parts(recipe)[1:] or [recipe]  # of a cascade, its two parts
    for part in models:
        if part.features is not None:
            loaded: list[Any] = []
            for split in part.splits:
                where, out = Place(part, to).data(split), Place(part, to).features(split)
                n_images = size_of(part, split, where)
                steps.append(extract_step(where, out, part.features, device, n_images, loaded))
        if part.train is not None:
            steps.append(_train_step(part, Place(part, to)))
    steps.append(_score_step(models[0], Place(models[0], to), device, say))
    if recipe.rerank is not None:
        steps.append(_rerank_step(recipe, to, device, say))
    steps.append(_report_step(recipe, to, say))
    return steps


def check_extras(recipe: Recipe) -> None:
    """Say before the long work, not after it, what must be installed.

    Raises:
        MissingExtraError: a package that the recipe needs is not.
    """
    trains = any(part.train is not None for part in _parts(recipe))
    if trains and find_spec("accelerate") is None:
        raise MissingExtraError("accelerate", "train")
    if {"cxc", "eccv"} & set(recipe.protocols) and find_spec("eccv_caption") is None:
        raise MissingExtraError("eccv_caption", "coco")


def _parts(recipe: Recipe) -> list[Recipe]:
    return [recipe] if recipe.rerank is None else [recipe, recipe.rerank.first, recipe.rerank.by]


def _train_step(recipe: Recipe, place: Place) -> Step:
    def flaw() -> str | None:
        return model_flaw(recipe, place)

    def run() -> None:
        if (place.model / "history.json").exists() and (wrong := flaw()):
            raise ConfigError(
                f"{place.model} holds a model {wrong}", hint="delete that folder, or choose another --to"
            )
        data, held_out = (Dataset.load(place.data(split)) for split in ("train", "val"))
        if isinstance(recipe.train, LxmertTrainConfig):
            from tiir.features.store import FeatureStore
            from tiir.train.lxmert import train_lxmert

            train_lxmert(
                data,
                recipe.train,
                features=FeatureStore.open(place.features("train")),
                out=place.model,
                validation=held_out,
                validation_features=FeatureStore.open(place.features("val")),
                resume=True,
            )
        else:
            from tiir.train.clip import train_clip

            assert recipe.train is not None
            train_clip(data, recipe.train, out=place.model, validation=held_out, resume=True)

    return with_check(f"train {recipe.name}", lambda: flaw() is None, run)


def _score_step(recipe: Recipe, place: Place, device: str, say: Say) -> Step:
    features = None if recipe.features is None else place.features("test")

    def flaw() -> str | None:
        return run_flaw(place.folder, place.data("test"), place.scored, features)

    def run() -> None:
        from tiir.models import load
        from tiir.scoring.cross import score_cross
        from tiir.scoring.dense import score_dual

        place.clear_for_run(flaw)
        where = place.data("test")
        data = Dataset.load(where)
        model: Any = load(place.scored, device=device, revision=begun_commit(place.folder, place.scored))
        if features is None:
            score_dual(model, data, where, place.folder, resume=True)
        else:
            from tiir.features.store import FeatureStore

            score_cross(model, data, where, FeatureStore.open(features), place.folder, resume=True, say=say)

    return with_check(f"score {recipe.name}", lambda: flaw() is None, run)


def _rerank_step(recipe: Recipe, to: Path, device: str, say: Say) -> Step:
    assert recipe.rerank is not None
    place, depth = Place(recipe, to), recipe.rerank.depth
    first, by = Place(recipe.rerank.first, to), Place(recipe.rerank.by, to)

    def flaw() -> str | None:
        return run_flaw(
            place.folder, place.data("test"), by.scored, by.features("test"), (first.folder, depth)
        )

    def run() -> None:
        from tiir.features.store import FeatureStore
        from tiir.models import load
        from tiir.scoring.cascade import rerank

        place.clear_for_run(flaw)
        where = place.data("test")
        data = Dataset.load(where)
        model: Any = load(by.scored, device=device, revision=begun_commit(place.folder, by.scored))
        store = FeatureStore.open(by.features("test"))
        rerank(
            Run.load(first.folder),
            data,
            model,
            store,
            place.folder,
            depth=depth,
            dataset_path=where,
            resume=True,
            say=say,
        )

    return with_check(f"re-rank {recipe.name}", lambda: flaw() is None, run)


def _report_step(recipe: Recipe, to: Path, say: Say) -> Step:
    from tiir.report.folder import digest, finished_plan

    place, protocol = Place(recipe, to), recipe.protocols[0]
    runs = ([] if recipe.rerank is None else [Place(recipe.rerank.first, to).folder]) + [place.folder]

    def check() -> bool:
        made = finished_plan(place.report)
        if made is None or not all((run / "run.json").exists() for run in runs):
            return False
        infos = [Run.load(run).info for run in runs]
        return (
            made["protocol"] == protocol
            and made["dataset"]["fingerprint"] == infos[-1].fingerprint
            and [run["hash"] for run in made["runs"]] == [digest(info.model_dump()) for info in infos]
        )

    def run() -> None:
        from tiir.report.build import build_site

        data = Dataset.load(place.data("test"))
        build_site(
            [Run.load(run) for run in runs],
            data,
            place.report,
            protocol=protocol,
            keys=keys_of(protocol, data, to),
            overwrite=True,
            say=say,
        )

    return with_check(f"report {recipe.name}", check, run)
