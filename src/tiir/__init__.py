"""tiir: text-image retrieval, from photos and captions to a recall number that can be trusted."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiir.data.dataset import Dataset
    from tiir.features.store import FeatureStore
    from tiir.metrics.evaluate import evaluate
    from tiir.models import load
    from tiir.scoring.cascade import rerank
    from tiir.scoring.cross import score_cross
    from tiir.scoring.dense import score_dual
    from tiir.scoring.run import Run

__version__ = "0.1.0"
__all__ = [
    "Dataset",
    "FeatureStore",
    "Run",
    "__version__",
    "evaluate",
    "load",
    "rerank",
    "score_cross",
    "score_dual",
]

_HOME = {
    "Dataset": "tiir.data.dataset",
    "FeatureStore": "tiir.features.store",
    "Run": "tiir.scoring.run",
    "evaluate": "tiir.metrics.evaluate",
    "load": "tiir.models",
    "rerank": "tiir.scoring.cascade",
    "score_cross": "tiir.scoring.cross",
    "score_dual": "tiir.scoring.dense",
}


def __getattr__(name: str) -> Any:
    # Found when asked for, so that `import tiir` and `tiir --help` start at once.
    if name not in _HOME:
        raise AttributeError(f"module 'tiir' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
