"""tiir: text-image retrieval, from photos and captions to a recall number that can be trusted.

Example:
    >>> import numpy as np
    >>> import tiir
    >>> data = tiir.Dataset("pets", "test", ["a", "b"], ["k", "l", "m"], ["a cat", "a dog", "dogs"], np.array([0, 1, 1]))
    >>> about = tiir.scoring.RunInfo.about(data, "pets", "by hand")
    >>> run = tiir.Run(about, scores=np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.3]], np.float32))
    >>> tiir.evaluate(run, data)
    Evaluation(by hand on pets/test, own: i2t R@1 100.00, t2i R@1 66.67, rsum 566.67)
    >>> tiir.query_table(run, data).query("rank > 1")[["direction", "text", "rank"]].values.tolist()
    [['t2i', 'dogs', 2]]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiir.lazy import lazy

if TYPE_CHECKING:
    from tiir import analysis, data, errors, features, metrics, models, recipes, report, scoring, train
    from tiir.analysis.compare import compare
    from tiir.analysis.diagnose import diagnose
    from tiir.analysis.queries import query_table
    from tiir.data.dataset import Dataset
    from tiir.errors import TiirError
    from tiir.features.store import FeatureStore
    from tiir.metrics.evaluate import Evaluation, evaluate
    from tiir.metrics.ranking import rank_embeddings, rank_scores
    from tiir.metrics.recall import recall
    from tiir.models import load
    from tiir.report.build import build_site
    from tiir.scoring.cascade import rerank
    from tiir.scoring.cross import score_cross
    from tiir.scoring.dense import score_dual
    from tiir.scoring.foreign import import_embeddings, import_scores
    from tiir.scoring.run import Run

__version__ = "0.1.0"
__all__ = [
    "Dataset",
    "Evaluation",
    "FeatureStore",
    "Run",
    "TiirError",
    "__version__",
    "analysis",
    "build_site",
    "compare",
    "data",
    "diagnose",
    "errors",
    "evaluate",
    "features",
    "import_embeddings",
    "import_scores",
    "load",
    "metrics",
    "models",
    "query_table",
    "rank_embeddings",
    "rank_scores",
    "recall",
    "recipes",
    "report",
    "rerank",
    "score_cross",
    "score_dual",
    "scoring",
    "train",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "tiir.analysis.compare": ["compare"],
        "tiir.analysis.diagnose": ["diagnose"],
        "tiir.analysis.queries": ["query_table"],
        "tiir.data.dataset": ["Dataset"],
        "tiir.errors": ["TiirError"],
        "tiir.features.store": ["FeatureStore"],
        "tiir.metrics.evaluate": ["Evaluation", "evaluate"],
        "tiir.metrics.ranking": ["rank_embeddings", "rank_scores"],
        "tiir.metrics.recall": ["recall"],
        "tiir.models": ["load"],
        "tiir.report.build": ["build_site"],
        "tiir.scoring.cascade": ["rerank"],
        "tiir.scoring.cross": ["score_cross"],
        "tiir.scoring.dense": ["score_dual"],
        "tiir.scoring.foreign": ["import_embeddings", "import_scores"],
        "tiir.scoring.run": ["Run"],
    },
    ["analysis", "data", "errors", "features", "metrics", "models", "recipes", "report", "scoring", "train"],
)
