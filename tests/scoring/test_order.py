from __future__ import annotations

import numpy as np

from tiir.scoring.order import best
from tiir.scoring.pairs import Matrix
from tiir.scoring.shortlist import Listed


def test_scores_moved_below_a_shortlist_stay_apart() -> None:
    # 1e-5 and 2e-5 are the same once float32 takes 1e4 from them.
    scores = Matrix(np.array([[5.0, 1e4, 2e-5, 1e-5]], np.float32))
    listed = Listed(np.array([0]), np.array([0]), np.array([-3.0]))
    ((found, moved),) = best(scores, np.array([0]), 4, listed=listed)
    assert found.tolist() == [0, 1, 2, 3]
    assert (np.diff(moved) < 0).all()
