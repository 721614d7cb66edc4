"""Pieces computed by processes on this machine; results come back to the process that started them."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from tiir.engine import Engine, Job
from tiir.errors import ConfigError, RunError, TiirError

__all__ = ["GO_ON", "LocalEngine", "chunks"]

Results = list[tuple[int, Any]]
GO_ON = "score, rerank and features extract keep what was finished, and go on with --resume"
WITHOUT = (
    "leave --workers out, or start processes that load it themselves: torchrun --nproc-per-node=2 -m tiir ..."
)
TURNS = 4  # of each worker, at least: some pieces take longer than others


class LocalEngine(Engine):
    """So many processes on this machine's cores, each with a copy of the job.

    They end with the process that started them, however it ends.

    Args:
        workers: how many; they share the cores.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def place(self, device: str) -> str:
        """The CPU: workers beside each other on one GPU would only wait for each other."""
        if device not in ("auto", "cpu"):
            raise ConfigError(
                f"device {device} with {self.workers} local workers",
                hint="leave --workers out, or start a process for each GPU: torchrun --nproc-per-node=2 -m tiir ...",
            )
        return "cpu"

    def _results(self, job: Job, numbers: Sequence[int]) -> Generator[tuple[int, Any], None, None]:
        parts = chunks(numbers, job.chunk, self.workers)
        if not parts:
            return
        pickled = _pickled(job)
        # Spawned, not forked: torch's threads do not survive a fork. The pipe closes when this process ends or leaves.
        context = get_context("spawn")
        watched, held = context.Pipe(duplex=False)
        workers = min(self.workers, len(parts))
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        pool = ProcessPoolExecutor(workers, context, _open, (pickled, watched, threads))
        try:
            yield from _in_order_of_start(pool, parts, 2 * workers)
        except BrokenProcessPool:
            raise RunError(
                "a worker process died (killed, perhaps for the memory it took)",
                hint=f"fewer --workers or a smaller --memory take less; {GO_ON}",
            ) from None
        except BaseException:
            held.close()  # the workers leave now, not when their pieces are done
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            held.close()
            watched.close()


def chunks(numbers: Sequence[int], most: int, workers: int) -> list[list[int]]:
    """The numbers in lists of neighbours, at most so many each; fewer where every worker would not get several lists.

    Example:
        >>> chunks([1, 2, 5, 6, 7], 2, 1)
        [[1], [2], [5], [6], [7]]
        >>> chunks(range(9), 2, 1)
        [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
    """
    size = max(1, min(most, len(numbers) // (TURNS * workers)))
    return [list(map(int, numbers[start : start + size])) for start in range(0, len(numbers), size)]


def _pickled(job: Job) -> bytes:
    try:
        return pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as problem:
        raise ConfigError(
            f"the model or data cannot be sent to other processes: {problem}",
            hint=WITHOUT,
        ) from problem


def _in_order_of_start(
    pool: ProcessPoolExecutor, parts: Sequence[Sequence[int]], ahead: int
) -> Iterator[tuple[int, Any]]:
    # No more results wait than `ahead` parts have.
    waiting: deque[Future[Results]] = deque()
    for part in parts:
        waiting.append(pool.submit(_results, part))
        if len(waiting) >= ahead:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


_job: Job | bytes  # as it was sent, until the first pieces are asked for
_threads: int


def _open(pickled: bytes, watched: Connection, threads: int) -> None:
    global _job, _threads
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for the first process, which ends the others
    threading.Thread(target=_leave_after, args=(watched,), daemon=True).start()
    _job, _threads = pickled, threads


def _leave_after(watched: Connection) -> None:
    watched.poll(None)
    os._exit(1)


def _results(numbers: Sequence[int]) -> Results:
    global _job
    if isinstance(_job, bytes):  # here, not in _open: what goes wrong arrives as it is
        _job = _unpickled(_job)
    return list(_job.results(numbers))


def _unpickled(pickled: bytes) -> Job:
    try:
        job: Job = pickle.loads(pickled)  # from the process that started this one, never from a file
    except TiirError:
        raise
    except Exception as problem:  # of whatever the model or data does when it is made again
        raise ConfigError(
            f"a worker cannot take over the model or data: {type(problem).__name__}: {problem}", hint=WITHOUT
        ) from None
    from threadpoolctl import threadpool_limits

    threadpool_limits(_threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(_threads)
    return job
