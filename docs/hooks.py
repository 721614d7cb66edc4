"""The benchmarks' results are a page of the site, though they are written and lie elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

RESULTS = "../benchmarks/RESULTS.md"


def on_files(files: Files, config: Any) -> Files:
    """Add the page."""
    path = Path(config.docs_dir, RESULTS).resolve()
    files.append(File.generated(config, "results.md", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links to it."""
    return markdown.replace(f"]({RESULTS}", "](results.md")
