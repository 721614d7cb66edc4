"""Region features of images: a store of fixed-shape arrays, and the ways to fill it."""

from tiir.features.detected import Detections, Detector, detected_features
from tiir.features.grid import Backbone, grid_features
from tiir.features.info import FeatureInfo
from tiir.features.readers import convert
from tiir.features.scenes import scenes_features
from tiir.features.store import FeatureStore
from tiir.features.writer import FeatureWriter

__all__ = [
    "Backbone",
    "Detections",
    "Detector",
    "FeatureInfo",
    "FeatureStore",
    "FeatureWriter",
    "convert",
    "detected_features",
    "grid_features",
    "scenes_features",
]
