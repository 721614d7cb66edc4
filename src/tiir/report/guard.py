"""What stands before every request: who may ask, from where, how much, and what the answer may do in a browser."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import secrets
import socket
import time
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi.exceptions import HTTPException
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "Refusal", "failure", "is_loopback"]

COOKIE = "tiir"
BODY = 64 * 1024  # bytes of a request
PHOTO = 20 * 1024**2  # bytes of an uploaded photo
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?")
LOG = logging.getLogger("tiir.explore")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Refusal(HTTPException):
    """A request that is turned down: what is wrong and what to do, in words that name nothing of this machine."""

    def __init__(
        self, status: int, error: str, hint: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, error, headers)
        self.hint = hint

    def answer(self) -> JSONResponse:
        """The answer that says so."""
        return failure(self.status_code, self.detail, self.hint, self.headers)


def failure(status: int, error: str, hint: str = "", headers: Any = None) -> JSONResponse:
    """An error as the page reads it."""
    return JSONResponse({"error": error, "hint": hint}, status, headers)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server on this address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """ASGI middleware that checks requests, bounds what they send, and adds headers to every answer.

    Args:
        app: what answers.
        host: the address that the server is bound to.
        token: who shows it once (`login`) gets a cookie; without one nothing but `open_paths` is answered. None
            where only this machine reaches the server.
        open_paths: that need no cookie.
    """

    def __init__(
        self, app: ASGIApp, *, host: str, token: str | None, open_paths: frozenset[str] = frozenset()
    ) -> None:
        self._app, self._local, self._token, self._open = app, is_loopback(host), token, open_paths
        self._session = secrets.token_urlsafe(32)
        self._names = {"localhost"} if self._local else {"localhost", host.lower(), *_own_names()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # there are no websockets here
        started, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                names = {name.lower() for name, _ in message["headers"]}
                if b"cache-control" not in names:
                    extra.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            refusal = self._refuse(scope)
            if refusal is not None and refusal.status_code == 401 and scope["path"] == "/":
                await RedirectResponse("/login/", 303)(scope, receive, sending)
            elif refusal is not None:
                await refusal.answer()(scope, receive, sending)
            elif scope["path"] == "/api/login":
                await self._login(scope, _bounded(receive, BODY), sending)
            else:
                most = PHOTO if scope["path"] == "/api/search/photo" else BODY
                await self._app(scope, _bounded(receive, most), sending)
        except Exception:
            LOG.exception("%s %s failed", scope["method"], quote(scope["path"]))
            if not status:
                error = failure(500, "The server failed at this", "Its terminal says why.")
                await error(scope, receive, sending)
        # The path only: what people searched for is nobody's business.
        level = logging.INFO if scope["path"].startswith("/api/") or status >= 400 else logging.DEBUG
        seconds = time.monotonic() - started
        LOG.log(level, "%s %s %d %.0f ms", scope["method"], quote(scope["path"]), status, 1000 * seconds)

    def _refuse(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._knows(host):
            return Refusal(
                403, "This server is not known by that name", "Open the address that the terminal shows."
            )
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
                return Refusal(403, "Another site sent this", "Open the page from this server.")
            if headers.get("x-tiir") != "1":
                return Refusal(403, "The header X-Tiir: 1 is missing")
        if self._token is None or scope["path"] in self._open or scope["path"] == "/api/login":
            return None
        shown = Request(scope).cookies.get(COOKIE, "")
        if hmac.compare_digest(shown.encode(), self._session.encode()):
            return None
        return Refusal(401, "Please log in first", "The token stands in the server's terminal.")

    def _knows(self, host: str) -> bool:
        # A name that an attacker's DNS points here is not ours (DNS rebinding); an address cannot be pointed.
        found = HOST.fullmatch(host.lower())
        if found is None:
            return False
        name = found["name"].strip("[]")
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return address.is_loopback or not self._local

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] != "POST":
                raise Refusal(405, "Log in by POST")
            try:
                body = await Request(scope, receive).json()
                token = body["token"].encode()
            except HTTPException:
                raise
            except Exception:
                raise Refusal(422, 'Expected {"token": "..."}') from None
            if self._token is not None and not hmac.compare_digest(token, self._token.encode()):
                raise Refusal(401, "This is not the token", "Copy the one that the server's terminal shows.")
        except Refusal as refusal:
            await refusal.answer()(scope, receive, send)
            return
        answer = JSONResponse({"welcome": True})
        if self._token is not None:
            answer.set_cookie(COOKIE, self._session, httponly=True, samesite="strict", path="/")
        await answer(scope, receive, send)


def _own_names() -> set[str]:
    return {name.lower() for name in (socket.gethostname(), socket.getfqdn()) if name}


def _bounded(receive: Receive, most: int) -> Receive:
    # Counts while it reads. The rest of what is too long is read to nowhere, within reason: a client that is still
    # sending would not see the answer.
    read = 0

    async def bounded() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read <= most:
            return message
        while message.get("more_body") and read < 10 * most:
            message = await receive()
            read += len(message.get("body", b""))
        size = f"{most // 1024**2} MB" if most >= 1024**2 else f"{most // 1024} KB"
        raise Refusal(413, f"This is larger than {size}", "Send less: a smaller photo, or a shorter text.")

    return bounded
