"""Where the pieces of a job are computed: this process and its workers, torchrun's processes, a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tiir.engine import Engine
from tiir.errors import ConfigError

__all__ = ["ENGINES", "open_engine"]

ENGINES = ("local", "torchrun", "ray")


@contextmanager
def open_engine(
    name: str | None = None, *, workers: int | None = None, address: str | None = None
) -> Iterator[Engine]:
    """An engine, for as long as the block lasts.

    Args:
        name: "local", "torchrun" or "ray"; where None, torchrun if it started this process, else local.
        workers: local: processes (1: this one); ray: pieces at the same time, by default as many as there are cores
            (GPUs, for a model on GPUs).
        address: of a running Ray cluster, such as "auto" or "10.0.0.1:6379"; where None, Ray starts on this machine.

    Raises:
        ConfigError: options that do not belong together, no Ray cluster at `address`.
        MissingExtraError: Ray is not installed.

    Example:
        >>> with open_engine("local") as engine:
        ...     engine.name, engine.workers
        ('local', 1)
    """
    from tiir.scoring.engines.torchrun import TorchrunEngine, launched, started_by_torchrun

    under_torchrun = started_by_torchrun()
    name = name or ("torchrun" if under_torchrun else "local")
    if name not in ENGINES:
        raise ConfigError(f"no engine {name!r}", hint=f"one of: {', '.join(ENGINES)}")
    if under_torchrun and name != "torchrun":
        raise ConfigError(f"engine {name} in a process of torchrun", hint="leave --engine or torchrun out")
    if address is not None and name != "ray":
        raise ConfigError(f"address {address} does nothing with engine {name}", hint="--engine ray")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers {workers}", hint="it must be at least 1")
    if name == "torchrun" and launched() and not under_torchrun and workers is None:
        yield Engine()  # of one process: nobody to share with
    elif name == "torchrun":
        if not under_torchrun:
            raise ConfigError(
                "engine torchrun, but torchrun did not start this process",
                hint="torchrun --nproc-per-node=2 -m tiir ...",
            )
        if workers is not None:
            raise ConfigError(f"workers {workers} with torchrun", hint="its --nproc-per-node says how many")
        with TorchrunEngine.joined() as team:
            yield team
    elif name == "ray":
        from tiir.scoring.engines.ray import RayEngine

        with RayEngine.connected(address, workers) as cluster:
            yield cluster
    elif workers is None or workers == 1:
        yield Engine()
    else:
        from tiir.scoring.engines.local import LocalEngine

        yield LocalEngine(workers)
