"""The recipe: one YAML file that says which data, which model, which protocols, and what is expected of it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tiir.data.protocols import PROTOCOLS
from tiir.errors import ConfigError
from tiir.io import read_json, read_yaml
from tiir.metrics.published import TOLERANCE
from tiir.train.config import LxmertTrainConfig, TrainConfig, checked, read_config

__all__ = ["Published", "Recipe", "Reported", "Rerank", "find_recipe", "read_recipe", "shipped"]

SOURCES = ("coco", "scenes", "flickr8k")
EXTRACTORS = ("frcnn", "detr", "grid", "scenes")
MOST = 1000  # letters of a name or path
METRICS = ("R@1", "R@5", "R@10", "median_rank", "mean_rank", "MRR")  # of each direction
GRADED = ("mAP@R", "R-Precision")  # also, of cxc and eccv
NAME = r"^[A-Za-z0-9][\w.-]*$"  # it becomes a folder's name


class Reported(BaseModel):
    """Numbers of others that are shown beside ours.

    Args:
        protocol: they were computed under.
        source: where they stand, and what is to be known about them.
        values: by name, as those of `tiir.metrics.Evaluation`: in percent, such as "i2t_R@1".
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    protocol: str
    source: str
    values: dict[str, float] = Field(min_length=1)

    @model_validator(mode="after")
    def _known(self) -> Reported:
        kinds = METRICS + (GRADED if self.protocol in ("cxc", "eccv") else ())
        known = ("rsum", *(f"{side}_{kind}" for side in ("i2t", "t2i") for kind in kinds))
        if unknown := [name for name in self.values if name not in known]:
            raise ValueError(f"{self.protocol} has no value {unknown[0]!r}: {', '.join(known)}")
        return self


class Published(Reported):
    """Numbers of others that ours are expected to come near.

    Args:
        band: points that ours may differ.
    """

    band: float = Field(TOLERANCE, gt=0)


