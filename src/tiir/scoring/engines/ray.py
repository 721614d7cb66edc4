"""Pieces as tasks of a Ray cluster: Ray finds the place, starts again what died, and moves the bytes."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tiir.engine import Engine, Job
from tiir.errors import ConfigError, MissingExtraError, RunError, TiirError
from tiir.scoring.engines.local import GO_ON, chunks

__all__ = ["RayEngine"]

RETRIES = 3  # of a chunk whose worker or node died; a chunk that kills four workers kills the fifth, too
PACKAGES = ("tiir", "torch", "transformers", "numpy")  # that decide the bytes of a result


class RayEngine(Engine):
    """The cluster that this process is connected to.

    The job lies in Ray's object store once; a worker process takes it from there once and keeps it. Paths in it (of
    photos, of region features) must lead to the same files on every node.

    Args:
        workers: chunks at the same time; where None, as many as the cluster has cores (GPUs) at that time.
    """

    name = "ray"

    def __init__(self, workers: int | None) -> None:
        self._asked = workers

    @classmethod
    @contextmanager
    def connected(cls, address: str | None, workers: int | None) -> Iterator[RayEngine]:
        """Connect to the cluster at `address`, or start Ray on this machine for as long as the block lasts.

        Raises:
            ConfigError: nothing answers at `address`.
            MissingExtraError: Ray is not installed.
        """
        try:
            import ray
        except ImportError:
            raise MissingExtraError("ray", "ray") from None
        ours = not ray.is_initialized()
        if ours:
            options: dict[str, Any] = {"address": address}
            if address is None:  # on this machine alone, and not seen from outside
                # Ray lets nobody in without it, and writes one to the home folder where there is none.
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
                options = {
                    "address": "local",
                    "num_cpus": workers,
                    "include_dashboard": False,
                    "_node_ip_address": "127.0.0.1",
                }
            else:
                _answers(address)
            try:
                ray.init(logging_level="ERROR", log_to_driver=False, **options)
            except (ConnectionError, ValueError, RuntimeError) as problem:
                raise _no_cluster(address, problem) from None
        try:
            yield cls(workers)
        finally:
            if ours:
                ray.shutdown()

    @property
    def workers(self) -> int:  # type: ignore[override]
        """Chunks at the same time."""
        import ray

        kind = "CPU" if self.device is None else "GPU"
        return self._asked or max(1, int(ray.cluster_resources().get(kind, 1)))

    def place(self, device: str) -> str:
        """The CPU of this process; the workers move the model to the GPU that Ray gives them.

        Raises:
            ConfigError: a GPU is asked for and no node has one, or one is named.
        """
        import ray

        if device not in ("auto", "cpu", "cuda"):
            raise ConfigError(
                f"device {device} with engine ray", hint="auto, cpu or cuda: Ray says which one"
            )
        gpus = ray.cluster_resources().get("GPU", 0)
        if device == "cuda" and not gpus:
            raise ConfigError("no node of the Ray cluster has a GPU", hint="use --device cpu or auto")
        self.device = "cuda" if gpus and device != "cpu" else None
        return "cpu"

    def _results(self, job: Job, numbers: Sequence[int]) -> Generator[tuple[int, Any], None, None]:
        import ray

        held = ray.put(job)
        # max_calls=0: a worker with a GPU would leave after each task otherwise, and load the model for the next.
        task = ray.remote(
            num_cpus=1, num_gpus=int(self.device is not None), max_calls=0, max_retries=RETRIES,
            scheduling_strategy="SPREAD",
        )(_results)  # fmt: skip
        left, waiting = iter(chunks(numbers, job.chunk, self.workers)), []
        try:
            while True:
                for part in left:
                    waiting.append(task.remote([held], part, self.device, _versions()))
                    if len(waiting) >= self.workers:
                        break
                if not waiting:
                    return
                (ready, *_), waiting = ray.wait(waiting)
                yield from _fetched(ready)
        finally:  # after an error: nobody wants the rest
            for one in waiting:
                ray.cancel(one, force=True)


def _fetched(ready: Any) -> list[tuple[int, Any]]:
    import ray

    try:
        results: list[tuple[int, Any]] = ray.get(ready)
    except ray.exceptions.RayTaskError as problem:
        if isinstance(problem.cause, TiirError):
            raise problem.cause from None
        raise
    except ray.exceptions.RayError as problem:
        raise RunError(
            f"Ray gave up a piece of the work after {RETRIES} retries: {type(problem).__name__}: "
            f"{_first_line(problem)}",
            hint=f"a worker that is killed for its memory needs fewer --workers a node or a smaller --memory; {GO_ON}",
        ) from None
    return results


def _answers(address: str) -> None:
    # Ray itself would knock at a closed door for two minutes, and then end the process.
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as problem:
            raise _no_cluster(address, problem) from None


def _no_cluster(address: str | None, problem: Exception) -> ConfigError:
    return ConfigError(
        f"no Ray cluster at {address or 'this machine'}: {_first_line(problem)}",
        hint="start one with `ray start --head`; its address is HOST:6379, or auto on a machine of the cluster",
    )


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


_kept: tuple[str, Job] | None = None  # in a worker process: the job, and which one


def _results(
    held: list[Any], numbers: Sequence[int], device: str | None, driver: dict[str, str]
) -> list[tuple[int, Any]]:
    # `held` is a reference in a list: Ray would fetch a bare one for every task.
    global _kept
    import ray

    if (own := _versions()) != driver:
        name = next(name for name in PACKAGES if own.get(name) != driver.get(name))
        raise ConfigError(
            f"node {ray.util.get_node_ip_address()} has {name} {own.get(name)}, the driver {driver.get(name)}",
            hint="install the same versions on every node: other versions give other bytes",
        )
    key = held[0].hex()
    if _kept is None or _kept[0] != key:
        _kept = None  # gone before the next one comes
        try:
            job = ray.get(held[0])
        except (
            ray.exceptions.RaySystemError
        ) as problem:  # of what the model or data does when it is made again
            raise ConfigError(
                f"a worker cannot take over the model or data: {_first_line(problem)}",
                hint="files that it reads must be the same, and under the same paths, on every node",
            ) from None
        if device is not None:
            job.to(device)
        _kept = key, job
    return list(_kept[1].results(numbers))


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
