"""The Run: one model's scores on one data set, with where they came from, in one directory."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, DataError, RunError, TiirError, not_that, several
from tiir.io import load_npy, read_json, write_npy
from tiir.notebook import card
from tiir.out import begin, check_out, finish, is_begun
from tiir.revisions import known
from tiir.scoring.shards import Placed, Shards, write_rows
from tiir.scoring.shortlist import Shortlist

__all__ = ["HEADER", "Run", "RunInfo", "check_run_out", "finish_run"]

FORMAT = 1
HEADER = "run.json"
ARRAYS = ("image_embeds.npy", "text_embeds.npy", "scores.npy", "shortlist.npz")
BESIDE = ("recipe.json", "model")  # of a recipe, whose model is trained before its Run begins
FloatArray = npt.NDArray[Any]
Embeds = FloatArray | Shards
IntArray = npt.NDArray[np.int64]


class RunInfo(BaseModel):
    """The contents of `run.json`: what was scored by what, and how.

    Args:
        model: hub id or directory of the model, or a name given at import.
        revision: commit of a hub model or content hash of a directory.
        dataset, split: names; `dataset_path` where the data set was found, `fingerprint` what it held.
        precision: of the arithmetic, such as "float32" or "bfloat16"; stored values are float32, or float16 where
            embeddings were imported as such.
        protocol: the protocol to evaluate with where none is asked for.
        seconds: wall time of the scoring.
        versions: of python, tiir, torch, transformers, as far as they took part.
        notes: anything else that belongs to the provenance (options, files, the device).
        embeddings: by side ("image", "text"): where embeddings lie that are not in the Run's own directory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    model: str
    revision: str | None = None
    dataset: str
    split: str
    dataset_path: str
    fingerprint: str
    images: int
    captions: int
    precision: str = "float32"
    protocol: str | None = None
    seconds: float | None = None
    created: str = Field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    versions: dict[str, str] = Field(default_factory=dict)
    notes: dict[str, Any] = Field(default_factory=dict)
    embeddings: dict[Literal["image", "text"], Placed] = Field(default_factory=dict)

    _revision = field_validator("revision", mode="before")(known)

    @field_validator("notes")
    @classmethod
    def _first_stage(cls, notes: dict[str, Any]) -> dict[str, Any]:
        if isinstance(first := notes.get("first_stage"), dict):
            notes = {**notes, "first_stage": {**first, "revision": known(first.get("revision"))}}
        return notes

    @classmethod
    def about(cls, dataset: Dataset, dataset_path: Path | str, model: str, **facts: Any) -> RunInfo:
        """The facts of a Run of `model` on `dataset`, which lies at `dataset_path`."""
        return cls(
            model=model,
            dataset=dataset.name,
            split=dataset.split,
            dataset_path=str(Path(dataset_path).resolve()),
            fingerprint=dataset.fingerprint,
            images=dataset.n_images,
            captions=dataset.n_captions,
            **facts,
        )


