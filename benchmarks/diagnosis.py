"""How right the diagnosis is: tags against the known faults of Scenes, suspicion against people's judgements of Flickr8k.

    python benchmarks/diagnosis.py [--shared DIR] [--text-encoder DIR]

Scenes needs nothing. Flickr8k needs the real data (--shared, or TIIR_SHARED) with the run resnet50-minilm-ft.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import normalize

from measure import table
from tiir import models
from tiir.analysis.captions import caption_tags
from tiir.analysis.concreteness import concreteness, image_vectors
from tiir.analysis.missing import SUSPECT, judged_pairs
from tiir.analysis.similarity import CaptionFit
from tiir.analysis.typos import find_typos
from tiir.analysis.words import Words
from tiir.data.dataset import Dataset
from tiir.data.sources import flickr8k, scenes
from tiir.scoring.dense import score_dual
from tiir.scoring.foreign import import_embeddings

MODEL = Path(__file__).parent.parent / "src" / "tiir" / "assets" / "scenes-clip"


def scenes_tags() -> None:
    print("Scenes: tags against the known fault of each caption")
    rows = []
    model = models.load(str(MODEL), device="cpu")
    for split, seed in [("test", 0), ("test", 1), ("val", 0)]:
        with tempfile.TemporaryDirectory() as folder:
            data = scenes.prepare(Path(folder) / "data", split=split, seed=seed)
            run = score_dual(model, data, Path(folder) / "data", Path(folder) / "run")
            words = Words(data.captions, data.caption_image, data.n_images)
            tags = caption_tags(words, find_typos(words), concreteness(words, image_vectors(run)))
        faults = np.array(data.caption_columns["fault"])
        for tag in ("typo", "underspecified", "abstract"):
            told = np.isin(np.arange(data.n_captions), tags.loc[tags["tag"] == tag, "caption"])
            true = faults == tag
            right = (told & true).sum()
            rows.append(
                (f"{split}, seed {seed}: {tag}", f"{data.n_captions:,}", f"{right / max(told.sum(), 1):.3f}",
                 f"{right / true.sum():.3f}", true.sum(), told.sum())
            )  # fmt: skip
    table(["", "captions", "precision", "recall", "true", "told"], rows)


def flickr8k_suspicion(shared: Path, encoder: str | None) -> None:
    folder = shared / "flickr8k"
    data = flickr8k.prepare(folder, images=None, split="test")
    source = shared / "runs" / "resnet50-minilm-ft"
    with tempfile.TemporaryDirectory() as out:
        run = import_embeddings(
            source / "image_embeds.npy",
            source / "text_embeds.npy",
            data,
            folder,
            Path(out) / "run",
            name=source.name,
        )
    words = Words(data.captions, data.caption_image, data.n_images)
    judged = judged_of(data)
    tfidf = TfidfVectorizer(sublinear_tf=True).fit_transform(data.captions)
    scorers = {
        "best TF-IDF cosine": lambda i, c: best_cosine(data, tfidf.toarray(), i, c),
        "score of the Run": lambda i, c: np.einsum("nd,nd->n", run.image_embeds[i], run.text_embeds[c]),
        "suspicion (embedded default)": CaptionFit(words),
        "suspicion (Run's text vectors)": CaptionFit(words, run.text_embeds),
    }
    if encoder:
        from tiir.models.sentence import SentenceEncoder

        vectors = SentenceEncoder(encoder).encode(data.captions)
        scorers["best encoder cosine"] = lambda i, c: best_cosine(data, vectors, i, c)
        scorers["suspicion (encoder)"] = CaptionFit(words, vectors)
    print("Flickr8k test: suspicion against people's judgements (AUC, 95% bootstrap over images)")
    rows = []
    for name, scorer in scorers.items():
        cells = []
        for images, captions, right in judged.values():
            values = np.asarray(scorer(images, captions))
            low, high = interval(images, values, right)
            cells.append(f"{roc_auc_score(right, values):.4f} ({low:.3f} to {high:.3f})")
        rows.append((name, *cells))
    table(["", "experts", "crowd"], rows)
    images, captions, right = judged["expert"]
    for name in ("suspicion (embedded default)", "suspicion (encoder)"):
        if name in scorers:
            told = np.asarray(scorers[name](images, captions)) >= SUSPECT
            precision, found = right[told].mean(), told[right].mean()
            print(
                f"  {name} at {SUSPECT}: precision {precision:.3f}, recall {found:.3f} of experts' positives"
            )


def judged_of(data: Dataset) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    # `judged_pairs` gives the experts' word where both judged; here each source stands for itself.
    made = {}
    assert data.judgements is not None
    for source in ("expert", "crowd"):
        here = np.array([name == source for name in data.judgements.source])
        here &= data.caption_image[data.judgements.caption] != data.judgements.image
        grade = data.judgements.grade[here]
        right = grade >= 3 if source == "expert" else grade > 0.5
        made[source] = data.judgements.image[here], data.judgements.caption[here], right
    assert len(judged_pairs(data)) <= sum(len(right) for _, _, right in made.values())
    return made


def best_cosine(data: Dataset, vectors: np.ndarray, images: np.ndarray, captions: np.ndarray) -> np.ndarray:
    unit = normalize(vectors)
    own = np.stack([data.captions_of(n) for n in range(data.n_images)])
    return np.max(
        [np.einsum("nd,nd->n", unit[captions], unit[own[images, k]]) for k in range(own.shape[1])], axis=0
    )


def interval(images: np.ndarray, values: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    rng, rows = np.random.default_rng(0), {n: np.flatnonzero(images == n) for n in np.unique(images)}
    names, drawn = np.array(list(rows)), []
    for _ in range(200):
        picked = np.concatenate([rows[n] for n in rng.choice(names, len(names))])
        drawn.append(roc_auc_score(right[picked], values[picked]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=os.environ.get("TIIR_SHARED"), help="the real data")
    parser.add_argument("--text-encoder", help="directory of a sentence encoder")
    options = parser.parse_args()
    scenes_tags()
    if options.shared:
        flickr8k_suspicion(Path(options.shared), options.text_encoder)
    else:
        print("Flickr8k: no real data (--shared)")
