"""What people judge while they look at results: a file of JSON lines, appended to, the last word on a pair counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from tiir.data.dataset import Dataset
from tiir.errors import DataError, several

__all__ = ["Judged", "Judgement", "last_words", "read_judgements", "split_torn"]

HEAD = b'{"image_id"'  # how a line begins


class Judgement(BaseModel):
    """One line of a judgements file.

    Args:
        image_id, caption_id: the pair.
        relevant: whether the caption describes the image; None takes an earlier judgement back.
        dataset, fingerprint: what was judged.
        run: the Run that had retrieved the pair, where known.
        time: when, ISO 8601.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    image_id: str
    caption_id: str
    relevant: bool | None
    dataset: str
    fingerprint: str
    run: str | None = None
    time: str = ""


@dataclass(frozen=True, eq=False)
class Judged:
    """Pairs that people judged, each once.

    Args:
        image, caption: positions in the data set, (n,).
        relevant: whether the caption describes the image, (n,).
        torn: bytes of a last line that a crash cut off, 0 where there is none.
    """

    image: npt.NDArray[np.int64]
    caption: npt.NDArray[np.int64]
    relevant: npt.NDArray[np.bool_]
    torn: int = 0

    def __len__(self) -> int:
        return len(self.image)

    def __repr__(self) -> str:
        return f"Judged({several(len(self), 'pair')}, {int(self.relevant.sum()):,} relevant)"


def read_judgements(path: Path | str, dataset: Dataset) -> Judged:
    """Read a judgements file, written by `tiir explore` or exported from a report.

    Args:
        path: the file.
        dataset: what was judged.

    Raises:
        DataError: it cannot be read, a line is none of a judgement, or it is about another data set.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except OSError as problem:
        raise DataError(f"cannot read {path}: {problem.strerror}") from None
    whole, torn = split_torn(raw)
    said = last_words(whole, path, dataset)
    pairs = [(*pair, bool(word.relevant)) for pair, word in said.items() if word.relevant is not None]
    image, caption, relevant = zip(*pairs, strict=True) if pairs else ((), (), ())
    return Judged(
        np.array(image, np.int64), np.array(caption, np.int64), np.array(relevant, np.bool_), len(torn)
    )


def split_torn(raw: bytes) -> tuple[bytes, bytes]:
    """The whole lines of a judgements file, and what a crash left of the one being written (mostly nothing).

    Example:
        >>> whole = b'{"image_id": "a", "caption_id": "c", "relevant": true, "dataset": "d", "fingerprint": "f"}'
        >>> split_torn(whole + b'\\n{"image_id": "a", "capt')[1]
        b'{"image_id": "a", "capt'
        >>> split_torn(whole)[1]
        b''
    """
    end = raw.rfind(b"\n") + 1
    last = raw[end:]
    begun = last.rstrip(b"\0")  # a power cut may leave zeros
    if not last or not (begun.startswith(HEAD) or HEAD.startswith(begun)):
        return raw, b""
    try:
        Judgement.model_validate_json(begun)
    except ValidationError as problem:
        return (raw[:end], last) if problem.errors()[0]["type"] == "json_invalid" else (raw, b"")
    return raw, b""


def last_words(whole: bytes, path: Path, dataset: Dataset) -> Mapping[tuple[int, int], Judgement]:
    """The last judgement on each pair, by the positions of its image and caption, in the order they were made.

    Args:
        whole: whole lines of a judgements file.
        path: of the file, for errors.
        dataset: what was judged.

    Raises:
        DataError: a line is none of a judgement, or about another data set or a pair that is not in it.
    """
    said: dict[tuple[int, int], Judgement] = {}
    for number, line in enumerate(whole.split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            word = Judgement.model_validate_json(line)
        except ValidationError as problem:
            first = problem.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise DataError(
                f"{where}: {name + ': ' if name else ''}{first['msg']}",
                hint="a line is a JSON object with image_id, caption_id, relevant (true, false or null), dataset and "
                "fingerprint",
            ) from None
        if word.fingerprint != dataset.fingerprint:
            raise DataError(
                f"{where}: judged on {word.dataset!r} (fingerprint {word.fingerprint!r}), this is {dataset!r} "
                f"(fingerprint {dataset.fingerprint})",
                hint="judgements hold for one data set: give the file of this one",
            )
        for side, name, known in (
            ("image", word.image_id, dataset.image_position),
            ("caption", word.caption_id, dataset.caption_position),
        ):
            if name not in known:
                raise DataError(f"{where}: there is no {side} {name!r} in {dataset!r}")
        pair = dataset.image_position[word.image_id], dataset.caption_position[word.caption_id]
        said.pop(pair, None)  # so that the last word stands last
        said[pair] = word
    return said
