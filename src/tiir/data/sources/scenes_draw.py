"""How a Scenes picture is drawn with PIL."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from tiir.data.sources.scenes_world import COLOURS, RGB, Box, Scene

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

__all__ = ["SIDE", "render"]

SIDE = 128
SCALE = 2  # pictures are drawn larger and shrunk, for smooth edges


class Pen:
    """Draws in the unit square of one thing's box: (0, 0) is its top left, (1, 1) its bottom right."""

    def __init__(self, draw: ImageDraw.ImageDraw, box: Box, colour: RGB) -> None:
        self.draw, self.box, self.colour = draw, box, colour
        self.dark = _mix(colour, (20, 20, 40), 0.42)
        self.light = _mix(colour, (255, 255, 255), 0.45)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixel of a point of the unit square."""
        x1, y1, x2, y2 = self.box
        size = SIDE * SCALE
        return (x1 + x * (x2 - x1)) * size, (y1 + y * (y2 - y1)) * size

    def polygon(self, *points: tuple[float, float], fill: RGB | None = None) -> None:
        """A filled outline."""
        self.draw.polygon([self.at(*p) for p in points], fill or self.colour, self.dark, SCALE)

    def oval(self, x1: float, y1: float, x2: float, y2: float, fill: RGB | None = None) -> None:
        """An ellipse between two corners, in the thing's colour with an outline, or plain in another."""
        corners = [self.at(x1, y1), self.at(x2, y2)]
        self.draw.ellipse(corners, fill or self.colour, None if fill else self.dark, SCALE)

    def bar(self, x1: float, y1: float, x2: float, y2: float, fill: RGB | None = None) -> None:
        """A rectangle between two corners."""
        corners = [self.at(x1, y1), self.at(x2, y2)]
        self.draw.rectangle(corners, fill or self.colour, None if fill else self.dark, SCALE)

    def line(self, *points: tuple[float, float], fill: RGB | None = None, width: int = 2) -> None:
        """A stroke."""
        self.draw.line([self.at(*p) for p in points], fill or self.dark, width * SCALE // 2)


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    r, g, b_ = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return r, g, b_


WOOD, CREAM, GLASS, DARK, LEAF, BEAK = (
    (122, 80, 48),
    (250, 238, 208),
    (190, 226, 246),
    (44, 42, 50),
    (60, 140, 66),
    (244, 168, 40),
)


def _house(pen: Pen) -> None:
    pen.bar(0.1, 0.42, 0.9, 1)
    pen.polygon((0, 0.46), (0.5, 0), (1, 0.46), fill=pen.dark)
    pen.bar(0.56, 0.64, 0.76, 1, fill=WOOD)
    pen.bar(0.2, 0.58, 0.44, 0.78, fill=CREAM)


def _tree(pen: Pen) -> None:
    pen.bar(0.42, 0.55, 0.58, 1, fill=WOOD)
    for oval in [(0, 0.25, 0.6, 0.7), (0.4, 0.25, 1, 0.7), (0.18, 0, 0.82, 0.55)]:
        pen.oval(*oval)
    pen.oval(0.2, 0.26, 0.8, 0.62, fill=pen.colour)


def _car(pen: Pen) -> None:
    pen.polygon((0.2, 0.45), (0.32, 0), (0.68, 0), (0.84, 0.45))
    pen.polygon((0.3, 0.42), (0.38, 0.12), (0.62, 0.12), (0.72, 0.42), fill=GLASS)
    pen.bar(0, 0.42, 1, 0.82)
    for x in (0.12, 0.64):
        pen.oval(x, 0.6, x + 0.24, 1, fill=DARK)
        pen.oval(x + 0.07, 0.72, x + 0.17, 0.88, fill=CREAM)


def _ball(pen: Pen) -> None:
    pen.oval(0, 0, 1, 1)
    pen.line((0.06, 0.34), (0.5, 0.46), (0.94, 0.34), fill=pen.light, width=4)
    pen.oval(0.22, 0.12, 0.42, 0.3, fill=pen.light)


def _flower(pen: Pen) -> None:
    pen.line((0.5, 0.4), (0.5, 1), fill=LEAF, width=4)
    pen.oval(0.5, 0.68, 0.86, 0.84, fill=LEAF)
    for k in range(5):
        x, y = 0.5 + 0.3 * math.sin(k * 1.2566), 0.32 - 0.19 * math.cos(k * 1.2566)
        pen.oval(x - 0.2, y - 0.13, x + 0.2, y + 0.13)
    pen.oval(0.36, 0.23, 0.64, 0.41, fill=BEAK if pen.colour != COLOURS["yellow"] else WOOD)


def _tent(pen: Pen) -> None:
    pen.polygon((0, 1), (0.5, 0.04), (1, 1))
    pen.polygon((0.34, 1), (0.5, 0.3), (0.66, 1), fill=pen.dark)
    pen.line((0.44, 0), (0.5, 0.08), (0.56, 0))


def _mushroom(pen: Pen) -> None:
    pen.bar(0.36, 0.4, 0.64, 1, fill=CREAM)
    points = [
        (0.5 - 0.5 * math.cos(a), 0.58 - 0.58 * math.sin(a)) for a in (k * math.pi / 12 for k in range(13))
    ]
    pen.polygon(*points)
    spot = CREAM if pen.colour != COLOURS["white"] else WOOD
    for x, y in [(0.24, 0.36), (0.5, 0.16), (0.74, 0.38)]:
        pen.oval(x - 0.08, y - 0.07, x + 0.08, y + 0.07, fill=spot)


def _cat(pen: Pen) -> None:
    pen.line((0.2, 0.9), (0.04, 0.7), (0.08, 0.4), fill=pen.dark, width=5)
    pen.oval(0.12, 0.42, 0.84, 1)
    pen.polygon((0.46, 0.3), (0.5, 0), (0.7, 0.16))
    pen.polygon((0.74, 0.16), (0.94, 0), (0.98, 0.3))
    pen.oval(0.42, 0.1, 1, 0.6)
    eye = DARK if pen.colour != COLOURS["black"] else CREAM
    for x in (0.56, 0.78):
        pen.oval(x, 0.28, x + 0.08, 0.4, fill=eye)


def _boat(pen: Pen) -> None:
    pen.line((0.48, 0), (0.48, 0.72), fill=WOOD, width=4)
    pen.polygon((0.53, 0.04), (0.53, 0.62), (0.94, 0.62), fill=CREAM)
    pen.polygon((0.43, 0.14), (0.43, 0.62), (0.12, 0.62), fill=CREAM)
    pen.polygon((0, 0.7), (1, 0.7), (0.82, 1), (0.18, 1))


def _fish(pen: Pen) -> None:
    pen.polygon((0.28, 0.5), (0, 0.08), (0, 0.92))
    pen.oval(0.2, 0, 1, 1)
    pen.oval(0.78, 0.28, 0.88, 0.46, fill=DARK if pen.colour != COLOURS["black"] else CREAM)
    pen.line((0.62, 0.16), (0.56, 0.5), (0.62, 0.84))


def _duck(pen: Pen) -> None:
    pen.polygon((0.1, 0.72), (0, 0.42), (0.34, 0.6))
    pen.oval(0.04, 0.46, 0.84, 1)
    pen.polygon((0.86, 0.2), (1, 0.28), (0.86, 0.38), fill=BEAK)
    pen.oval(0.5, 0, 0.92, 0.56)
    pen.oval(0.72, 0.16, 0.8, 0.27, fill=DARK if pen.colour != COLOURS["black"] else CREAM)


def _sun(pen: Pen) -> None:
    for k in range(8):
        x, y = math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)
        pen.line((0.5 + 0.3 * x, 0.5 + 0.3 * y), (0.5 + 0.5 * x, 0.5 + 0.5 * y), fill=pen.colour, width=6)
    pen.oval(0.19, 0.19, 0.81, 0.81)


