"""How much of a picture there is in a word: learnt from the data set, not from a list.

Hessel, Mimno and Lee, "Quantifying the visual concreteness of words and topics in multimodal datasets" (NAACL 2018):
a word is concrete when images whose captions use it look alike.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sparse

from tiir.analysis.words import Words
from tiir.scoring.run import Run

__all__ = ["concreteness", "image_vectors"]

NEIGHBOURS = 50
ENOUGH = 5
"""Images that must use a word for a value: of fewer it would be a guess."""
PRIOR = 20
"""Images' worth of chance that a word starts with: a word with few images must say much to be concrete."""
COLUMNS = 2_000  # captions whose scores describe an image, where a Run has no embeddings
BLOCK = 1024


def image_vectors(run: Run) -> npt.NDArray[np.float32]:
    """A vector an image, (n_images, n_dims), of unit length: the Run's embedding, or its scores with some captions.

    The scores are those with 2,000 captions at even distances, less each caption's mean. Of a cascade, the first
    stage's.
    """
    if run.image_embeds is not None:
        vectors = np.asarray(run.image_embeds, np.float32)
    else:
        assert run.scores is not None
        n = run.scores.shape[1]
        picked = np.unique(np.linspace(0, n - 1, min(n, COLUMNS)).astype(np.int64))
        vectors = np.asarray(run.scores[:, picked], np.float32)
        vectors = vectors - vectors.mean(0)
    unit: npt.NDArray[np.float32] = vectors / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12
    )
    return unit


def concreteness(words: Words, vectors: npt.NDArray[np.float32]) -> pd.DataFrame:
    """How much likelier a word is with the images around one that has it than with any.

    Args:
        words: of the data set.
        vectors: of its images, (n_images, n_dims), unit length.

    Returns:
        A row a word that is used with at least five images: word, images (how many), concreteness (1: no more
        than by chance; drawn towards 1, the more the fewer images there are), most concrete first.

    Example:
        >>> texts = ["a dog dreams"] * 5 + ["a dog"] * 5 + ["a cat dreams"] * 5 + ["a cat"] * 5
        >>> vectors = np.repeat(np.eye(2, dtype=np.float32), 10, axis=0)  # ten images alike, and ten others
        >>> concreteness(Words(texts, np.arange(20), 20), vectors).round(1).set_index("word")["concreteness"]["cat"]
        np.float64(1.4)
    """
    n = len(vectors)
    k = max(1, min(NEIGHBOURS, n // 10)) if n > 1 else 0
    near = np.empty((n, k), np.int64)
    for start in range(0, n, BLOCK):
        alike = vectors[start : start + BLOCK] @ vectors.T
        alike[np.arange(len(alike)), start + np.arange(len(alike))] = -np.inf
        near[start : start + BLOCK] = (
            np.argpartition(-alike, k - 1, axis=1)[:, :k] if k else near[start : start + BLOCK]
        )
    graph = sparse.csr_matrix(
        (np.full(n * k, 1 / max(k, 1), np.float32), near.ravel(), np.arange(n + 1) * k), shape=(n, n)
    )
    uses = (words.by_image > 0).astype(np.float32)
    there = np.asarray(uses.multiply(graph @ uses).sum(0)).ravel()
    known = np.flatnonzero(words.image_frequency >= ENOUGH)
    images = words.image_frequency[known]
    values = (there[known] / images) / ((images - 1) / (n - 1)) if len(known) else np.empty(0)
    values = (images * values + PRIOR) / (images + PRIOR)
    table = pd.DataFrame(
        {"word": [words.vocabulary[w] for w in known], "images": images, "concreteness": values}
    )
    return table.sort_values(["concreteness", "word"], ascending=[False, True], ignore_index=True)
