"""The explorer's page: its files as they are, or all of a site in one HTML file."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from tiir.errors import ConfigError
from tiir.report.chunks import data_script
from tiir.report.folder import APP

__all__ = ["LIMIT", "check_size", "page_files", "single_page", "thumbs_script"]

LIMIT = 32_000_000
"""Bytes of a single file: a browser reads all of it before it shows anything."""
POLICY = re.compile(r'(<meta http-equiv="Content-Security-Policy" content=")[^"]*(">)')
SCRIPT = re.compile(r'<script src="(app|data)/([\w-]+\.js)"></script>')
STYLE = re.compile(r'<link rel="stylesheet" href="app/([\w-]+\.css)">')
UNFIT = re.compile(r"</script|<!--|</style", re.IGNORECASE)  # would end the element it stands in


def page_files() -> dict[str, str]:
    """The page's own files, by the path they take in a site: `index.html`, scripts, the style.

    Example:
        >>> "app/data.js" in page_files()
        True
    """
    found = {}
    for file in sorted(files("tiir.report").joinpath("site").iterdir(), key=lambda file: file.name):
        if file.name == "index.html":
            found[file.name] = file.read_text(encoding="utf-8")
        elif APP.fullmatch(file.name):
            found[f"app/{file.name}"] = file.read_text(encoding="utf-8")
    return found


def check_size(size: int) -> None:
    """Refuse what is too large for one file.

    Raises:
        ConfigError: more than `LIMIT` bytes.
    """
    if size > LIMIT:
        raise ConfigError(
            f"a single file of {size / 1e6:,.0f} MB or more: the limit is {LIMIT / 1e6:.0f} MB",
            hint="fewer queries (--max-queries N), --no-images, or without --single-file: a folder is read piece by "
            "piece",
        )


def thumbs_script(folder: Path, images: Iterable[int]) -> str:
    """The block `thumbs`: thumbnails as data: URIs, by position."""
    made = {}
    for n in images:
        raw = (folder / f"{n}.webp").read_bytes()
        made[str(n)] = f"data:image/webp;base64,{base64.b64encode(raw).decode()}"
    return data_script("thumbs", made)


def single_page(blocks: Iterable[str]) -> str:
    """One HTML file with the page's scripts and style and all data, and a policy that lets nothing else run.

    Args:
        blocks: data scripts, from `tiir.report.chunks.data_script`.
    """
    page, hashes = page_files(), dict[str, list[str]](script=[], style=[])
    data = "".join(blocks)

    def inline(tag: str, text: str) -> str:
        assert not UNFIT.search(text), f"a {tag} that would end early"
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[tag].append(f"'sha256-{digest}'")
        return f"<{tag}>{text}</{tag}>"

    def script(found: re.Match[str]) -> str:
        return inline("script", data if found[1] == "data" else page[f"app/{found[2]}"])

    html = STYLE.sub(lambda found: inline("style", page[f"app/{found[1]}"]), page["index.html"])
    html = SCRIPT.sub(script, html)
    policy = (
        f"default-src 'none'; script-src {' '.join(hashes['script'])}; style-src {' '.join(hashes['style'])}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return POLICY.sub(lambda found: found[1] + policy + found[2], html, count=1)
