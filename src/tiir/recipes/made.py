"""Whether what lies in a recipe's folders is what the recipe makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, TiirError
from tiir.features.store import FeatureStore
from tiir.io import read_json
from tiir.recipes.place import Place
from tiir.recipes.recipe import Recipe
from tiir.scoring.run import Run
from tiir.setup import Step
from tiir.train.config import differences, start_of

__all__ = ["check_unchanged", "decisive", "model_flaw", "run_flaw", "with_check"]


def with_check(name: str, valid: Callable[[], bool], run: Callable[[], None]) -> Step:
    """A step that is done where its output is there and valid.

    Args:
        name: what it makes.
        valid: whether it is; what it needs may be missing or damaged.
        run: makes it.
    """

    def check() -> bool:
        try:
            return valid()
        except (TiirError, OSError, KeyError, TypeError):
            return False

    done = check()
    return Step(name, done, 0, 0, 0.0 if done else None, check, run)


def decisive(recipe: Recipe) -> dict[str, Any]:
    """What decides the results; of directories only the name: their content is compared by itself."""
    facts = recipe.model_dump(mode="json", include={"name", "data", "images", "features", "model", "train"})
    for key in ("data", "model", "features"):
        if facts[key] is not None and facts[key].rpartition(":")[2].startswith("/"):
            facts[key] = Path(facts[key]).name
    if recipe.rerank is not None:
        facts["rerank"] = {
            "first": recipe.rerank.first.name,
            "by": recipe.rerank.by.name,
            "depth": recipe.rerank.depth,
        }
    return facts


def check_unchanged(recipe: Recipe, place: Place) -> None:
    """Refuse what the recipe has made before a change. Where it failed at once, as with a misspelt model, nothing is.

    Raises:
        ConfigError: what has changed.
    """
    path = place.folder / "recipe.json"
    records = {path, place.model / "training.json"}
    made = (file for file in place.folder.rglob("*") if not file.name.startswith(".") and file.is_file())
    if not path.exists() or records.issuperset(made):
        return
    begun, now = read_json(path, error=ConfigError), decisive(recipe)
    if not isinstance(begun, dict):
        raise ConfigError(f"{path} is not a record of a recipe", hint="choose another --to")
    # What an earlier version did not record counts as the same.
    for key, before, after in differences({**now, **begun}, now):
        raise ConfigError(
            f"{place.folder} was made by recipe {recipe.name} with another {key}: {before!r}, now it is {after!r}",
            hint="give the changed recipe another name, choose another --to, or delete that folder",
        )


def model_flaw(recipe: Recipe, place: Place) -> str | None:
    """What is wrong with the trained model; None where it is finished, and of this training and data.

    Raises:
        TiirError: the model, its data or features are not there.
    """
    assert recipe.train is not None
    now: dict[str, Any] = {
        "config": recipe.train.model_dump(mode="json"),
        "dataset": Dataset.load(place.data("train")).fingerprint,
    }
    if (start := start_of(recipe.train)) is not None and Path(start).is_dir():
        from tiir.models.source import Source

        now["start"] = Source(start).revision
    if recipe.features is not None:
        now["features"] = FeatureStore.open(place.features("train")).fingerprint
    begun = read_json(place.model / "training.json")
    read_json(place.model / "history.json")  # written last
    for key, before, after in differences({**now, **begun}, {**begun, **now}):
        return f"trained with another {key}: {before!r}, now it is {after!r}"
    return None


def run_flaw(
    run: Path, data: Path, model: str, features: Path | None, first: tuple[Path, int] | None = None
) -> str | None:
    """What is wrong with a Run; None where it is of this data, model and features.

    Args:
        run: its directory.
        data: the data set.
        model: as `tiir.models.load` takes it; a directory is known by its content, a hub model by its name.
        features: the store, or None.
        first: of a cascade: the Run of the first stage, and the depth.

    Raises:
        TiirError: one of them is not there.
    """
    info = Run.load(run).info
    if info.fingerprint != Dataset.load(data).fingerprint:
        return f"of other data than {data}"
    name = info.model.rpartition(" > ")[2]
    folder = Path(model.removeprefix("lxmert:"))
    if folder.is_dir():
        from tiir.models.source import Source

        same = info.revision == Source(str(folder)).revision
    else:
        same = name == model
    if not same:
        return f"of {name} ({info.revision}), and not of {model} as it is now"
    notes = info.notes
    if features is not None:
        seen = notes.get("features", {}).get("fingerprint")
        if seen != FeatureStore.open(features).fingerprint:
            return f"of other features than {features}"
    if first is None and "depth" in notes:
        return "of a cascade"
    if first is not None:
        stage, depth = first
        if notes.get("depth") != depth:
            return f"of depth {notes.get('depth')}, and not {depth}"
        now = Run.load(stage).info
        if any(getattr(now, key) != value for key, value in notes["first_stage"].items()):
            return f"of another first stage than {stage} is now"
    return None
