"""Where data sets come from: each module has one function, `prepare(...) -> Dataset`."""

from tiir.lazy import lazy

__all__ = ["flickr8k", "folder", "karpathy", "oscar", "scenes"]

__getattr__, __dir__ = lazy(__name__, {}, __all__)
