"""Flickr8k as it is distributed: `Flickr8k.token.txt`, the split lists, expert and crowd judgements.

Hodosh, Young and Hockenmaier (2013), "Framing Image Description as a Ranking Task", JAIR 47, 853-899.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tiir.data.build import CaptionRecord, ImageRecord, JudgementRecord, build_dataset
from tiir.data.dataset import Dataset
from tiir.data.problems import OnBad, check_split
from tiir.errors import DataError
from tiir.io import read_text

__all__ = ["prepare"]

LISTS = {"train": "train", "val": "dev", "test": "test"}
MOST_VOTES = 1_000_000
NO_PHOTO = "2258277193_586949ec62.jpg.1"  # in the token file of every copy, without a photo


def prepare(folder: Path | str, *, split: str, images: Path | str | None, on_bad: OnBad = "error") -> Dataset:
    """Read one split of Flickr8k with the judgements among its images and captions.

    The image id is the file name, the caption id `IMAGE#N`. Judgements: source "expert" (mean of three grades
    from 1, does not describe the image, to 4; votes: the grades) and "crowd" (share of yes; votes: yes, no).

    Args:
        folder: holds the text files of the distribution.
        split: "train", "val", "test" in the order of their lists, or "all" (8,091 photos, 91 of them in no list).
        images: the folder of the photos, or None for captions only.
        on_bad: see `build_dataset`.

    Returns:
        The split. The image column "split" names each photo's list, None where it is in none. With "all", the
        one image of the token file that has no photo anywhere is listed in `Dataset.skipped`.

    Raises:
        DataError: a file is missing or malformed, no such split, or bad records.
    """
    folder = Path(folder)
    captions = [CaptionRecord(*fields) for fields in _tokens(folder / "Flickr8k.token.txt")]
    lists = {name: _list(folder / f"Flickr_8k.{file}Images.txt") for name, file in LISTS.items()}
    split_of = {image: name for name, members in lists.items() for image in members}
    lists["all"] = list(dict.fromkeys([caption.image for caption in captions] + list(split_of)))
    left_out: list[dict[str, str]] = []
    if NO_PHOTO in lists["all"]:
        lists["all"].remove(NO_PHOTO)
        left_out = _quirk([caption for caption in captions if caption.image == NO_PHOTO])
    check_split(split, {name: len(members) for name, members in lists.items()}, folder)
    members = set(lists[split])
    of_split = [caption for caption in captions if caption.image in members]
    elsewhere = ({caption.image for caption in captions} | split_of.keys()) - members
    caption_elsewhere = {caption.id for caption in captions if caption.image in elsewhere}
    by_image: dict[str, list[CaptionRecord]] = {image: [] for image in lists[split]}
    for caption in of_split:
        by_image[caption.image].append(caption)
    return build_dataset(
        "flickr8k",
        split,
        [ImageRecord(image, image, {"split": split_of.get(image)}) for image in lists[split]],
        [caption for group in by_image.values() for caption in group],
        image_root=images,
        judgements=[
            judgement
            for judgement in _judgements(folder)
            if judgement.image not in elsewhere and judgement.caption not in caption_elsewhere
        ],
        on_bad=on_bad,
        source={"source": "flickr8k"},
        left_out=left_out if split == "all" else (),
    )


def _quirk(captions: list[CaptionRecord]) -> list[dict[str, str]]:
    kind, why = "no photo in the distribution", "a known quirk of Flickr8k.token.txt"
    items = [NO_PHOTO, *(caption.id for caption in captions)]
    return [{"kind": kind, "item": item, "detail": why} for item in items]


def _rows(path: Path, fields: int) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.rstrip("\r")
        if not line:
            continue
        row = line.split("\t", fields - 1)
        if len(row) != fields:
            raise DataError(
                f"{path}, line {number}: expected {fields} fields between tabs: {line[:60]!r}",
                hint="use the file as it is distributed",
            )
        yield number, row


def _tokens(path: Path) -> Iterator[tuple[str, str, str]]:
    for number, (key, text) in _rows(path, 2):
        image, mark, n = key.rpartition("#")
        if not mark or not n.isdecimal():
            raise DataError(f"{path}, line {number}: expected IMAGE#N, got {key!r}")
        yield key, image, text


def _list(path: Path) -> list[str]:
    return [row[0].strip() for _, row in _rows(path, 1)]


def _judgements(folder: Path) -> Iterator[JudgementRecord]:
    experts, crowd = folder / "ExpertAnnotations.txt", folder / "CrowdFlowerAnnotations.txt"
    for number, (image, caption, *grades) in _rows(experts, 5):
        votes = _ints(grades, experts, number)
        yield JudgementRecord(image, caption, sum(votes) / len(votes), "expert", votes)
    for number, (image, caption, _, *counts) in _rows(crowd, 5):
        yes, no = _ints(counts, crowd, number)
        if yes + no == 0:
            raise DataError(f"{crowd}, line {number}: no votes")
        yield JudgementRecord(image, caption, yes / (yes + no), "crowd", (yes, no))


def _ints(fields: list[str], path: Path, number: int) -> tuple[int, ...]:
    try:
        votes = tuple(int(field) for field in fields)
        if all(0 <= vote <= MOST_VOTES for vote in votes):
            return votes
    except ValueError:
        pass
    shown = [field[:20] for field in fields]
    raise DataError(f"{path}, line {number}: votes are not whole numbers, 0 to {MOST_VOTES:,}: {shown}")
