"""The contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["contrastive_loss"]


def contrastive_loss(
    image_embeds: Tensor, text_embeds: Tensor, scale: Tensor | float, owner: Tensor
) -> Tensor:
    """Symmetric InfoNCE, the loss of CLIP (Radford et al. 2021, arXiv:2103.00020), with any number of captions.

    Each caption has to find its image among the images of the batch. Each image has to find each of its captions
    among the captions of the *other* images: its own are all true, so none is a negative of another.

    Args:
        image_embeds: (B, d), any length; normalised here. The images are different ones.
        text_embeds: (M, d).
        scale: inverse temperature.
        owner: (M,) the row of each caption's image.

    Returns:
        The mean over captions and both directions, a scalar.

    Example:
        >>> contrastive_loss(torch.eye(2), torch.eye(2)[[0, 0, 1]], 100.0, torch.tensor([0, 0, 1])).item() < 1e-6
        True
    """
    images, texts = F.normalize(image_embeds, dim=-1), F.normalize(text_embeds, dim=-1)
    logits = scale * texts @ images.T  # (M, B)
    itself = torch.arange(len(owner), device=owner.device)
    siblings = (owner[:, None] == owner[None, :]) & (itself[:, None] != itself[None, :])  # (M, M)
    found_by_image = logits.T[owner].masked_fill(
        siblings, float("-inf")
    )  # (M, M): each caption's image, all captions
    return (F.cross_entropy(logits, owner) + F.cross_entropy(found_by_image, itself)) / 2
