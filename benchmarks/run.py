"""Run the benchmarks and write what they print into benchmarks/RESULTS.md, each with its command, date and machine.

    python benchmarks/run.py [NAME ...]      # all, or some; the sections of the others stay as they are

A section is what the script printed: tables as they are, other lines as text. A benchmark that fails or is skipped
keeps its old section, and the exit code says so. What takes hours, or models and data that nobody ships, stands in
benchmarks/BY_HAND.md.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
INTRO = """# Results

Written by `make bench` (`python benchmarks/run.py`); do not edit. Ratios are the median of the rounds' ratios with their
range, both sides in one process run; seconds are of the machine named. `BY_HAND.md`: what takes longer.
"""

# In this order; what a whole run takes on two cores is an hour and a half.
COMMANDS = {
    "peers": "--photos 1000",
    "ranks": "",
    "encode_text": "--captions 1000 --rounds 2",
    "lxmert_pairs": "--captions 64 --images 12",
    "feature_reading": "",
    "engines": "--images 32 --captions 32 --rounds 2",
    "million": "--plot docs/images/scaling.png",
    "frcnn": "--images 2 --batch-size 2 --rounds 2",
    "report": "",
    "explore_load": "",
    "diagnosis": "",
}


def machine() -> str:
    """The processor, its cores and the memory, and what the figures depend on besides."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = found[1] if found else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy"))
    device = ""
    try:
        import torch

        device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    except ImportError:
        pass
    return (
        f"{os.cpu_count()} cores of an {model}{device}, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f} at the start; "
        f"Python {platform.python_version()}, {libraries}"
    )


def section(name: str, output: str, seconds: float, where: str) -> str:
    """One benchmark in Markdown: its title, command, date and machine, and what it printed."""
    title = (HERE / f"{name}.py").read_text(encoding="utf-8").split('"""')[1].splitlines()[0].rstrip(".")
    command = " ".join(filter(None, ["python", f"benchmarks/{name}.py", COMMANDS[name]]))
    parts = []
    for kind, lines in itertools.groupby(
        output.splitlines(), lambda line: line[:1] == "|" if line.strip() else None
    ):
        if kind is not None:  # blank lines end a table
            text = "\n".join(lines)
            parts.append(text if kind else f"```text\n{text}\n```")
    body = "\n\n".join(parts)
    return f"## {name}: {title[0].lower()}{title[1:]}\n\n    {command}\n\n{date.today()}, {where}; {seconds:.0f} s.\n\n{body}\n"


def sections(text: str) -> dict[str, str]:
    """The sections of RESULTS.md by benchmark."""
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]
    return {part[3 : part.index(":")]: part.rstrip() + "\n" for part in parts}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(COMMANDS))
    names = parser.parse_args().names or list(COMMANDS)
    if unknown := set(names) - set(COMMANDS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(COMMANDS)}")
    failed = []
    for name in names:
        command = [sys.executable, f"benchmarks/{name}.py", *shlex.split(COMMANDS[name])]
        print(f"== {name}", file=sys.stderr, flush=True)
        where, start = machine(), time.perf_counter()
        done = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(done.stdout, f"{name} ended with {done.returncode}: its section stays", file=sys.stderr)
            failed.append(name)
            continue
        print(done.stdout, flush=True)
        old = sections(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        old[name] = section(name, done.stdout, time.perf_counter() - start, where)
        RESULTS.write_text("\n".join([INTRO, *(old[n] for n in COMMANDS if n in old)]), encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
