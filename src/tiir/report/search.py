"""Questions nobody asked before, answered by the models behind the Runs: a sentence, a photo, an edited caption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from tiir.data.protocols import Gallery
from tiir.errors import ConfigError, ProtocolError, RunError
from tiir.report.chunks import rounded
from tiir.report.live import Encoder, LiveRun
from tiir.report.sides import Sides
from tiir.scoring.shortlist import Listed

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DEPTH", "Search"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Answers = list[dict[str, Any]]
DEPTH = 10  # candidates that are listed for an edited caption


class Search:
    """Live answers of several Runs on one data set, scored and ordered as their Runs are.

    Args:
        runs: from `live_runs`.
        galleries: of the protocol in use, where edited captions are ranked. A free text or photo searches the whole
            data set.
        index: "exact" looks at every candidate; "faiss" finds most of the best ones in an index that is built now.
            Edited captions are ranked exactly by either.
        say: called with what an index costs, and what it finds.

    Raises:
        MissingExtraError: FAISS is asked for and not installed.
    """

    def __init__(
        self,
        runs: Sequence[LiveRun],
        galleries: Sequence[Gallery],
        *,
        index: Literal["exact", "faiss"] = "exact",
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        if index not in ("exact", "faiss"):
            raise ConfigError(f"no index {index!r}", hint="exact or faiss")
        self.runs, self.galleries = runs, galleries
        self._sides: list[Sides | None] = []
        for live in runs:
            sides = None
            if live.encoder is not None:
                # A cascade searches as its first stage does: one index is enough.
                sides = next((known for known in self._sides if known and known.hold(live.run)), None)
                if sides is None:
                    sides = Sides(live.run)
                    if index == "faiss":
                        sides.build(say)
            self._sides.append(sides)
        self._encoders = list(dict.fromkeys(live.encoder for live in runs if live.encoder))

    @property
    def models(self) -> Answers:
        """What the Runs that can search can be asked: run (its number), text, photo, rescore, rerank (a name or None)."""
        return [
            {
                "run": number,
                "text": True,
                "photo": True,
                "rescore": live.rescores,
                "rerank": live.reranker.name if live.reranker else None,
            }
            for number, live in enumerate(self.runs)
            if live.encoder is not None
        ]

    def encode(self, texts: Sequence[str]) -> list[dict[Encoder, FloatArray]]:
        """The vectors of each text, float32 (1, d), by encoder."""
        vectors = {encoder: encoder.texts(texts) for encoder in self._encoders}
        return [{encoder: rows[n : n + 1] for encoder, rows in vectors.items()} for n in range(len(texts))]

    def text(self, text: str, vectors: dict[Encoder, FloatArray], depth: int) -> Answers:
        """The best images for a text, by every Run that can search.

        Args:
            text: what is searched.
            vectors: of it, from `encode`.
            depth: images to list.

        Returns:
            By Run: run (its number), candidates (positions of images), scores, reranked: None, or by (the cross
            encoder), candidates and scores, where those off the shortlist follow in the first stage's order; and
            approximate: None, or what the index finds of the exact best candidates (see `tiir.report.index`).
        """
        answers = []
        for number, live, sides in self._asked():
            vector, reranked = vectors[live.encoder], None
            first, scores = sides.images(vector, depth)
            if live.reranker is not None:
                listed = self._listed(text, vector, live, sides, depth)
                found = sides.images(vector, depth, listed=listed)
                reranked = {"by": live.reranker.name} | _columns(*found)
            facts = {"reranked": reranked, "approximate": sides.approximate("images")}
            answers.append({"run": number, **_columns(first, scores), **facts})
        return answers

    def photo(self, image: Image, depth: int) -> Answers:
        """The best captions for a picture, by every Run that can search: as `text`, and never re-ranked.

        Args:
            image: RGB.
            depth: captions to list.
        """
        vectors = {encoder: encoder.photo(image) for encoder in self._encoders}
        return [
            {
                "run": number,
                **_columns(*sides.captions(vectors[live.encoder], depth)),
                "reranked": None,
                "approximate": sides.approximate("captions"),
            }
            for number, live, sides in self._asked()
        ]

    def rescore(self, caption: int, text: str, vectors: dict[Encoder, FloatArray]) -> Answers:
        """The rank of a caption's own image as the caption stands, and as it was edited.

        Args:
            caption: its position in the data set.
            text: what it is edited to.
            vectors: of the edited text, from `encode`.

        Returns:
            By Run that can: run, rank_before, rank_after (ties pessimistic, in the protocol's gallery), and the
            candidates (positions of images) and scores of the edited caption.

        Raises:
            ProtocolError: the caption is no query of the protocol, or has no positive in it.
        """
        gallery, query = self._place(caption)
        own = gallery.t2i.image[gallery.t2i.caption == query]
        if not len(own):
            raise ProtocolError(f"caption {caption} has no positive in the protocol: it has no rank")
        answers = []
        for number, live, sides in self._asked():
            if not live.rescores:
                continue
            short, before, after = live.run.shortlist, None, None
            vector = vectors[live.encoder]
            if short is not None:
                asked = short.listed("t2i", gallery).of(query)
                before = Listed(np.zeros(len(asked[0]), np.int64), *asked)
                after = _within(self._listed(text, vector, live, sides, 0, exact=True), gallery)
            assert live.run.text_embeds is not None
            then = np.asarray(live.run.text_embeds[caption : caption + 1])
            rank_before = sides.ranked(then, gallery, own, before)[0]
            rank_after, order, scores = sides.ranked(vector, gallery, own, after)
            answers.append(
                {
                    "run": number,
                    "rank_before": rank_before,
                    "rank_after": rank_after,
                    **_columns(gallery.images[order[:DEPTH]], scores[:DEPTH]),
                }
            )
        return answers

    def _asked(self) -> Any:
        return [
            (number, live, sides)
            for number, (live, sides) in enumerate(zip(self.runs, self._sides, strict=True))
            if sides is not None
        ]

    def _listed(
        self,
        text: str,
        vector: FloatArray,
        live: LiveRun,
        sides: Sides,
        depth: int,
        *,
        exact: bool = False,
    ) -> Listed:
        # The shortlist of a text as its cascade would have made it; of another Run, what is shown.
        assert live.reranker is not None
        short = live.run.shortlist
        depth = depth if short is None else int(live.run.info.notes["depth"])
        found, first = sides.images(vector, depth, exact=exact)
        place = np.argsort(found)
        found, first = found[place], first[place]
        scores = live.reranker.scores(text, found).astype(np.float64)
        if not np.isfinite(scores).all():
            raise RunError(f"{live.reranker.name} gives a score that is NaN or infinite")
        if short is not None and short.mix != 1:
            one, other = _standard(first, short.first), _standard(scores, short.score)
            scores = (1 - short.mix) * one + short.mix * other
        return Listed(np.zeros(len(found), np.int64), found, scores)

    def _place(self, caption: int) -> tuple[Gallery, int]:
        for gallery in self.galleries:
            here = np.flatnonzero(gallery.captions[gallery.caption_queries] == caption)
            if len(here):
                return gallery, int(gallery.caption_queries[here[0]])
        raise ProtocolError(f"caption {caption} is no query of the protocol")


def _within(listed: Listed, gallery: Gallery) -> Listed:
    # The part of a shortlist that lies in a gallery, numbered within it.
    place = {int(image): i for i, image in enumerate(gallery.images)}
    keep = [i for i, image in enumerate(listed.candidate.tolist()) if image in place]
    numbers = np.array([place[int(image)] for image in listed.candidate[keep]], np.int64)
    return Listed(listed.query[keep], numbers, listed.score[keep])


def _standard(values: npt.NDArray[Any], of: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    # As `Shortlist.final`: by the mean and spread over all pairs that the cascade scored.
    exact = of.astype(np.float64)
    spread = exact.std() if len(exact) else 0.0
    standard: npt.NDArray[np.float64] = (values - exact.mean()) / spread if spread > 0 else 0.0 * values
    return standard


def _columns(candidates: IntArray, scores: npt.NDArray[Any]) -> dict[str, Any]:
    return {"candidates": candidates.tolist(), "scores": rounded(scores.tolist())}
