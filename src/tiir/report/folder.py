"""The folder of a site: what may be replaced in it, and what tells a finished one from one that a kill left."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiir.errors import ConfigError, DataError
from tiir.io import read_json, write_json
from tiir.out import check_out
from tiir.report.chunks import SITE_NAME

__all__ = ["APP", "FINISHED", "check_folder", "clear_folder", "digest", "finish_folder", "finished_plan"]

FINISHED = "site.json"
UNFINISHED = "building.json"
"""Stands in the folder from before the first file until after the last: then the folder is ours to clear."""
MARK = {"": "a site is being written here, or was when something stopped it"}
APP = re.compile(r"[\w-]+\.(?:js|css)")
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # of `tiir.io.atomic_write`
OURS = {
    "": re.compile("index.html"),
    "app": APP,
    "data": re.compile(rf"(?:{SITE_NAME.pattern})\.js"),
    "thumbs": re.compile(r"\d+\.webp|source\.json"),
}
"""Files of a site, by folder. No others are ever removed."""


def check_folder(out: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that is taken: before the long work, not after it.

    Raises:
        ConfigError: it is a file, holds a site (without `overwrite`), other things, or links where folders should be.
    """
    for name in filter(None, OURS):
        if (out / name).is_symlink():
            raise ConfigError(f"{out / name} is a link", hint="name another folder: links are not followed")
    begun = _read(out / UNFINISHED) == MARK
    finished = not begun and finished_plan(out) is not None
    check_out(out, "a site", finished=finished, begun=begun, overwrite=overwrite)


def finished_plan(out: Path) -> dict[str, Any] | None:
    """What the finished site in a folder was made from, None where there is none."""
    plan = _read(out / FINISHED)
    return plan if isinstance(plan, dict) and "tiir" in plan and "format" in plan else None


def clear_folder(out: Path, *, keep_thumbs: bool) -> None:
    """Remove a site's files, and mark the folder as one that is being written.

    Args:
        out: that `check_folder` let pass.
        keep_thumbs: those that are still right serve again.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / UNFINISHED, MARK)
    (out / FINISHED).unlink(missing_ok=True)
    for name, ours in OURS.items():
        folder = out / name
        if not folder.is_dir():
            continue
        for path in folder.iterdir():
            kept = name == "thumbs" and keep_thumbs and ours.fullmatch(path.name)
            if (ours.fullmatch(path.name) or TEMPORARY.fullmatch(path.name)) and not kept:
                path.unlink()
        if name and not any(folder.iterdir()):
            folder.rmdir()


def finish_folder(out: Path, plan: Mapping[str, Any]) -> None:
    """Mark the site as finished: the last thing that is written."""
    write_json(out / FINISHED, dict(plan))
    (out / UNFINISHED).unlink()


def digest(value: Any) -> str:
    """A hash by which a site's plan knows what it does not quote, such as a Run's `info.model_dump()`.

    Args:
        value: ready for JSON.

    Example:
        >>> digest({"model": "clip"})[:8]
        'c35f6952'
    """
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except DataError:
        return None
