"""Long work: progress bars with rates, on stderr, silent where nobody watches; threads that stay ahead of it."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["ahead", "track", "transfer"]

T = TypeVar("T")
Made = TypeVar("Made")


def track(
    items: Iterable[T],
    *,
    total: int | None = None,
    description: str,
    unit: str = "items",
    step: int | Callable[[T], float] = 1,
) -> Iterator[T]:
    """Yield `items` while a bar on stderr shows how many are done, the rate and the time left.

    Args:
        items: what to go through.
        total: how many units there are; `len(items)` times `step` where it is not given.
        description: what is being done.
        unit: what is counted, such as "images".
        step: units an item stands for (the last one may stand for fewer), or says how many.

    Example:
        >>> list(track([1, 2], description="counting"))
        [1, 2]
    """
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    if total is None and isinstance(items, Sized) and isinstance(step, int):
        total = len(items) * step
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TextColumn(unit),
        Remaining(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        for item in items:
            yield item
            size = step if isinstance(step, int) else step(item)
            bar.advance(task, size if total is None else min(size, total - bar.tasks[0].completed))


@contextmanager
def transfer(description: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show bytes, their rate and the time left on stderr; what it gives is told how many there are by now.

    Example:
        >>> with transfer("fetching", total=10) as show:
        ...     show(10)
    """
    if not sys.stderr.isatty():
        yield lambda now: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        Remaining(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total, completed=done)
        yield lambda now: bar.update(task, completed=now)


def ahead(make: Callable[[T], Made], items: Sequence[T], workers: int) -> Iterator[Made]:
    """Like map, with threads that stay a few items ahead of the reader and no further.

    Example:
        >>> list(ahead(str, [1, 2], workers=2))
        ['1', '2']
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
