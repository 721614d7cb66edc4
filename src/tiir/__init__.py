"""tiir: text-image retrieval, from photos and captions to a recall number that can be trusted."""

__version__ = "0.1.0"
