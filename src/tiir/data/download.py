"""Files from the web: resumed where a connection broke, checked before they get their name, unpacked inside one folder."""

from __future__ import annotations

import errno
import os
import posixpath
import shutil
import stat
import time
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tiir.errors import DataError, TiirError, UnsafePathError
from tiir.io import inside, read_json, sha256_file, write_json
from tiir.progress import track, transfer

if TYPE_CHECKING:
    import requests

__all__ = ["check_space", "fetch", "unpack"]

CHUNK = 1 << 20
TIMEOUT = (20, 60)  # seconds for a connection, and between two pieces of it
TRIES = 5  # attempts in a row that bring nothing


def fetch(
    url: str,
    path: Path,
    *,
    n_bytes: int | None = None,
    sha256: str | None = None,
    tries: int = TRIES,
    wait: float = 2.0,
) -> Path:
    """Download a file. It lies at `path` only when it is whole and right; until then beside it, as `.part`.

    A broken connection is taken up where it broke, in this call or the next, if the server says that the file is the
    same; a server that cannot go on in the middle sends it again from the start.

    Args:
        url: http or https.
        path: the file to make.
        n_bytes: its size, if known.
        sha256: its hash, if known.
        tries: attempts in a row that bring nothing, before giving up.
        wait: seconds before the second attempt, twice as long before each later one.

    Raises:
        DataError: the server refuses or stays silent, or what came has another size or hash, or is no zip file
            although it is called one. What came so far stays for the next call, except where it is wrong.
    """
    import requests
    from urllib3.exceptions import HTTPError

    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    if _known_tag(part, url) is None:  # nobody can say that it is the beginning of this file
        part.unlink(missing_ok=True)
    failures, most = 0, _size(part)
    while True:
        try:
            with requests.Session() as session:
                _continue(session, url, part, path.name, n_bytes)
            break
        except (requests.ConnectionError, requests.Timeout, HTTPError, _Later) as problem:
            failures = 1 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures >= tries:
                raise DataError(
                    f"{url} broke off {tries} times in a row: {_reason(problem)}; {_size(part):,} bytes are kept",
                    hint="check the network and run the same command again: it goes on where it stopped",
                ) from None
            time.sleep(wait * 2 ** (failures - 1))
        except requests.RequestException as problem:
            raise DataError(
                f"{url} cannot be fetched: {_reason(problem)}",
                hint="check the address (http:// or https://), or give another in --sources",
            ) from None
    _check(url, part, n_bytes, sha256, path.suffix == ".zip")
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    _tag(part).unlink(missing_ok=True)
    return path


def check_space(folder: Path, n_bytes: int, what: str) -> None:
    """Make sure that the disk has room, before anything starts.

    Raises:
        DataError: it has not.
    """
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if n_bytes > free:
        raise DataError(
            f"{what} needs {n_bytes / 1e9:.1f} GB on the disk of {folder}, {free / 1e9:.1f} GB are free",
            hint="free some space, or choose another --to",
        )


