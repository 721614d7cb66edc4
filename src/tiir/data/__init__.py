"""Data sets: what they hold, where they come from, and the protocols they are evaluated by."""

from tiir.data import sources
from tiir.data.build import CaptionRecord, ImageRecord, JudgementRecord, build_dataset
from tiir.data.dataset import Dataset, Judgements
from tiir.data.images import open_image, to_rgb
from tiir.data.judgements import Judged, read_judgements
from tiir.data.positives import Positives
from tiir.data.protocols import PROTOCOLS, Gallery, default_protocol, resolve

__all__ = [
    "PROTOCOLS",
    "CaptionRecord",
    "Dataset",
    "Gallery",
    "ImageRecord",
    "Judged",
    "JudgementRecord",
    "Judgements",
    "Positives",
    "build_dataset",
    "default_protocol",
    "open_image",
    "read_judgements",
    "resolve",
    "sources",
    "to_rgb",
]
