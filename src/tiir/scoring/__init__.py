"""From a model, or from other people's numbers, to a Run."""

from tiir.scoring.cascade import remix, rerank
from tiir.scoring.cross import score_cross
from tiir.scoring.dense import score_dual
from tiir.scoring.engines import open_engine
from tiir.scoring.foreign import import_embeddings, import_scores
from tiir.scoring.run import Run, RunInfo
from tiir.scoring.shards import Shards

__all__ = [
    "Run",
    "RunInfo",
    "Shards",
    "import_embeddings",
    "import_scores",
    "open_engine",
    "remix",
    "rerank",
    "score_cross",
    "score_dual",
]
