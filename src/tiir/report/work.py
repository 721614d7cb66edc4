"""Work beside the event loop: a few threads, a bounded queue, and small requests done together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["Batches", "Busy", "Desk"]

T = TypeVar("T")
R = TypeVar("R")


class Busy(Exception):
    """So much is waiting already that one more would wait too long."""


class Desk:
    """Runs functions in a few threads, and turns away who comes when too many wait.

    Args:
        threads: at work at a time.
        waiting: calls that may be at work or wait.
    """

    def __init__(self, threads: int = 4, waiting: int = 100) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tiir")
        self._waiting, self._calls = waiting, 0

    def enter(self) -> None:
        """Take a place in the queue, to be given back by `leave`.

        Raises:
            Busy: there is none.
        """
        if self._calls >= self._waiting:
            raise Busy
        self._calls += 1

    def leave(self) -> None:
        """Give a place back."""
        self._calls -= 1

    async def do(self, work: Callable[..., R], *arguments: object) -> R:
        """Run a function in a thread; the caller has a place in the queue."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def close(self) -> None:
        """Let the threads end; what still waits is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Batches(Generic[T, R]):
    """One call at a time of a function on many items: what comes while it works is its next batch.

    Args:
        desk: where it runs.
        work: gives the result of each item, in order.
        most: items of a batch.
    """

    def __init__(self, desk: Desk, work: Callable[[Sequence[T]], Sequence[R]], most: int = 32) -> None:
        self._desk, self._work, self._most = desk, work, most
        self._items: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        """The result of one item."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._items.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._go())
        return await future

    async def _go(self) -> None:
        while self._items:
            batch, self._items = self._items[: self._most], self._items[self._most :]
            try:
                results = await self._desk.do(self._work, [item for item, _ in batch])
            except Exception as problem:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(problem)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():  # who asked may have gone
                        future.set_result(result)
