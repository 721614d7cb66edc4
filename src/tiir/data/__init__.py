"""Data sets: what they hold, where they come from, and the protocols they are evaluated by."""

from tiir.data.dataset import Dataset, Judgements
from tiir.data.positives import Positives
from tiir.data.protocols import PROTOCOLS, Gallery, default_protocol, resolve

__all__ = ["PROTOCOLS", "Dataset", "Gallery", "Judgements", "Positives", "default_protocol", "resolve"]
