"""What is installed, what of it works, and what there is to work with: for `tiir doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from tiir import __version__
from tiir.errors import several
from tiir.probe import COMPILED, ask

__all__ = ["Finding", "examine", "folder_size"]

SHOWN = ("torch", "transformers", "numpy")  # others are named only where they are missing or too old
PACKAGES = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
}  # those of COMPILED that are installed under another name
DEVELOPERS = ("dev", "docs", "peers")  # extras that users have no need of
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
LEAST_DISK = 100 * 2**20  # bytes
COMPLETION = (".bash_completions/tiir.sh", ".zfunc/_tiir", ".config/fish/completions/tiir.fish")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        topic: versions, libraries, devices, extras, hub, space or shell.
        name: what was looked at.
        found: what was found.
        broken: tiir cannot work like this.
        advice: what to do, where there is something to do.
    """

    topic: str
    name: str
    found: str
    broken: bool = False
    advice: str = ""


def examine() -> list[Finding]:
    """Look at this Python, its packages, the machine, and the hub's cache; nothing is changed or downloaded.

    Libraries are loaded in a process of their own, so that one that crashes is a finding.

    Returns:
        The findings, by topic.
    """
    answers = ask()
    return [
        *_versions(),
        *_libraries(answers),
        *_devices(answers),
        *_extras(),
        *_hub(answers),
        *_space(answers),
        _shell(),
    ]


