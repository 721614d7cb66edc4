"""What is wrong with a source: noted row by row, told together, and skipped or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from tiir.errors import DataError, several

__all__ = ["OnBad", "Problems", "check_split"]

OnBad = Literal["error", "skip"]


class Problems:
    """What is wrong with a source, row by row; prints as a report with counts and the first five of each kind.

    Args:
        rows: dicts of "kind", "item", "detail", such as `Dataset.skipped`.

    Example:
        >>> problems = Problems()
        >>> problems.add("missing image", "a.jpg", "no such image: photos/a.jpg")
        >>> print(problems)
          1 x missing image
            a.jpg: no such image: photos/a.jpg
    """

    SHOWN = 5

    def __init__(self, rows: Iterable[Mapping[str, str]] = ()) -> None:
        self.rows: list[Mapping[str, str]] = list(rows)

    def add(self, kind: str, item: str, detail: str) -> None:
        """Note one problem."""
        self.rows.append({"kind": kind, "item": item, "detail": detail})

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        kinds: dict[str, list[Mapping[str, str]]] = {}
        for row in self.rows:
            kinds.setdefault(row["kind"], []).append(row)
        lines = []
        for kind, rows in kinds.items():
            lines.append(f"  {len(rows):,} x {kind}")
            for row in rows[: self.SHOWN]:
                lines.append(f"    {row['item']}: {row['detail']}" if row["detail"] else f"    {row['item']}")
            if len(rows) > self.SHOWN:
                lines.append(f"    and {len(rows) - self.SHOWN:,} more")
        return "\n".join(lines)


def check_split(split: str, counts: Mapping[str, int], where: Path | str) -> None:
    """Refuse a split that a source does not have.

    Args:
        split: what was asked for.
        counts: the number of images of each split that there is.
        where: the file or folder they come from.

    Raises:
        DataError: naming the splits that exist.

    Example:
        >>> check_split("dev", {"train": 6000, "val": 1000}, "dataset.json")
        Traceback (most recent call last):
        ...
        tiir.errors.DataError: dataset.json has no split 'dev'
          -> it has: train (6,000 images), val (1,000 images)
    """
    if split not in counts:
        have = ", ".join(f"{name} ({several(count, 'image')})" for name, count in counts.items()) or "none"
        raise DataError(f"{where} has no split {split!r}", hint=f"it has: {have}")
