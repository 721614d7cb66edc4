"""The explorer's server: the files of a site, the photos of its data set, and live answers beside them."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from tiir.data.dataset import Dataset
from tiir.data.images import open_image
from tiir.errors import ImageError, ProtocolError, TiirError, UnsafePathError
from tiir.report.chunks import data_script, read_data
from tiir.report.guard import LOG, Guard, Refusal, failure
from tiir.report.judged import JudgementFile
from tiir.report.search import Search
from tiir.report.work import Batches, Busy, Desk

__all__ = ["make_app"]

TEXT = 2000  # characters of a text
PIXELS = 40_000_000  # of an uploaded photo
MOST = 100  # candidates of an answer
TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
    ".css": "text/css; charset=utf-8", ".webp": "image/webp",
}  # fmt: skip
PHOTOS = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}
LOGIN = Path(__file__).parent / "login"


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Text(_Asked):
    text: str = Field(max_length=TEXT)
    depth: int = Field(10, ge=1, le=MOST)


class _Edit(_Asked):
    caption: int = Field(ge=0)
    text: str = Field(max_length=TEXT)


class _Verdict(_Asked):
    image: int = Field(ge=0)
    caption: int = Field(ge=0)
    relevant: bool | None
    run: int | str | None = None


def make_app(
    site: Path,
    dataset: Dataset,
    search: Search,
    judged: JudgementFile,
    *,
    host: str = "127.0.0.1",
    token: str | None = None,
    batch: int = 32,
    waiting: int = 100,
) -> FastAPI:
    """The server of one site.

    Args:
        site: a folder that `tiir.report.build.build_site` wrote. Its files are listed once: no others are served.
        dataset: what the site shows.
        search: the Runs of the site in its order, with their models.
        judged: where judgements are saved.
        host: the address that the server is bound to; requests by another name are refused.
        token: asked for before anything is shown; None only where no other machine reaches the server.
        batch: texts that are encoded together when many people search at once.
        waiting: requests that may wait for a model; the next one is asked to come again (503).
    """
    data = read_data(site / "data" / "site.js") | {"live": True, "models": search.models}
    front = data_script("site", data).encode()
    files = _files(site)
    code = [f"/{name}" for name in files if name.startswith("app/")]
    names = [str(run["name"]) for run in data["runs"]]
    desk = Desk(waiting=waiting)
    encode = Batches(desk, search.encode, batch)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    open_paths = frozenset(["/login/", "/login/login.js", *code])
    app.add_middleware(Guard, host=host, token=token, open_paths=open_paths)
    _explain(app)

    @app.post("/api/search/text")
    async def search_text(asked: _Text) -> dict[str, Any]:
        started, text = time.perf_counter(), _clean(asked.text)
        with _place(desk):
            vectors = await encode(text)
            results = await desk.do(search.text, text, vectors, asked.depth)
        return {"results": results, "seconds": round(time.perf_counter() - started, 4)}

    @app.post("/api/search/photo")
    async def search_photo(request: Request) -> dict[str, Any]:
        started = time.perf_counter()
        async with request.form(max_files=1, max_fields=1) as form:
            upload = form.get("photo")
            if not isinstance(upload, UploadFile):
                raise Refusal(422, "No photo was sent", "Send one file as the field photo.")
            with _place(desk):
                results = await desk.do(_search_photo, search, upload.file)
        return {"results": results, "seconds": round(time.perf_counter() - started, 4)}

    @app.post("/api/rescore")
    async def rescore(asked: _Edit) -> dict[str, Any]:
        if asked.caption >= dataset.n_captions:
            raise Refusal(422, f"There is no caption {asked.caption}")
        text = _clean(asked.text)
        with _place(desk):
            vectors = await encode(text)
            try:
                results = await desk.do(search.rescore, asked.caption, text, vectors)
            except ProtocolError as problem:
                raise Refusal(422, problem.message) from None
        return {"results": results}

    @app.get("/api/judgements")
    def judgements() -> dict[str, Any]:
        return {"judgements": judged.entries()}

    @app.post("/api/judgements")
    def judge(verdict: _Verdict) -> dict[str, Any]:
        if verdict.image >= dataset.n_images or verdict.caption >= dataset.n_captions:
            raise Refusal(422, "There is no such image or caption")
        run = verdict.run
        if isinstance(run, int) and 0 <= run < len(names):
            run = names[run]
        if run is not None and run not in names:
            raise Refusal(422, "There is no such Run")
        judged.add(verdict.image, verdict.caption, verdict.relevant, run=run)
        return {"saved": True}

    @app.get("/photos/{number}")
    async def photo(number: str, request: Request) -> Response:
        if not (
            number.isascii() and number.isdigit() and len(number) < 10 and int(number) < dataset.n_images
        ):
            raise Refusal(404, "There is no such photo")
        return await run_in_threadpool(_photo, dataset, int(number), request)

    @app.get("/login/")
    def login_page() -> Response:
        return Response((LOGIN / "login.html").read_bytes(), media_type=TYPES[".html"])

    @app.get("/login/login.js")
    def login_script() -> Response:
        return Response((LOGIN / "login.js").read_bytes(), media_type=TYPES[".js"])

    @app.get("/data/site.js")
    def site_data() -> Response:
        return Response(front, media_type=TYPES[".js"])

    @app.get("/{name:path}")
    async def file(name: str, request: Request) -> Response:
        path = files.get(name or "index.html")
        if path is None:
            raise Refusal(404, "There is nothing here")
        return _file(path, TYPES[path.suffix], request)

    return app


def _files(site: Path) -> dict[str, Path]:
    # By what they are called in a URL. Links are left out: whoever wrote the folder could point them anywhere.
    found = [
        path
        for pattern in ("index.html", "app/*", "data/*.js", "thumbs/*.webp")
        for path in site.glob(pattern)
    ]
    return {
        path.relative_to(site).as_posix(): path
        for path in found
        if path.suffix in TYPES and path.is_file() and not path.is_symlink()
    }


@contextlib.contextmanager
def _place(desk: Desk) -> Iterator[None]:
    desk.enter()
    try:
        yield
    finally:
        desk.leave()


def _clean(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refusal(422, "The text holds half a character", "Type it again.") from None
    if not text.strip():
        raise Refusal(422, "There is no text", "Type what to look for.")
    return text


def _search_photo(search: Search, upload: IO[bytes]) -> Any:
    with tempfile.TemporaryDirectory(prefix="tiir-") as folder:
        path = Path(folder, "photo")
        with open(path, "wb") as file:
            copyfileobj(upload, file)
        try:
            image = open_image(path, max_pixels=PIXELS)
        except ImageError as problem:
            said = problem.message.replace(str(path), "The photo")
            raise Refusal(422, said, problem.hint or "") from None
    return search.photo(image, 10)


def _photo(dataset: Dataset, number: int, request: Request) -> Response:
    if dataset.image_root is None:
        raise Refusal(404, "This data set was prepared without photos")
    try:
        path = dataset.image_path(number)
        with open(path, "rb") as file:
            start = file.read(12)
    except (OSError, UnsafePathError):
        raise Refusal(404, "The file of this photo is not there any more") from None
    kind = next((kind for magic, kind in PHOTOS.items() if start.startswith(magic)), None)
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        kind = "image/webp"
    if kind is not None:
        return _file(path, kind, request)
    # What browsers cannot show (TIFF); and what is no picture is not let out.
    try:
        with io.BytesIO() as buffer:
            open_image(path).save(buffer, "JPEG", quality=95)
            return Response(buffer.getvalue(), media_type="image/jpeg")
    except ImageError:
        raise Refusal(404, "The file of this photo cannot be shown", "It may be damaged.") from None


def _file(path: Path, kind: str, request: Request) -> Response:
    try:
        facts = path.stat()
    except OSError:
        raise Refusal(404, "This file is not there any more", "Start the server again.") from None
    # Asked again each time: on this address another data set may have been shown yesterday.
    headers = {"ETag": f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"', "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type=kind, headers=headers, stat_result=facts)


def _explain(app: FastAPI) -> None:
    # Every error as {"error", "hint"}; of this machine nothing is told but to its own terminal.
    @app.exception_handler(HTTPException)
    async def http_error(_: Request, problem: HTTPException) -> JSONResponse:
        hint = problem.hint if isinstance(problem, Refusal) else ""
        return failure(problem.status_code, str(problem.detail), hint, problem.headers)

    @app.exception_handler(RequestValidationError)
    async def wrong_request(_: Request, problem: RequestValidationError) -> JSONResponse:
        first = problem.errors()[0]
        where = ".".join(str(part)[:40] for part in first["loc"] if part != "body")
        return failure(422, f"{where}: {first['msg']}" if where else first["msg"])

    @app.exception_handler(Busy)
    async def busy(_: Request, problem: Busy) -> JSONResponse:
        return failure(503, "Too many people are searching", "Try again in a moment.", {"Retry-After": "2"})

    @app.exception_handler(TiirError)
    async def own_error(_: Request, problem: TiirError) -> JSONResponse:
        LOG.error("%s", problem)
        return failure(500, "The server could not do this", "Its terminal says why.")