def unpack(archive: Path, folder: Path) -> dict[str, int]:
    """Extract a zip file. Every name is checked before anything is written; a file appears when it is whole.

    Files that are there already with the right content stay, so that a killed extraction goes on.

    Returns:
        The size of each file, by its name below `folder`.

    Raises:
        UnsafePathError: a member leads out of `folder`, or is a link.
        DataError: the archive is damaged or encrypted, has a name twice, or another file is in the way.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = _checked(archive, file)
            check_space(
                folder, sum(m.file_size for m in members if not (folder / m.filename).exists()), f"{archive}"
            )
            folder.mkdir(parents=True, exist_ok=True)
            for member in track(members, description=f"unpacking {archive.name}", unit="files"):
                _extract(file, member, inside(folder, member.filename))
    except TiirError:
        raise
    except Exception as problem:  # zipfile raises nearly every type on a damaged archive
        if isinstance(problem, OSError) and problem.errno != errno.EINVAL:  # a place before the file's start
            raise
        raise DataError(
            f"{archive} is damaged: {_reason(problem)}", hint="delete it and run the command again"
        ) from None
    return {member.filename: member.file_size for member in members}


class _Later(Exception):
    """An answer after which another attempt makes sense."""


def _continue(session: requests.Session, url: str, part: Path, name: str, n_bytes: int | None) -> None:
    have, tag = _size(part), _known_tag(part, url)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": tag} if tag else {})
    answer = session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    with answer:
        status = answer.status_code
        if status == 416:  # nothing is left to send, or ours is longer than theirs
            if answer.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                return
            part.unlink(missing_ok=True)
            raise _Later("it is shorter than what was fetched")
        if status in (429, 500, 502, 503, 504):
            raise _Later(f"the server answers {status} {answer.reason}")
        if status not in (200, 206):
            raise DataError(
                f"{url} cannot be fetched: the server answers {status} {answer.reason}",
                hint="the file may have moved: see `--sources` for another address",
            )
        if status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise _Later("it sent another part than was asked for")
        start = have if status == 206 else 0
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else n_bytes
        if n_bytes is not None and total is not None and total != n_bytes:
            if start:  # else it may be a passing error page, and what came before stays good
                part.unlink(missing_ok=True)
            raise DataError(
                f"{url} has {total:,} bytes, {n_bytes:,} were expected",
                hint="it is another file, or an error page: check the address, or give another in --sources",
            )
        weak = answer.headers.get("ETag", "").startswith("W/")
        new = "" if weak else answer.headers.get("ETag", "")
        if status == 200:
            write_json(_tag(part), {"url": url, "tag": new or answer.headers.get("Last-Modified", "")})
        with open(part, "ab" if start else "wb") as file, transfer(f"fetching {name}", total, start) as show:
            at = start
            while chunk := answer.raw.read1(
                CHUNK
            ):  # what is there now, so that nothing of it is lost with the connection
                at += len(chunk)
                if total is not None and at > total:
                    part.unlink()
                    raise DataError(
                        f"{url} sends more than the {total:,} bytes that were expected",
                        hint="it is another file: check the address, or give another in --sources",
                    )
                file.write(chunk)
                file.flush()
                show(at)
        if total is not None and at < total:
            raise _Later(f"{at:,} of {total:,} bytes came")


def _check(url: str, part: Path, n_bytes: int | None, sha256: str | None, is_zip: bool) -> None:
    wrong = None
    if n_bytes is not None and _size(part) != n_bytes:
        wrong = f"{_size(part):,} bytes came, {n_bytes:,} were expected"
    elif sha256 is not None and (got := sha256_file(part)) != sha256.lower():
        wrong = f"its sha256 is {got}, {sha256} was expected"
    elif is_zip and not zipfile.is_zipfile(part):
        wrong = "it is no zip file"
    if wrong:
        part.unlink()
        _tag(part).unlink(missing_ok=True)
        raise DataError(
            f"{url} is not the right file: {wrong}; it was deleted",
            hint="run the command again; if it happens twice, the file or its address has changed",
        )


def _tag(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _known_tag(part: Path, url: str) -> str | None:
    """What the server called the file that `part` began, None where it was another address or nothing is known."""
    try:
        known: Any = read_json(_tag(part))
    except DataError:
        return None
    if not isinstance(known, dict) or known.get("url") != url:
        return None
    return str(known.get("tag", ""))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0][:200]


def _checked(archive: Path, file: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members, seen = [], set[str]()
    for member in file.infolist():
        name = member.filename
        parts = name.split("/")
        if (
            name.startswith("/")
            or "\\" in member.orig_filename
            or ".." in parts
            or ":" in parts[0]
            or "\0" in name
        ):
            raise UnsafePathError(
                f"{archive}: member {name!r} leads out of the folder",
                hint="nothing was unpacked; do not use this file",
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UnsafePathError(
                f"{archive}: member {name!r} is a link", hint="nothing was unpacked; do not use this file"
            )
        if member.is_dir():
            continue
        if member.flag_bits & 1:
            raise DataError(f"{archive}: member {name!r} is encrypted", hint="unpack it by hand")
        key = posixpath.normpath(name).casefold()
        if key in seen:
            raise DataError(f"{archive}: two members are called {name!r}", hint="nothing was unpacked")
        seen.add(key)
        members.append(member)
    if both := seen & {str(folder) for key in seen for folder in PurePosixPath(key).parents}:
        raise DataError(
            f"{archive}: {min(both)!r} is a file and a folder",
            hint="nothing was unpacked; do not use this file",
        )
    return members


def _extract(file: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if target.exists():
        if target.is_file() and target.stat().st_size == member.file_size and _crc(target) == member.CRC:
            return
        raise DataError(
            f"{target} is in the way: it is not the file that {file.filename} holds",
            hint="move or delete it, and run the command again",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.unpacking")
    try:
        with file.open(member) as source, open(temporary, "wb") as out:
            shutil.copyfileobj(source, out, CHUNK)  # zipfile checks size and CRC
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _crc(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc
