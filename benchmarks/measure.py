"""What the benchmarks share: ways that take turns in one process, ratios with their spread, tables in Markdown."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

__all__ = ["alternate", "ratio", "table", "versions"]


def alternate(
    ways: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Run every way once a round, so that what slows the machine slows all of them.

    Returns:
        Seconds of each way, a number a round; what each way gave last.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    for n in range(rounds):
        for name, way in ways.items():
            start = clock()
            results[name] = way()
            seconds[name].append(clock() - start)
            print(
                f"round {n + 1} of {rounds}, {name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True
            )
    return seconds, results


def ratio(slow: Sequence[float], fast: Sequence[float]) -> str:
    """The median of the rounds' ratios, and their range.

    Example:
        >>> ratio([20, 30, 42], [10, 10, 10])
        '3.0x (2.0 to 4.2)'
    """
    found = sorted(a / b for a, b in zip(slow, fast, strict=True))
    median, digits = statistics.median(found), 2 if found[-1] < 2 else 1 if found[-1] < 20 else 0
    spread = f" ({found[0]:.{digits}f} to {found[-1]:.{digits}f})" if len(found) > 1 else ""
    return f"{median:.{digits}f}x{spread}"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a Markdown table: the first column is text, the others are numbers."""
    print("| " + " | ".join(head) + " |")
    print("| --- |" + " ---: |" * (len(head) - 1))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def versions(*packages: str) -> str:
    """Names and installed versions of packages, for the output of a benchmark."""
    return ", ".join(f"{name} {version(name)}" for name in packages)
