"""How long work runs: in numbered pieces that need nothing of each other, here or wherever an engine takes them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tiir.errors import RunError
from tiir.progress import track
from tiir.revisions import pinned

__all__ = ["Engine", "Job"]

Flags = npt.NDArray[np.bool_]


class Job(Protocol):
    """Work in numbered pieces. It is pickled to each worker, once; what a piece holds depends on its number alone."""

    chunk: int  # pieces that a worker takes at a time: some seconds of work

    def results(self, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Compute some pieces: (number, result) of each, in any order. Results are pickled on their way back."""

    def to(self, device: str) -> None:
        """Move the model, if there is one, to a worker's device."""


class Engine:
    """Runs the pieces of a job, one after another in this process; the other engines are its subclasses.

    One process plans, holds locks and puts results together: the first. Only under torchrun there are others, which
    run the same code and keep the results of their own pieces.

    Example:
        >>> class Squares:
        ...     chunk = 1
        ...     def results(self, numbers):
        ...         yield from ((n, n * n) for n in numbers)
        >>> squares = {}
        >>> Engine().run(Squares(), [1, 2], squares.__setitem__, weights=[1, 1, 1], unit="numbers", description="")
        >>> squares
        {1: 1, 2: 4}
    """

    name = "local"
    first = True
    workers = 1  # that compute at the same time
    device: str | None = None  # of the workers, where it is not that of this process

    def place(self, device: str) -> str:
        """Where this process loads a model that is to compute on `device` ("auto", "cpu", "cuda", ...)."""
        return device

    def run(
        self,
        job: Job,
        numbers: Sequence[int],
        put: Callable[[int, Any], None],
        *,
        weights: Sequence[int],
        unit: str,
        description: str,
    ) -> None:
        """Compute pieces.

        Args:
            job: gives their results.
            numbers: which; neighbours cost about the same.
            put: is given the number and result of each piece that is done, in this process, in any order.
            weights: work of every piece of the job (not only of `numbers`), counted in `unit`, for the progress bar.
            unit, description: for the progress bar, such as "pairs" and "scoring". Under torchrun the bar shows the share of
                the first process.

        Raises:
            RunError: a worker died and could not be replaced.
            TiirError: as a piece raised it.
        """
        mine = self._share(numbers)
        results = self._results(job, mine)
        done: Iterator[tuple[int, Any]] = results
        if self.first:
            total = sum(weights[n] for n in mine)
            done = track(
                done, total=total, description=description, unit=unit, step=lambda piece: weights[piece[0]]
            )
        with closing(results):  # so that workers leave, whatever happens here
            for n, result in done:
                put(n, result)

    def _share(self, numbers: Sequence[int]) -> Sequence[int]:
        # What this process sees to.
        return numbers

    def _results(self, job: Job, numbers: Sequence[int]) -> Generator[tuple[int, Any], None, None]:
        # (number, result) of each piece, wherever it is computed.
        yield from job.results(numbers)

    def told(self, flags: Flags) -> Flags:
        """What the first process gives here, in all processes, once all are here.

        Args:
            flags: bool (n,); of the others only n counts.

        Raises:
            RunError: another process failed.
        """
        return flags

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, in all of them, once all are here.

        Raises:
            RunError: another process failed.
        """
        return [value]

    def agree(self, plan: Mapping[str, Any]) -> None:
        """Go on when all processes are here, with the same plan: the hub may have given them different commits.

        Args:
            plan: what decides the results.

        Raises:
            RunError: they have different ones, or another process failed.
        """
        plans = self.gathered(dict(plan))
        for key in plan:
            if differ := [other[key] for other in plans if other[key] != plans[0][key]]:
                raise RunError(
                    f"the processes do not share {key}: {plans[0][key]!r} and {differ[0]!r}",
                    hint=f"start all of them with the same model{pinned(differ[0])}, data and libraries",
                )

    def wait(self) -> None:
        """Go on when all processes are here.

        Raises:
            RunError: another process failed.
        """
        self.told(np.zeros(1, bool))
