"""Published numbers of known models, and a warning where a run lands far from them.

Sources: open_clip `docs/openclip_retrieval_results.csv` (COCO 5K); the README of eccv_caption (CLIP ViT-L/14 on
COCO 1K five folds, CxC and ECCV Caption). Zero-shot, in percent.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiir.metrics.recall import RSUM

__all__ = ["PUBLISHED", "TOLERANCE", "check", "published"]

TOLERANCE = 1.5  # points; tools differ among themselves by about 0.2


def _recalls(*values: float) -> dict[str, float]:
    return dict(zip(RSUM, values, strict=True))


PUBLISHED: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("openai/clip-vit-base-patch32", "coco-5k"): _recalls(50.12, 75.00, 83.52, 30.44, 55.94, 66.87),
    ("openai/clip-vit-base-patch16", "coco-5k"): _recalls(52.42, 76.70, 84.62, 33.09, 58.42, 68.99),
    ("openai/clip-vit-large-patch14", "coco-5k"): _recalls(56.34, 79.38, 86.60, 36.51, 61.06, 71.13),
    ("openai/clip-vit-large-patch14-336", "coco-5k"): _recalls(57.94, 81.20, 87.92, 37.09, 61.62, 71.47),
    ("google/siglip-so400m-patch14-384", "coco-5k"): _recalls(72.42, 89.98, 94.48, 54.21, 76.78, 84.24),
    ("openai/clip-vit-large-patch14", "coco-1k-5fold"): _recalls(74.3, 92.8, 96.6, 55.4, 82.3, 90.2),
    ("openai/clip-vit-large-patch14", "cxc"): {"i2t_R@1": 58.0, "t2i_R@1": 38.3},
    ("openai/clip-vit-large-patch14", "eccv"): {
        "i2t_mAP@R": 24.0,
        "t2i_mAP@R": 32.0,
        "i2t_R-Precision": 33.8,
        "t2i_R-Precision": 41.8,
        "i2t_R@1": 71.3,
        "t2i_R@1": 73.0,
    },
}

CAUSES = (
    "usual causes: pixels that are not 0-255 uint8 RGB (floats turn into negatives, BGR swaps colours); "
    "another resize or crop; another tokeniser, padding or lower-casing; a prompt in front of the captions; "
    "half precision; another 1K; captions cut to five an image"
)


def published(model: str, protocol: str) -> Mapping[str, float]:
    """The published values of a hub id under a protocol; empty where none are known.

    Example:
        >>> published("openai/clip-vit-base-patch32", "coco-5k")["t2i_R@1"]
        30.44
    """
    return PUBLISHED.get((model.strip().rstrip("/").lower(), protocol), {})


def check(model: str, protocol: str, values: Mapping[str, float]) -> list[str]:
    """Warnings about values more than 1.5 points from the model's published ones.

    Args:
        model: hub id.
        protocol: the protocol the values were computed with.
        values: in percent, by name ("i2t_R@1").

    Example:
        >>> known = published("openai/clip-vit-base-patch32", "coco-5k")
        >>> check("openai/clip-vit-base-patch32", "coco-5k", known)
        []
        >>> negatives = dict(known) | {"i2t_R@1": 13.7}
        >>> check("openai/clip-vit-base-patch32", "coco-5k", negatives)[0][:78]
        'openai/clip-vit-base-patch32 on coco-5k: i2t_R@1 is 13.70, published 50.12 (-3'
    """
    known = published(model, protocol)
    far = [
        f"{name} is {values[name]:.2f}, published {number:.2f} ({values[name] - number:+.2f})"
        for name, number in known.items()
        if name in values and abs(values[name] - number) > TOLERANCE
    ]
    return [f"{model} on {protocol}: {'; '.join(far)}. {CAUSES}"] if far else []
