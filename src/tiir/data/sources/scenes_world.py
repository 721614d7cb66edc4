"""What a Scenes picture holds: a backdrop, and things of some kind, colour, size, number and place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

__all__ = ["BACKDROPS", "COLOURS", "KINDS", "PLACES", "RGB", "Box", "Group", "Kind", "Scene", "sample_scene"]

Box = tuple[float, float, float, float]
RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (222, 52, 48),
    "orange": (246, 146, 34),
    "yellow": (252, 218, 60),
    "green": (56, 158, 76),
    "blue": (52, 104, 214),
    "purple": (138, 72, 184),
    "pink": (246, 150, 190),
    "white": (250, 250, 246),
    "black": (52, 50, 56),
}
PLACES = {"left": 0.19, "middle": 0.5, "right": 0.81}


@dataclass(frozen=True)
class Group:
    """One to three equal things at one place of a picture.

    Args:
        kind, colour, size, place: as in `KINDS`, `COLOURS`, {"small", "big"}, `PLACES`.
        boxes: x1 y1 x2 y2 of each thing, from the top left, in [0, 1]; as many as there are things.
    """

    kind: str
    colour: str
    size: str
    place: str
    boxes: tuple[Box, ...]

    @property
    def count(self) -> int:
        """Number of things."""
        return len(self.boxes)


@dataclass(frozen=True)
class Scene:
    """A backdrop and two or three groups of different kinds, the one drawn last in front."""

    backdrop: str
    groups: tuple[Group, ...]

    @property
    def content(self) -> tuple[object, ...]:
        """What can be said about the picture: all but the exact boxes."""
        return (self.backdrop, *sorted((g.kind, g.colour, g.size, g.count, g.place) for g in self.groups))


@dataclass(frozen=True)
class Kind:
    """What a kind of thing can be like, and where it can be.

    Args:
        aspect: width / height.
        backdrops: where it can stand.
        sky: up in the air, not on the ground.
        colours: the colours it can have.
        counts: how many there can be.
    """

    aspect: float
    backdrops: Sequence[str]
    sky: bool = False
    colours: Sequence[str] = tuple(COLOURS)
    counts: Sequence[int] = (1, 1, 2, 3)


BACKDROPS = ("grass", "sea", "snow", "sand", "night", "road")
_LAND, _DAY = ("grass", "snow", "sand", "night", "road"), ("grass", "sea", "snow", "sand", "road")
_BRIGHT = ("red", "orange", "yellow", "green", "blue", "purple", "pink")

KINDS: dict[str, Kind] = {
    "house": Kind(1.0, _LAND, counts=(1, 1, 1, 2)),
    "tree": Kind(0.85, _LAND, colours=("green", "orange", "yellow", "pink", "red")),
    "car": Kind(1.7, _LAND, counts=(1, 1, 2)),
    "ball": Kind(1.0, BACKDROPS, colours=_BRIGHT),
    "flower": Kind(0.65, ("grass", "snow", "sand", "night"), colours=(*_BRIGHT[:3], *_BRIGHT[4:], "white")),
    "tent": Kind(1.15, ("grass", "snow", "sand", "night"), colours=(*_BRIGHT, "white"), counts=(1, 1, 2)),
    "mushroom": Kind(0.95, ("grass", "snow", "night"), colours=("red", "orange", "white", "purple", "blue")),
    "cat": Kind(1.1, _LAND, colours=("black", "white", "orange", "pink", "blue")),
    "boat": Kind(1.0, ("sea",)),
    "fish": Kind(1.7, ("sea",)),
    "duck": Kind(1.1, ("sea", "grass"), colours=("yellow", "white", "black", "pink", "green", "blue")),
    "sun": Kind(1.0, _DAY, True, ("yellow", "orange", "red"), (1,)),
    "moon": Kind(0.7, ("night",), True, ("yellow", "white", "orange", "pink"), (1,)),
    "star": Kind(1.0, ("night", "night", "snow"), True, ("yellow", "white", "orange", "red", "pink", "green")),
    "kite": Kind(0.8, _DAY, True, _BRIGHT),
    "bird": Kind(1.3, BACKDROPS, True),
    "balloon": Kind(0.78, BACKDROPS, True, _BRIGHT),
    "cloud": Kind(1.6, BACKDROPS, True, ("white", "black", "pink", "purple", "orange")),
    "plane": Kind(1.6, BACKDROPS, True, ("red", "orange", "yellow", "blue", "white", "black"), (1, 1, 2)),
}  # fmt: skip


def sample_scene(rng: Random) -> Scene:
    """Draw the content of a picture: two or three groups of different kinds, each at a place of its own."""
    backdrop = rng.choice(BACKDROPS)
    kinds = [name for name, kind in KINDS.items() if backdrop in kind.backdrops]
    places = [(sky, place) for sky in (True, False) for place in PLACES]
    groups: list[Group] = []
    for _ in range(rng.choice((2, 2, 3))):
        free = [name for name in kinds if any(sky == KINDS[name].sky for sky, _ in places)]
        name = rng.choice(free)
        kinds.remove(name)
        kind = KINDS[name]
        slot = rng.choice([slot for slot in places if slot[0] == kind.sky])
        places.remove(slot)
        size, count = rng.choice(("small", "big")), rng.choice(kind.counts)
        colour = rng.choice([c for c in kind.colours if (backdrop, c) not in _INVISIBLE])
        groups.append(Group(name, colour, size, slot[1], _boxes(rng, kind, size, count, slot[1])))
    return Scene(backdrop, tuple(sorted(groups, key=lambda group: group.boxes[0][3])))


_INVISIBLE = {("night", "black"), ("snow", "white"), ("sea", "blue")}


def _boxes(rng: Random, kind: Kind, size: str, count: int, place: str) -> tuple[Box, ...]:
    side = {"big": (0.36, 0.19, 0.17), "small": (0.2, 0.12, 0.11)}[size][count - 1] * rng.uniform(0.92, 1.08)
    width, height = side * math.sqrt(kind.aspect), side / math.sqrt(kind.aspect)
    gap_x, gap_y = width * 0.54, height * 0.56
    spots = {1: [(0.0, 0.0)], 2: [(-gap_x, 0.0), (gap_x, 0.0)]}.get(
        count, [(0.0, -gap_y), (-gap_x, gap_y), (gap_x, gap_y)]
    )
    x = PLACES[place] + rng.uniform(-0.04, 0.04)
    y = rng.uniform(0.2, 0.3) if kind.sky else rng.uniform(0.72, 0.8)
    half_x = max(abs(dx) for dx, _ in spots) + width / 2
    half_y = max(abs(dy) for _, dy in spots) + height / 2
    x = min(max(x, half_x + 0.01), 0.99 - half_x)
    y = min(max(y, half_y + 0.01), 0.99 - half_y)

    def box(dx: float, dy: float) -> Box:
        corners = (x + dx - width / 2, y + dy - height / 2, x + dx + width / 2, y + dy + height / 2)
        x1, y1, x2, y2 = (round(v, 4) for v in corners)
        return x1, y1, x2, y2

    return tuple(box(*spot) for spot in spots)
