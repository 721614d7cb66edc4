"""Running the explorer's server: an address, a token where others reach it, and an end that leaves nothing behind."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from tiir.errors import ConfigError
from tiir.report.guard import LOG, is_loopback

__all__ = ["ended_by_signals", "listen", "new_token", "serve", "spare_a_core"]

CONNECTIONS = 500  # open at a time
Say = Callable[[str], None]


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address: before the long work, so that a taken port is said at once.

    Args:
        host: a name or address of this machine.
        port: 0 for any that is free.

    Raises:
        ConfigError: the address is not this machine's, or the port is taken.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(128)
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {why}",
            hint="another --port (0: any that is free) or --host",
        ) from None
    return bound


def new_token(host: str) -> str | None:
    """A token for a server that other machines reach, None for one on loopback."""
    return None if is_loopback(host) else secrets.token_urlsafe(24)


def serve(app: ASGIApp, bound: socket.socket, host: str, token: str | None, *, say: Say) -> None:
    """Answer requests until the process is told to end.

    Args:
        app: from `tiir.report.serve.make_app`, made for the same host and token.
        bound: from `listen`.
        host: what it was bound to.
        token: shown here, and nowhere else.
        say: called with the address and the token.
    """
    if not LOG.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)
        LOG.propagate = False
    port = bound.getsockname()[1]
    name = socket.gethostname() if host in ("0.0.0.0", "::", "") else f"[{host}]" if ":" in host else host
    say(f"the explorer: http://{name}:{port}/   (Ctrl+C ends it)")
    if token is not None:
        say(f"token: {token}")
        say(
            "Who has the token can see the photos and judge. The connection is not encrypted: on a network that others "
            f"share, prefer --host 127.0.0.1 and ssh -L {port}:127.0.0.1:{port}."
        )
    config: dict[str, Any] = {
        "access_log": False,  # the guard writes one without what people searched for
        "log_config": None,
        "server_header": False,
        "proxy_headers": False,
        "limit_concurrency": CONNECTIONS,
        "timeout_graceful_shutdown": 3,
        "ws": "none",
    }
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(app, **config)).run(sockets=[bound])


def spare_a_core() -> None:
    """Leave a core to what answers requests: torch's threads, one a core, would all wait for the one it is on."""
    import torch

    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 2) - 1)))


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """While it holds, the signal TERM ends the process as an exit does: what it has to clean up, it cleans up."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