def _moon(pen: Pen) -> None:
    angles = [(k - 6) * math.pi / 12 for k in range(13)]
    outer = [(1 - math.cos(a), 0.5 + 0.5 * math.sin(a)) for a in angles]
    inner = [(1 - 0.45 * math.cos(a), 0.5 - 0.5 * math.sin(a)) for a in angles]
    pen.polygon(*outer, *inner)


def _star(pen: Pen) -> None:
    radii = (0.52, 0.22)
    pen.polygon(
        *(
            (0.5 + radii[k % 2] * math.sin(k * math.pi / 5), 0.53 - radii[k % 2] * math.cos(k * math.pi / 5))
            for k in range(10)
        )
    )


def _kite(pen: Pen) -> None:
    pen.line((0.5, 0.66), (0.38, 0.78), (0.56, 0.88), (0.44, 1))
    pen.polygon((0.5, 0), (0.94, 0.3), (0.5, 0.68), (0.06, 0.3))
    pen.line((0.5, 0.02), (0.5, 0.66), fill=pen.light)
    pen.line((0.08, 0.3), (0.92, 0.3), fill=pen.light)


def _bird(pen: Pen) -> None:
    pen.polygon((0.2, 0.66), (0, 0.5), (0.02, 0.82))
    pen.oval(0.1, 0.42, 0.8, 0.96)
    pen.polygon((0.9, 0.38), (1, 0.46), (0.9, 0.54), fill=BEAK)
    pen.oval(0.6, 0.24, 0.94, 0.66)
    pen.polygon((0.3, 0.6), (0.2, 0), (0.62, 0.58), fill=pen.light)
    pen.oval(0.76, 0.36, 0.83, 0.46, fill=DARK if pen.colour != COLOURS["black"] else CREAM)


