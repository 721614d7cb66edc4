"""Region features of images: a store of fixed-shape arrays, and the ways to fill it."""

from tiir.features.store import FeatureInfo, FeatureStore, FeatureWriter

__all__ = ["FeatureInfo", "FeatureStore", "FeatureWriter"]