class Rerank(BaseModel):
    """A cascade of two other recipes.

    Args:
        first: recipe of the first stage; in the file its name, or a path from this file.
        by: recipe of the LXMERT that scores the shortlists again.
        depth: candidates a query, in both directions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: Recipe
    by: Recipe
    depth: int = Field(100, ge=1)


class Recipe(BaseModel):
    """An experiment.

    Args:
        name: of its folder; the file's name where not given.
        title: one line.
        data: "coco", "scenes", "flickr8k" (copied by you to `flickr8k/` in the target folder), or a directory with
            data sets of `tiir prepare` called `test`, and `train` and `val` where something is trained.
        images: scenes: pictures of each split; the usual number of those not given.
        features: LXMERT: the extractor of its regions, as `tiir features extract` takes it.
        model: what is scored: as `tiir score` takes it; or
        train: what is trained and then scored: a configuration of `tiir train`, or its file; or
        rerank: a cascade of two recipes.
        protocols: to evaluate with; the first one is the report's.
        published: what is expected, where `tiir.metrics.published` does not know it.
        reported: what others reported, shown and not expected.
        note: a sentence for the reader of the table.

    A path that begins with a dot is relative to the file that it stands in.

    Example:
        >>> Recipe(name="b32", title="CLIP", data="coco", model="openai/clip-vit-base-patch32", protocols=["coco-5k"])
        Recipe(b32: openai/clip-vit-base-patch32 on coco, coco-5k)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME)
    title: str
    data: str
    images: dict[Literal["train", "val", "test"], Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    features: str | None = None
    model: str | None = None
    train: TrainConfig | LxmertTrainConfig | None = None
    rerank: Rerank | None = None
    protocols: tuple[str, ...] = Field(min_length=1)
    published: tuple[Published, ...] = ()
    reported: tuple[Reported, ...] = ()
    note: str | None = None

    def __repr__(self) -> str:
        return f"Recipe({self.name}: {self.what} on {Path(self.data).name}, {', '.join(self.protocols)})"

    @property
    def what(self) -> str:
        """What is scored, in a few words."""
        if self.rerank is not None:
            return f"{self.rerank.first.name}, best {self.rerank.depth} re-ranked by {self.rerank.by.name}"
        return self.model or f"{'LXMERT' if self.features else 'dual encoder'}, trained"

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits of the data that it takes."""
        if self.rerank is not None:
            both = {*self.rerank.first.splits, *self.rerank.by.splits}
            return tuple(split for split in ("train", "val", "test") if split in both)
        return ("train", "val", "test") if self.train is not None else ("test",)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if sum(part is not None for part in (self.model, self.train, self.rerank)) != 1:
            raise ValueError("give one of 'model', 'train' and 'rerank'")
        if self.data not in SOURCES and not Path(self.data).is_absolute():
            raise ValueError(f"data is {self.data!r}: {', '.join(SOURCES)}, or a directory such as ./data")
        if self.images and self.data != "scenes":
            raise ValueError("images is for data: scenes, which are drawn")
        unknown = [p for p in (*self.protocols, *(n.protocol for n in self._numbers())) if p not in PROTOCOLS]
        if unknown:
            raise ValueError(f"no protocol {unknown[0]!r}: {', '.join(PROTOCOLS)}")
        for listed in (self.protocols, [numbers.protocol for numbers in self.published]):
            if twice := [protocol for protocol in listed if listed.count(protocol) > 1]:
                raise ValueError(f"{twice[0]} is given twice")
        for protocol in self.protocols:
            family = protocol if protocol in ("own", "flickr8k") else "coco"
            if self.data in SOURCES and family not in ("own", self.data):
                raise ValueError(f"protocol {protocol} is not of {self.data}")
        if foreign := [n.protocol for n in self._numbers() if n.protocol not in self.protocols]:
            raise ValueError(f"numbers of {foreign[0]}, which is not among the protocols")
        if self.rerank is not None:
            return self._check_cascade(self.rerank)
        if self.model is not None and self.model.startswith("lxmert:") != (self.features is not None):
            raise ValueError("'features' belong to an LXMERT (model: lxmert:NAME), and an LXMERT needs them")
        if self.train is not None and isinstance(self.train, LxmertTrainConfig) != bool(self.features):
            raise ValueError("an LXMERT is trained with 'features', a dual encoder without")
        if isinstance(self.train, LxmertTrainConfig) and (self.train.hard_share or self.train.hard_partners):
            raise ValueError(
                "hard negatives need the Run of another model: train it with `tiir train lxmert --negatives`"
            )
        if self.features is not None:
            kind, _, model = self.features.partition(":")
            if kind not in EXTRACTORS or (kind == "scenes") == bool(model):
                raise ValueError(
                    f"no extractor {self.features!r}: frcnn:MODEL, detr:MODEL, grid:MODEL, scenes"
                )
        return self

    def _numbers(self) -> tuple[Reported, ...]:
        return (*self.published, *self.reported)

    def _check_cascade(self, rerank: Rerank) -> Recipe:
        if self.features is not None:
            raise ValueError(f"'features' of a cascade are those of {rerank.by.name}")
        if rerank.first.features or rerank.first.rerank:
            raise ValueError(f"rerank.first is {rerank.first.name}, which is no dual encoder")
        if not rerank.by.features:
            raise ValueError(f"rerank.by is {rerank.by.name}, which is no LXMERT")
        for part in (rerank.first, rerank.by):
            if (part.data, part.images) != (self.data, self.images):
                raise ValueError(f"{part.name} has other data than this cascade")
        return self


def shipped() -> dict[str, Path]:
    """The files of the recipes that come with tiir, by name."""
    folder = Path(str(files("tiir"))) / "assets" / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Recipe:
    """A recipe that comes with tiir, by name, or one's own, by its file.

    Raises:
        ConfigError: there is none, or it is not right.

    Example:
        >>> find_recipe("clip-b32")
        Recipe(clip-b32: openai/clip-vit-base-patch32 on coco, coco-5k, coco-1k-5fold)
    """
    return read_recipe(_file(name, Path()))


def read_recipe(path: Path | str) -> Recipe:
    """Read a YAML (or .json) file.

    Args:
        path: the file.

    Raises:
        ConfigError: missing, unreadable, unknown keys or wrong values (each named).
    """
    return _read(Path(path).resolve(), ())


def _read(path: Path, within: tuple[Path, ...]) -> Recipe:
    # `within`: cascades that it is read for.
    if path in within:
        raise ConfigError(f"{path} is a part of itself", hint="name other recipes in rerank")
    values = (read_json if path.suffix == ".json" else read_yaml)(path, error=ConfigError)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no recipe", hint=f"keys: {', '.join(Recipe.model_fields)}")
    values = {"name": path.stem, **values}
    for key in ("data", "model", "features"):
        values |= {key: _placed(values[key], path.parent)} if isinstance(values.get(key), str) else {}
    if (train := values.get("train")) is not None:
        kind: type[Any] = LxmertTrainConfig if values.get("features") else TrainConfig
        values["train"] = _training(train, kind, path)
    if isinstance(rerank := values.get("rerank"), dict):
        parts = {
            key: _read(_file(name, path.parent).resolve(), (*within, path))
            for key, name in rerank.items()
            if key in ("first", "by") and isinstance(name, str)
        }
        values["rerank"] = {**rerank, **parts}
    return checked(values, Recipe, path)


def _training(train: Any, kind: type[Any], path: Path) -> Any:
    # A configuration, or the name of its file; its paths are relative to the file that they stand in.
    if isinstance(train, str):
        path = Path(_placed(train, path.parent))
        config = read_config(path, kind)
    else:
        config = checked(train, kind, f"{path}, train")
    if config.model is not None:
        return config.model_copy(update={"model": _placed(config.model, path.parent)})
    if language := getattr(config.scratch, "language", None):
        scratch = config.scratch.model_copy(update={"language": _placed(language, path.parent)})
        return config.model_copy(update={"scratch": scratch})
    return config


def _placed(name: str, folder: Path) -> str:
    if "\0" in name or len(name) > MOST:
        raise ConfigError(f"{name[:40]!r} in a recipe of {folder} is no name", hint="a hub id or a path")
    # "lxmert:./model" beside the file is "lxmert:/where/model".
    kind, colon, rest = name.rpartition(":")
    return f"{kind}{colon}{(folder / rest).resolve()}" if rest.startswith(".") else name


def _file(name: str, folder: Path) -> Path:
    if name.endswith((".yaml", ".yml", ".json")):
        return folder / _placed(name, folder)
    known = shipped()
    if name not in known:
        raise ConfigError(f"no recipe {name!r}", hint=f"a file (.yaml), or one of: {', '.join(known)}")
    return known[name]


Rerank.model_rebuild()
