"""The pairs that a cascade scored again, and in which direction each is on a shortlist."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from tiir.errors import RunError
from tiir.io import atomic_write, load_npz

if TYPE_CHECKING:
    from tiir.data.protocols import Gallery

__all__ = ["Direction", "Listed", "Shortlist"]

IntArray = npt.NDArray[np.int64]
Floats = npt.NDArray[Any]
Direction = Literal["i2t", "t2i"]
TYPES = {
    "image": np.int32, "caption": np.int32, "score": np.float32, "first": np.float64,
    "i2t": np.bool_, "t2i": np.bool_, "mix": np.float64,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Shortlist:
    """Pairs that a cross encoder scored, sorted by image then caption, each once.

    Args:
        image, caption: positions in the data set, int32 (n_pairs,).
        score: of the cross encoder, float32 (n_pairs,).
        first: score of the first stage, float64 (n_pairs,).
        i2t: whether the caption is on its image's shortlist, (n_pairs,).
        t2i: whether the image is on its caption's shortlist, (n_pairs,).
        mix: weight of the cross encoder in the order of the shortlists: 1 its score alone, 0 the first stage's.

    Example:
        >>> short = Shortlist.of([0, 1], [0, 1], [2.0, -1.0], [0.4, 0.2], [True, True], [True, False])
        >>> short.final.tolist()
        [2.0, -1.0]
        >>> from dataclasses import replace
        >>> replace(short, mix=0.5).final.round(6).tolist()
        [1.0, -1.0]
    """

    image: npt.NDArray[np.int32]
    caption: npt.NDArray[np.int32]
    score: npt.NDArray[np.float32]
    first: npt.NDArray[np.float64]
    i2t: npt.NDArray[np.bool_]
    t2i: npt.NDArray[np.bool_]
    mix: float = 1.0

    def __post_init__(self) -> None:
        n = len(self.image)
        for name in ("caption", "score", "first", "i2t", "t2i"):
            if getattr(self, name).shape != (n,):
                raise RunError(f"the shortlist has {n} images, {name} is {getattr(self, name).shape}")
        if not 0 <= self.mix <= 1:
            raise RunError(
                f"a mix of {self.mix} is not a weight", hint="from 0 (first stage) to 1 (cross encoder)"
            )
        later = np.diff(self.image.astype(np.int64)) > 0
        if not (later | ((np.diff(self.image) == 0) & (np.diff(self.caption.astype(np.int64)) > 0))).all():
            raise RunError("the shortlist is not sorted by image and caption, or names a pair twice")
        if not (np.isfinite(self.score).all() and np.isfinite(self.first).all()):
            raise RunError("the shortlist holds scores that are NaN or infinite", hint="re-rank again")

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def of(
        cls, image: Any, caption: Any, score: Any, first: Any, i2t: Any, t2i: Any, mix: float = 1.0
    ) -> Shortlist:
        """From sequences or arrays of any number type."""
        given = {"image": image, "caption": caption, "score": score, "first": first, "i2t": i2t, "t2i": t2i}
        return cls(**{name: np.asarray(value, TYPES[name]) for name, value in given.items()}, mix=mix)

    @cached_property
    def final(self) -> Floats:
        """What orders a shortlist, (n_pairs,): the cross encoder's score, or the mix of both.

        (1 - mix) z(first) + mix z(score), each standardised over all pairs here: one number a pair,
        whichever side asks.
        """
        if self.mix == 1:
            return self.score
        mixed: Floats = (1 - self.mix) * _standard(self.first) + self.mix * _standard(self.score)
        return mixed

    def listed(self, direction: Direction, gallery: Gallery | None = None) -> Listed:
        """The shortlists of the queries of one direction, restricted to a gallery and numbered within it.

        Args:
            direction: "i2t" (queries are images) or "t2i" (queries are captions).
            gallery: a part of the data set; the shortlists stay those of the whole, less what is outside.
        """
        keep = np.flatnonzero(self.i2t if direction == "i2t" else self.t2i)
        image, caption = self.image[keep].astype(np.int64), self.caption[keep].astype(np.int64)
        if gallery is not None:
            image, caption = _places(image, gallery.images), _places(caption, gallery.captions)
            inside = (image >= 0) & (caption >= 0)
            keep, image, caption = keep[inside], image[inside], caption[inside]
        query, candidate = (image, caption) if direction == "i2t" else (caption, image)
        order = np.lexsort((candidate, query))
        return Listed(query[order], candidate[order], self.final[keep[order]].astype(np.float64))

    def save(self, path: Path) -> None:
        """Write an .npz, atomically."""
        arrays: dict[str, Any] = {
            field.name: np.asarray(getattr(self, field.name), TYPES[field.name]) for field in fields(self)
        }
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path, n_images: int, n_captions: int) -> Shortlist:
        """Read what `save` wrote.

        Raises:
            RunError: missing, damaged, or of another data set.
        """
        most = 64 * n_images * n_captions + 64 * 1024  # every pair, and the headers
        arrays: dict[str, Any] = load_npz(path, TYPES, most=most, error=RunError)
        wrong = [
            name
            for name, kind in TYPES.items()
            if arrays[name].dtype != kind or arrays[name].ndim != (name != "mix")
        ]
        if wrong:
            raise RunError(
                f"{path}: {wrong[0]} has another type or shape than tiir writes", hint="re-rank again"
            )
        for side, n in (("image", n_images), ("caption", n_captions)):
            if len(arrays[side]) and not 0 <= arrays[side].min() <= arrays[side].max() < n:
                raise RunError(
                    f"{path} names {side} positions outside the {n:,} there are", hint="re-rank again"
                )
        try:
            return cls(**{**arrays, "mix": float(arrays["mix"])})
        except RunError as problem:
            raise RunError(f"{path}: {problem.message}", hint=problem.hint) from None


@dataclass(frozen=True, eq=False)
class Listed:
    """Shortlists of one direction in one gallery, sorted by query then candidate.

    Args:
        query, candidate: positions in the gallery, int64 (n_pairs,).
        score: what orders them, float64 (n_pairs,).
    """

    query: IntArray
    candidate: IntArray
    score: npt.NDArray[np.float64]

    def of(self, query: int) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """Candidates on the shortlist of one query, and their scores."""
        first, stop = np.searchsorted(self.query, [query, query + 1])
        return self.candidate[first:stop], self.score[first:stop]


def _places(positions: IntArray, part: IntArray) -> IntArray:
    # Where each position stands in `part`, -1 where it does not.
    place = np.full(max(int(positions.max(initial=-1)), int(part.max(initial=-1))) + 1, -1, np.int64)
    place[part] = np.arange(len(part))
    return place[positions]


def _standard(values: Floats) -> npt.NDArray[np.float64]:
    exact = values.astype(np.float64)
    spread = exact.std() if len(exact) else 0.0
    standard: npt.NDArray[np.float64] = (
        (exact - exact.mean()) / spread if spread > 0 else np.zeros(len(exact))
    )
    return standard