def _balloon(pen: Pen) -> None:
    pen.line((0.3, 0.62), (0.42, 0.86), fill=WOOD)
    pen.line((0.7, 0.62), (0.58, 0.86), fill=WOOD)
    pen.bar(0.38, 0.84, 0.62, 1, fill=WOOD)
    pen.oval(0.04, 0, 0.96, 0.76)
    pen.oval(0.34, 0.02, 0.66, 0.74, fill=pen.light)


def _cloud(pen: Pen) -> None:
    for oval in [(0, 0.4, 0.45, 1), (0.55, 0.35, 1, 1), (0.22, 0, 0.74, 0.9)]:
        pen.oval(*oval)
    pen.oval(0.14, 0.4, 0.86, 0.94, fill=pen.colour)


def _plane(pen: Pen) -> None:
    pen.polygon((0.02, 0.1), (0.16, 0.1), (0.28, 0.5), (0.06, 0.5))
    pen.oval(0.02, 0.34, 1, 0.76)
    pen.polygon((0.42, 0.56), (0.66, 0.56), (0.44, 1), (0.3, 1), fill=pen.dark)
    for x in (0.5, 0.64, 0.78):
        pen.oval(x, 0.42, x + 0.08, 0.56, fill=GLASS)


_DRAW: dict[str, Callable[[Pen], None]] = {
    "house": _house,
    "tree": _tree,
    "car": _car,
    "ball": _ball,
    "flower": _flower,
    "tent": _tent,
    "mushroom": _mushroom,
    "cat": _cat,
    "boat": _boat,
    "fish": _fish,
    "duck": _duck,
    "sun": _sun,
    "moon": _moon,
    "star": _star,
    "kite": _kite,
    "bird": _bird,
    "balloon": _balloon,
    "cloud": _cloud,
    "plane": _plane,
}

_SKIES: dict[str, tuple[RGB, RGB, RGB]] = {  # top of the sky, horizon, ground
    "grass": ((132, 200, 246), (226, 244, 252), (136, 196, 92)),
    "sea": ((150, 208, 242), (240, 246, 240), (62, 146, 190)),
    "snow": ((178, 198, 220), (226, 232, 240), (240, 244, 250)),
    "sand": ((120, 196, 236), (254, 232, 196), (236, 208, 142)),
    "night": ((16, 20, 56), (58, 58, 112), (38, 62, 60)),
    "road": ((170, 204, 226), (236, 234, 226), (128, 128, 134)),
}


def render(scene: Scene, rng: Random) -> Image.Image:
    """Draw a scene, RGB, `SIDE` x `SIDE` pixels.

    Args:
        scene: what to draw.
        rng: for the little things nobody mentions: waves, tufts, the line of the hills.
    """
    from PIL import Image, ImageDraw

    size = SIDE * SCALE
    top, horizon, ground = _SKIES[scene.backdrop]
    column = Image.new("RGB", (1, 32))
    column.putdata([_mix(top, horizon, k / 31) for k in range(32)])
    image = column.resize((size, size), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    line = size * rng.uniform(0.54, 0.6)
    hill, phase = (0.0 if scene.backdrop in ("sea", "road") else size * 0.025), rng.uniform(0, 6)
    edge = [(x, line + hill * math.sin(x / size * 5 + phase)) for x in range(0, size + 1, 8)]
    draw.polygon([*edge, (size, size), (0, size)], ground)
    _texture(draw, scene.backdrop, rng, ground, line)
    for group in scene.groups:
        for box in group.boxes:
            _DRAW[group.kind](Pen(draw, box, COLOURS[group.colour]))
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def _texture(draw: ImageDraw.ImageDraw, backdrop: str, rng: Random, ground: RGB, line: float) -> None:
    size = SIDE * SCALE
    dark, light = _mix(ground, (0, 0, 30), 0.16), _mix(ground, (255, 255, 255), 0.3)
    if backdrop == "road":
        for dash in range(-20, size, 60):
            draw.rectangle([dash, size * 0.78, dash + 34, size * 0.8], (238, 232, 214))
        return
    for _ in range(14):
        x, y = rng.uniform(0, size), rng.uniform(line + 0.08 * size, size)
        if backdrop == "sea":
            draw.arc([x, y, x + 24, y + 10], 200, 340, light, 3)
        elif backdrop in ("grass", "night"):
            draw.line([(x, y), (x + 3, y - 9), (x + 5, y)], dark, 2)
        else:
            draw.ellipse([x, y, x + 5, y + 3], dark)
    if backdrop == "night":
        for _ in range(16):
            x, y = rng.uniform(0, size), rng.uniform(0, line - 20)
            draw.ellipse([x, y, x + 3, y + 3], (210, 210, 236))
