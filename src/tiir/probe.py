"""Which compiled libraries load, and what torch sees: asked of a process of its own, which they may end."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

from tiir.errors import several

__all__ = ["COMPILED", "ask", "probe"]

# What is compiled, and so may fail to load although it is installed; torchvision before transformers, which loads it.
COMPILED = ("numpy", "torch", "huggingface_hub", "torchvision", "transformers", "PIL", "h5py", "pandas", "pyarrow", "sklearn", "matplotlib")  # fmt: skip
LONGEST = 300  # seconds that libraries may take to load


def probe() -> None:
    """Load the compiled libraries and ask torch for its devices: what `ask` runs in a process of its own.

    A line of JSON on stdout before and after each; the last line of a name counts.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    for name in COMPILED:
        if name == "torchvision" and find_spec(name) is None:
            continue
        # True unless another answer follows.
        answer(name=name, error=f"the process ended while loading it, or took more than {LONGEST} s")
        try:
            _load(name)
        except BaseException as problem:  # a broken library raises anything
            # transformers says on top of it that it could not import a part
            answer(name=name, error=_first_line(problem.__cause__ or problem))
        else:
            answer(name=name, error=None)
        if name == "torch":
            answer(name="devices", found=_torch_devices())
        if name == "huggingface_hub" and (hub := sys.modules.get("huggingface_hub.constants")):
            answer(name="hub", cache=hub.HF_HUB_CACHE, offline=hub.HF_HUB_OFFLINE)


def _load(name: str) -> None:
    module = importlib.import_module(name)
    if name == "torch":  # torch and numpy that were built for different versions load, and fail here
        module.from_numpy(importlib.import_module("numpy").zeros(1))
    elif name == "huggingface_hub":  # it, and transformers, load their parts when they are asked for
        importlib.import_module("huggingface_hub.constants")
    elif name == "transformers":
        for part in ("AutoModel", "AutoTokenizer", "AutoImageProcessor", "CLIPModel", "CLIPImageProcessor"):
            getattr(module, part)


def _first_line(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}".splitlines()[0]


def _torch_devices() -> list[tuple[str, str, str | None]]:
    # Names, what they are, and the error of those that are listed and refuse to work.
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    found: list[tuple[str, str, str | None]] = [
        ("cpu", f"{several(torch.get_num_threads(), 'thread')}, {several(os.cpu_count() or 1, 'core')}", None)
    ]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    for name in [*(f"cuda:{n}" for n in range(torch.cuda.device_count())), *mps]:
        try:
            torch.ones(1, device=name).add(1).item()
            what = "Apple GPU" if name == "mps" else _cuda(torch, name)
        except Exception as problem:
            found.append((name, "", _first_line(problem)))
        else:
            found.append((name, what, None))
    return found


def _cuda(torch: Any, name: str) -> str:
    free, total = (size / 2**30 for size in torch.cuda.mem_get_info(name))
    return f"{torch.cuda.get_device_name(name)}, {free:,.1f} GB free of {total:,.1f} GB"


def ask() -> dict[str, Any]:
    """Run `probe` in a process of its own.

    Returns:
        By name, the last line about it: of libraries {"error": str | None}, and "devices" and "hub" where their
        libraries load. A name that was not reached is missing.
    """
    # The path of this process, in which no folder of the user shadows a library.
    script = f"import sys; sys.path[:] = {sys.path!r}; from tiir.probe import probe; probe()"
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=LONGEST)
        said = done.stdout
    except subprocess.TimeoutExpired as slow:
        said = (slow.stdout or b"").decode()
    return {line["name"]: line for line in map(json.loads, said.splitlines())}
