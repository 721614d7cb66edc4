"""Where data sets come from: each module has one function, `prepare(...) -> Dataset`."""

__all__ = ["flickr8k", "folder", "karpathy", "oscar", "scenes"]
