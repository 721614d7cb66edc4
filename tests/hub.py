"""A model hub on this machine: what huggingface_hub asks a hub for, answered from directories."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Hub:
    """A server of models by name, each with its commits, the last of which is "main".

    Example:
        hub = Hub()
        hub.models["some/clip"] = {40 * "a": folder}
    """

    def __init__(self) -> None:
        self.models: dict[str, dict[str, Path]] = {}
        self.requests: list[str] = []
        self.mute = False  # take requests, and drop the connection
        self.refuses: int | None = None  # answer with this status
        self.port = 0
        self.open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Answer, after `close` on the same port as before."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.requests.append(f"{self.command} {path}")
                if hub.mute:
                    self.close_connection = True
                    return
                status, headers, body = (hub.refuses, {}, b"") if hub.refuses else hub.answer(path)
                self.send_response(status)
                for key, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Refuse connections."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        owner, model, kind, revision, *rest = [*(parts[2:] if api else parts), *3 * ["main"]]
        commits = self.models.get(f"{owner}/{model}")
        if commits is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        commit = [*commits][-1] if revision == "main" else revision
        if commit not in commits:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = {
            p.relative_to(commits[commit]).as_posix(): p for p in commits[commit].rglob("*") if p.is_file()
        }
        if api:
            listed = [{"type": "file", "path": file, "oid": etag(p), "size": p.stat().st_size}
                      for file, p in files.items()]  # fmt: skip
            about = {"id": f"{owner}/{model}", "sha": commit}
            return (
                200,
                {"Content-Type": "application/json"},
                json.dumps(listed if kind == "tree" else about).encode(),
            )
        asked = files.get("/".join(rest[:-3]))
        if asked is None:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        return 200, {"ETag": f'"{etag(asked)}"', "X-Repo-Commit": commit}, asked.read_bytes()


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
