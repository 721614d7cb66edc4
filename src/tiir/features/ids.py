"""One image, several spellings of its id: '391895', '000000391895', 'COCO_val2014_000000391895.jpg'."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tiir.errors import DataError

__all__ = ["bare_id", "match_ids"]

_SUFFIX = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?)$", re.IGNORECASE)
_COCO = re.compile(r"^COCO_[a-z]+\d{4}_(?=\d+$)")


def bare_id(name: str) -> str:
    """An id without the image suffix, COCO's prefix and leading zeros.

    Example:
        >>> bare_id("COCO_val2014_000000391895.jpg"), bare_id("1000268201_693b08cb0e.jpg")
        ('391895', '1000268201_693b08cb0e')
    """
    name = _COCO.sub("", _SUFFIX.sub("", name))
    return (name.lstrip("0") or "0") if name.isascii() and name.isdigit() else name


def match_ids(source: Sequence[str], wanted: Sequence[str]) -> tuple[dict[str, str], str]:
    """Find the images of a data set among a source's ids.

    Where every wanted id is there as it is written, nothing else is tried. Else ids are equal if their `bare_id`s are.

    Args:
        source: ids of the features, unique.
        wanted: ids of the data set, unique.

    Returns:
        From the source's id to the data set's, for images that are in both; and the rule that was used, in words.

    Raises:
        DataError: two ids of one side are the same image by this rule.

    Example:
        >>> match_ids(["COCO_val2014_000000000042", "COCO_val2014_000000000007"], ["42"])[0]
        {'COCO_val2014_000000000042': '42'}
    """
    if set(wanted) <= set(source):
        return {name: name for name in wanted}, "those of the data set"
    bare: dict[str, str] = {}
    for side, names in (("the data set", wanted), ("the source", source)):
        seen: dict[str, str] = {}
        for name in names:
            other = seen.setdefault(bare_id(name), name)
            if other != name:
                raise DataError(
                    f"{other!r} and {name!r} of {side} could be the same image",
                    hint="spell the ids of the features as the data set does",
                )
        bare = bare or seen
    found = {name: bare[bare_id(name)] for name in source if bare_id(name) in bare}
    example = next((f" ({a!r} is {b!r})" for a, b in found.items() if a != b), "")
    return (
        found,
        f"those of the data set, matched without image suffix, COCO prefix and leading zeros{example}",
    )
