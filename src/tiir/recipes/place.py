"""Where the parts of a recipe lie in the folder of all recipes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tiir.errors import RunError
from tiir.out import begin
from tiir.recipes.recipe import SOURCES, Recipe
from tiir.scoring.run import HEADER, Run
from tiir.setup import DETECTOR

__all__ = ["Place"]


@dataclass(frozen=True)
class Place:
    """The folders of a recipe.

    Args:
        recipe: whose.
        to: the folder of all recipes.

    Example:
        >>> from tiir.recipes import find_recipe
        >>> place = Place(find_recipe("clip-b32"), Path("results"))
        >>> place.folder.as_posix(), place.data("test").as_posix()
        ('results/clip-b32', 'results/coco/coco-test')
    """

    recipe: Recipe
    to: Path

    @property
    def folder(self) -> Path:
        """Of the recipe itself: it is the Run, and holds what belongs to it."""
        folder = self.to / self.recipe.name
        own = (self.data(split).resolve() for split in self.recipe.splits)
        if self.recipe.name in SOURCES or any(data.is_relative_to(folder.resolve()) for data in own):
            raise RunError(
                f"a recipe named {self.recipe.name}, and data in {folder}",
                hint="a recipe has a folder of its own: give it another name, or choose another --to",
            )
        return folder

    @property
    def model(self) -> Path:
        """What is trained."""
        return self.folder / "model"

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / "report"

    @property
    def scored(self) -> str:
        """The model, as `tiir.models.load` takes it."""
        prefix = "lxmert:" if self.recipe.features else ""
        return self.recipe.model or f"{prefix}{self.model}"

    def data(self, split: str) -> Path:
        """The data set of a split."""
        data, n = self.recipe.data, dict(self.recipe.images).get(split)  # type: ignore[call-overload]
        if data == "coco":
            return self.to / "coco" / f"coco-{split}"
        if data == "scenes":
            return self.to / "scenes" / (split if n is None else f"{split}-{n}")
        return self.to / f"flickr8k-{split}" if data == "flickr8k" else Path(data) / split

    def features(self, split: str) -> Path:
        """The region features of a split: beside the data, which recipes share, unless these are the user's."""
        assert self.recipe.features is not None
        kind = self.recipe.features
        kind = kind.partition(":")[0] if kind == DETECTOR else re.sub(r"[^\w.-]+", "-", kind).strip("-")
        where = self.data(split)
        return (where.parent if self.recipe.data in SOURCES else self.folder) / f"{where.name}-{kind}.h5"

    def clear_for_run(self, flaw: Callable[[], str | None]) -> None:
        """Refuse a finished Run of something else; a damaged one is made again.

        Raises:
            RunError: what it is of.
        """
        header = self.folder / HEADER
        if not header.exists():
            return
        try:
            Run.load(self.folder)
        except RunError:
            begin(header)
            return
        if wrong := flaw():
            raise RunError(
                f"{self.folder} holds a Run {wrong}", hint=f"delete {header}, or choose another --to"
            )
