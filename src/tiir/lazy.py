"""Names of a package that are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

__all__ = ["lazy"]


def lazy(
    package: str, names: Mapping[str, Sequence[str]], packages: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__` (PEP 562): what is heavy costs nothing before it is used, and is completed.

    Args:
        package: its name.
        names: by module, what is taken from it.
        packages: its own packages that are found as attributes.

    Returns:
        Both functions, in this order.

    Example:
        >>> getter, listed = lazy("tiir", {"tiir.scoring.run": ["Run"]}, ["errors"])
        >>> getter("Run").__name__, getter("errors").__name__
        ('Run', 'tiir.errors')
        >>> getter("Rum")
        Traceback (most recent call last):
        ...
        AttributeError: module 'tiir' has no attribute 'Rum'
    """
    homes = {name: module for module, exported in names.items() for name in exported}

    def getter(name: str) -> Any:
        if name in homes:
            return getattr(import_module(homes[name]), name)
        if name in packages:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listed() -> list[str]:
        own = (name for name in vars(import_module(package)) if name.startswith("__"))
        return sorted({*own, *homes, *packages})

    return getter, listed