@dataclass(frozen=True, eq=False)
class Run:
    """Scores of every image against every caption of a data set, in the data set's order.

    Either the embeddings of both sides (score = dot product) or the score matrix itself. A cascade holds these of
    its first stage, and beside them the pairs that a cross encoder scored again.

    Args:
        info: provenance.
        image_embeds: float16 or float32 (n_images, d), or None. Shards are not held in memory: index them, or
            np.asarray reads them all.
        text_embeds: the same of the captions, (n_captions, d), or None.
        scores: float32 (n_images, n_captions), NaN where not scored, or None.
        path: the directory it was loaded from, if any.
        shortlist: of a cascade, or None.

    Example:
        >>> from tiir.data.dataset import Dataset
        >>> data = Dataset("pets", "test", ["a", "b"], ["a0", "b0"], ["a cat", "a dog"], np.array([0, 1]))
        >>> run = Run(RunInfo.about(data, "pets", "by hand"), scores=np.eye(2, dtype=np.float32))
        >>> run
        Run(by hand on pets/test: 2 images x 2 captions, score matrix)
        >>> run.block(np.array([0]), np.array([0, 1])).tolist()
        [[1.0, 0.0]]
    """

    info: RunInfo
    image_embeds: Embeds | None = None
    text_embeds: Embeds | None = None
    scores: FloatArray | None = None
    path: Path | None = None
    shortlist: Shortlist | None = None

    def __post_init__(self) -> None:
        where = f"the Run {self.path}" if self.path else f"the Run of {self.info.model}"
        images, captions = self.info.images, self.info.captions
        if (self.image_embeds is None) != (self.text_embeds is None) or (
            (self.scores is None) == (self.image_embeds is None)
        ):
            raise RunError(f"{where} must hold both sides' embeddings or one score matrix")
        if self.scores is not None:
            if self.scores.shape != (images, captions):
                raise RunError(
                    f"{where}: scores are {self.scores.shape}, expected {images} images x {captions} captions",
                    hint="rows are images, columns are captions",
                )
            return
        assert self.image_embeds is not None
        assert self.text_embeds is not None
        for side, embeds, n in [("image", self.image_embeds, images), ("text", self.text_embeds, captions)]:
            if embeds.ndim != 2 or len(embeds) != n:
                raise RunError(f"{where}: {side} embeddings are {embeds.shape}, expected ({n}, d)")
            if embeds.dtype not in (np.float16, np.float32):
                raise RunError(
                    f"{where}: {side} embeddings are {embeds.dtype}, a Run holds float32 (or float16)",
                    hint="convert them, or let `tiir import embeddings` do it",
                )
        if self.image_embeds.shape[1] != self.text_embeds.shape[1]:
            raise RunError(
                f"{where}: image embeddings have width {self.image_embeds.shape[1]}, "
                f"text embeddings {self.text_embeds.shape[1]}",
                hint="both must come from the same model",
            )

    def __repr__(self) -> str:
        kind = "score matrix" if self.image_embeds is None else f"{self.image_embeds.shape[1]}-d embeddings"
        if self.shortlist is not None:
            kind += f", {several(len(self.shortlist), 'pair')} re-ranked"
        i = self.info
        return (
            f"Run({i.model} on {i.dataset}/{i.split}: {several(i.images, 'image')} x "
            f"{several(i.captions, 'caption')}, {kind})"
        )

    def _repr_html_(self) -> str:
        facts = {"model", "revision", "precision", "protocol", "seconds", "created"}
        shown = self.info.model_dump(include=facts) | {"directory": self.path}
        return card(repr(self), shown, (), "Its recall: tiir.evaluate(run, run.load_dataset())")

    @property
    def name(self) -> str:
        """Short name for tables: the directory's, else the model's."""
        return self.path.resolve().name if self.path else self.info.model

    def block(self, images: IntArray, captions: IntArray) -> FloatArray:
        """Scores of some images against some captions, float32 (len(images), len(captions)).

        Raises:
            RunError: this is a cascade, in which no one matrix holds both directions' order.
        """
        if self.shortlist is not None:
            raise RunError(
                f"{self.name} is a cascade: each direction has an order of its own, no one matrix holds both",
                hint="take its ranks, or export it as trec, csv or parquet",
            )
        if self.scores is not None:
            return np.ascontiguousarray(self.scores[np.ix_(images, captions)])
        assert self.image_embeds is not None
        assert self.text_embeds is not None
        one, other = (
            np.asarray(side, np.float32) for side in (self.image_embeds[images], self.text_embeds[captions])
        )
        block: FloatArray = one @ other.T
        return block

    def check(self, dataset: Dataset) -> None:
        """Refuse a data set that this Run was not made from.

        Raises:
            RunError: the fingerprints differ.
        """
        if dataset.fingerprint == self.info.fingerprint:
            return
        raise RunError(
            f"{self.name} was scored on {self.info.dataset}/{self.info.split} with {self.info.images} images x "
            f"{self.info.captions} captions (fingerprint {self.info.fingerprint}); this is {dataset!r} "
            f"(fingerprint {dataset.fingerprint})",
            hint="ids, captions or pictures changed: score again, or give the data set it was made from",
        )

    def load_dataset(self, directory: Path | str | None = None) -> Dataset:
        """The data set of this Run: from `directory`, else from where it lay at scoring.

        Raises:
            DataError: it is not there.
            RunError: it is another one.
        """
        if directory is None and not Path(self.info.dataset_path).is_dir():
            raise DataError(
                f"{self.name} was scored on {self.info.dataset_path}, which is not there now",
                hint="say where the data set lies: --dataset DIR",
            )
        dataset = Dataset.load(directory or self.info.dataset_path)
        self.check(dataset)
        return dataset

    def save(self, directory: Path | str, *, overwrite: bool = False) -> Run:
        """Write the Run; `run.json` comes last, so that a half-written one never loads.

        Raises:
            RunError: `directory` already holds a Run and `overwrite` is False, or it holds other files.
        """
        directory = Path(directory)
        check_run_out(directory, overwrite=overwrite, error=RunError)
        begin(directory / HEADER)
        written = set()
        if self.scores is not None:
            written.add("scores.npy")
            write_npy(directory / "scores.npy", np.asarray(self.scores, np.float32))
        for side, embeds in (("image", self.image_embeds), ("text", self.text_embeds)):
            if embeds is not None and side not in self.info.embeddings:
                written.add(f"{side}_embeds.npy")
                write_rows(directory / f"{side}_embeds.npy", embeds, embeds.dtype.newbyteorder("<"))
        if self.shortlist is not None:
            written.add("shortlist.npz")
            self.shortlist.save(directory / "shortlist.npz")
        finish_run(directory, self.info, written)
        return Run.load(directory)

    @classmethod
    def load(cls, directory: Path | str) -> Run:
        """Open a Run; arrays are memory-mapped, shards (of `image_embeds/`, or lying elsewhere) read when asked.

        Raises:
            RunError: not a Run, unfinished, or damaged; embeddings that lie elsewhere have changed.
        """
        directory = Path(directory)
        header = directory / HEADER
        if not header.is_file():
            raise RunError(
                f"{directory} is not a finished Run: {not_that(directory, header.name)}",
                hint="make one with `tiir score` or `tiir import`; continue a killed one with --resume",
            )
        try:
            info = RunInfo.model_validate(read_json(header, error=RunError))
        except ValidationError as problem:
            first = problem.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole file"
            raise RunError(f"{header}: {where}: {first['msg']}", hint="import or score again") from None
        if info.format != FORMAT:
            raise RunError(f"{directory} has Run format {info.format}, this tiir reads {FORMAT}")
        arrays: dict[str, Any] = {}
        for side in ("image", "text"):
            stem = f"{side}_embeds"
            if side in info.embeddings:
                arrays[stem] = Shards.placed(info.embeddings[side])
            elif (directory / f"{stem}.npy").exists():
                arrays[stem] = load_npy(directory / f"{stem}.npy", mmap=True, error=RunError)
            elif (directory / stem).is_dir():
                arrays[stem] = Shards.open(directory / stem)
        if (path := directory / "scores.npy").exists():
            arrays["scores"] = load_npy(path, mmap=True, error=RunError)
            if arrays["scores"].dtype != np.float32:
                raise RunError(f"{path} is {arrays['scores'].dtype}, a Run holds float32")
        short = directory / "shortlist.npz"
        shortlist = Shortlist.load(short, info.images, info.captions) if short.exists() else None
        return cls(info, path=directory, shortlist=shortlist, **arrays)


def check_run_out(out: Path, *, overwrite: bool, error: type[TiirError] = ConfigError) -> None:
    """Refuse an --out that holds a Run (without `overwrite`), or other people's files; see `check_out`.

    Raises:
        error: what it holds.
    """
    begun = is_begun(out / HEADER) or (out / ".parts").exists()  # or its tiles
    finished = (out / HEADER).exists()
    check_out(out, "a Run", finished=finished, begun=begun, overwrite=overwrite, beside=BESIDE, error=error)


def finish_run(out: Path, info: RunInfo, arrays: Container[str]) -> None:
    """Make a Run of the arrays that were written: those of an earlier one go, and `run.json` comes last.

    Args:
        out: its directory.
        info: provenance.
        arrays: names of its files.
    """
    for name in ARRAYS:
        if name not in arrays:
            (out / name).unlink(missing_ok=True)
    finish(out / HEADER, info.model_dump())
