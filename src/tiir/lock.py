"""One writer at a time: a lock on a file, which names its holder and ends with the holder's process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tiir.errors import TiirError

__all__ = ["locked"]


@contextmanager
def locked(file: Path, path: Path, *, error: type[TiirError]) -> Iterator[None]:
    """Keep other processes from writing `path`, as long as the block lasts.

    Args:
        file: to lock, its text replaced; made where it is missing, and never followed where it is a link. The system
            drops the lock when its holder dies, so that none is stale.
        path: what is written.
        error: to raise.

    Raises:
        error: another process is at work (named), or `file` is a link.

    Example:
        >>> import tempfile
        >>> from tiir.errors import RunError
        >>> out = Path(tempfile.mkdtemp())
        >>> with locked(out / "lock", out, error=RunError):
        ...     (out / "lock").read_text()
        'process ... on ...'
    """
    try:
        import fcntl
    except ImportError:  # Windows: unguarded
        yield
        return
    if file.is_symlink():
        raise error(f"{file} is a link", hint="remove it: what it leads to would be overwritten")
    with open(file, "a+", encoding="utf-8", opener=_no_link) as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = os.fstat(held.fileno()).st_nlink > 0  # else its holder has just removed it
        except BlockingIOError:
            free = False
        except OSError:  # a file system without locks: better unguarded than not at all
            free = True
        if not free:
            held.seek(0)
            raise error(
                f"another process is writing {path}: {held.read().strip() or 'unknown'}",
                hint="wait for it, stop it, or choose another --out",
            )
        held.truncate(0)
        held.write(f"process {os.getpid()} on {socket.gethostname()}")
        held.flush()
        yield


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