def _requirements(extra: str = "") -> list[Requirement]:
    # Those of an extra are what it adds to those of none.
    lines = map(Requirement, metadata.requires("tiir") or [] if _version("tiir") else [])
    with_extra = [r for r in lines if r.marker is None or r.marker.evaluate({"extra": extra})]
    return [r for r in with_extra if extra == "" or r not in _requirements()]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _fits(requirement: Requirement) -> bool:
    version = _version(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _versions() -> Iterator[Finding]:
    if _version("tiir"):
        yield Finding("versions", "tiir", __version__)
    else:
        advice = "install it with pip: what it needs is not known otherwise"
        found = f"{__version__}, not installed: its files are read from {Path(__file__).parent}"
        yield Finding("versions", "tiir", found, broken=True, advice=advice)
    yield Finding("versions", "Python", f"{platform.python_version()}, {sys.executable}")
    needed = {r.name: r for r in _requirements()}
    for name in dict.fromkeys((*SHOWN, *needed)):
        found, wants = _version(name) or "not installed", needed.get(name)
        if wants is not None and not _fits(wants):
            found = f"{found}, tiir needs {wants.specifier}"
            yield Finding("versions", name, found, broken=True, advice=f"pip install '{wants}'")
        elif name in SHOWN:
            yield Finding("versions", name, found)


def _extras() -> Iterator[Finding]:
    extras = metadata.metadata("tiir").get_all("Provides-Extra") if _version("tiir") else None
    for extra in sorted(extras or []):
        if extra not in DEVELOPERS:
            lacks = ", ".join(r.name for r in _requirements(extra) if not _fits(r))
            advice = f"if you want it: pip install 'tiir[{extra}]'" if lacks else ""
            yield Finding("extras", extra, f"without {lacks}" if lacks else "installed", advice=advice)


def _libraries(answers: dict[str, Any]) -> Iterator[Finding]:
    failed = {name: answers[name]["error"] if name in answers else "not reached" for name in COMPILED}
    if "torchvision" not in answers:  # not installed, or the one before it ended the process
        failed.pop("torchvision")
    for name, error in failed.items():
        if error is None:
            continue
        advice, wants = f"install {PACKAGES.get(name, name)} again, or another version of it", ""
        if name == "torchvision":
            advice = (
                "pip uninstall torchvision (tiir does without it), or install the one made for your torch"
            )
            wants = _wanted_torch()
        elif failed.get("torchvision") and "torchvision" in error:
            advice = "mend torchvision first"
        elif error == "not reached":
            advice = "mend the library above first"
        elif (first := next(n for n, e in failed.items() if e == error)) != name:
            advice = f"mend {first} first"
        yield Finding("libraries", name, f"cannot be loaded: {error}{wants}", broken=True, advice=advice)
    works = [name for name, error in failed.items() if error is None]
    yield Finding("libraries", "that load", ", ".join(works) or "none")


def _wanted_torch() -> str:
    wanted = map(Requirement, metadata.requires("torchvision") or []) if _version("torchvision") else ()
    return "".join(f" (it needs {r}, there is {_version('torch')})" for r in wanted if r.name == "torch")


def _devices(answers: dict[str, Any]) -> Iterator[Finding]:
    found = answers.get("devices", {}).get("found", [])
    for name, what, error in found:
        advice = "" if error is None else "use --device cpu; for a GPU of NVIDIA see what `nvidia-smi` says"
        said = what if error is None else f"cannot be used: {error}"
        yield Finding("devices", name, said, broken=error is not None, advice=advice)
    if shutil.which("nvidia-smi") and not any(name.startswith("cuda") for name, *_ in found):
        yield Finding(
            "devices",
            "cuda",
            f"there is an NVIDIA driver, but torch {_version('torch')} sees no GPU",
            advice="see what `nvidia-smi` says; install a torch with CUDA (https://pytorch.org/get-started)",
        )


def _hub(answers: dict[str, Any]) -> Iterator[Finding]:
    if "hub" not in answers:  # its library is broken, which is a finding already
        return
    cache, offline = Path(answers["hub"]["cache"]), answers["hub"]["offline"]
    models = len(list(cache.glob("models--*"))) if os.path.isdir(cache) else 0
    writable = os.access(_there(cache), os.W_OK)
    yield Finding(
        "hub",
        "cache",
        f"{cache}: {several(models, 'model')}, {_size(folder_size(cache))}"
        + ("" if writable else ", read-only"),
        advice=""
        if writable
        else "set HF_HOME to a folder that you may write, if you want to download models",
    )
    set_to = ", ".join(f"{name}={os.environ[name]}" for name in OFFLINE if name in os.environ)
    yield Finding(
        "hub",
        "offline",
        f"{'on' if offline else 'off'}{f' ({set_to})' if set_to else ''}",
        advice="only models of the cache and local directories can be loaded" if offline else "",
    )


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder and below; of links nothing, so what lies elsewhere does not count.

    Example:
        >>> folder_size(Path("no such folder"))
        0
    """
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            with suppress(OSError):  # removed meanwhile
                total += 0 if os.path.islink(path) else os.lstat(path).st_size
    return total


def _there(path: Path) -> Path:
    # The nearest folder above that exists: on its disk the path would be made.
    return next(folder for folder in (path, *path.resolve().parents) if os.path.isdir(folder))


def _space(answers: dict[str, Any]) -> Iterator[Finding]:
    places = {"this folder": Path.cwd()}
    if "hub" in answers:
        places["hub cache"] = Path(answers["hub"]["cache"])
    for name, place in places.items():
        free = shutil.disk_usage(_there(place)).free
        full = free < LEAST_DISK
        advice = f"make room on the disk of {place}" if full else ""
        yield Finding("space", f"disk of {name}", f"{_size(free)} free", broken=full, advice=advice)
    yield Finding("space", "memory", _memory())


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "unknown on this system"
    total = _size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    meminfo = Path("/proc/meminfo")  # Linux
    lines = meminfo.read_text().splitlines() if meminfo.is_file() else []
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    return f"{_size(free[0])} free of {total}" if free else total


def _shell() -> Finding:
    installed = any(os.path.isfile(os.path.expanduser(f"~/{name}")) for name in COMPLETION)
    advice = (
        ""
        if installed
        else "tiir --install-completion, then open a new shell: the tab key completes verbs and options"
    )
    return Finding("shell", "completion", "installed" if installed else "not installed", advice=advice)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:,.0f} MB"
