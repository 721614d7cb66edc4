"""The contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["contrastive_loss"]


def contrastive_loss(
    image_embeds: Tensor, text_embeds: Tensor, scale: Tensor | float, image: Tensor
) -> Tensor:
    """Symmetric InfoNCE of a batch of pairs, the loss of CLIP (Radford et al. 2021, arXiv:2103.00020).

    Pairs of the same image are not each other's negatives: two captions of one picture both describe it.

    Args:
        image_embeds: (B, d), any length; normalised here.
        text_embeds: (B, d); row i is the caption of row i's image.
        scale: inverse temperature.
        image: (B,) which image each pair is of.

    Returns:
        The mean over both directions, a scalar.

    Example:
        >>> contrastive_loss(torch.eye(2), torch.eye(2), 100.0, torch.tensor([0, 1])).item() < 1e-6
        True
    """
    images, texts = F.normalize(image_embeds, dim=-1), F.normalize(text_embeds, dim=-1)
    logits = scale * images @ texts.T  # (B, B)
    target = torch.arange(len(logits), device=logits.device)
    also_true = (image[:, None] == image[None, :]) & (target[:, None] != target[None, :])
    logits = logits.masked_fill(also_true, float("-inf"))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
