"""Revisions as Runs, feature stores and trainings record them: a hub model's commit, a directory's content hash."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

__all__ = ["commit", "known", "pinned"]

COMMIT = re.compile("[0-9a-f]{40}")


def known(revision: Any) -> Any:
    """A revision as it was recorded; None where earlier versions wrote that it is "unknown".

    Example:
        >>> known("sha256:76de1b3b"), known("unknown")
        ('sha256:76de1b3b', None)
    """
    return None if revision == "unknown" else revision


def commit(name: str, revision: Any) -> str | None:
    """The commit that half-done work of a hub model goes on with; None of a directory, or where none was recorded.

    Args:
        name: hub id or directory, such as "some/clip" or "lxmert:some/lxmert".
        revision: as it was recorded.

    Example:
        >>> commit("some/clip", "76de1b3b3a3c4bd85ec1b5b2b4f5b2c2a3c4d5e6")
        '76de1b3b3a3c4bd85ec1b5b2b4f5b2c2a3c4d5e6'
        >>> commit("some/clip", "sha256:76de1b3b")
    """
    found = isinstance(revision, str) and COMMIT.fullmatch(revision)
    return revision if found and not Path(name.rpartition(":")[2]).is_dir() else None


def pinned(revision: object) -> str:
    """The end of a hint to take the same model again: the option that asks the hub for a commit; "" if it is none.

    Example:
        >>> pinned("76de1b3b3a3c4bd85ec1b5b2b4f5b2c2a3c4d5e6")
        ' (--revision 76de1b3b3a3c4bd85ec1b5b2b4f5b2c2a3c4d5e6)'
        >>> pinned("sha256:76de1b3b")
        ''
    """
    return f" (--revision {revision})" if COMMIT.fullmatch(str(revision)) else ""
