"""The losses of retrieval, on scores: matched or not, a margin, and the contrastive ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["binary_loss", "contrastive_loss", "hinge_loss", "infonce_loss"]


def binary_loss(scores: Tensor, matched: Tensor) -> Tensor:
    """Cross entropy of matched or not, the objective of LXMERT's fine-tuning.

    Args:
        scores: (P,) matching scores of pairs, logits.
        matched: (P,) 1 for true pairs, 0 for negatives.

    Returns:
        The mean over pairs, a scalar.

    Example:
        >>> binary_loss(torch.tensor([20.0, -20.0]), torch.tensor([1, 0])).item() < 1e-6
        True
    """
    scores = _precise(scores)
    return F.binary_cross_entropy_with_logits(scores, matched.to(scores))


def hinge_loss(
    scores: Tensor, owner: Tensor, *, margin: float = 0.2, top: int | None = None, true: Tensor | None = None
) -> Tensor:
    """A true pair must beat every negative by a margin; with `top`, only the worst violations count.

    VSE++ (Faghri et al. 2018, arXiv:1707.05612) is `top=1`, its predecessors `top=None`. Each caption has to beat its
    violations among the images and, for its image, among the captions of the other images.

    Args:
        scores: (B, M) every image of the batch against every caption.
        owner: (M,) the row of each caption's image.
        margin: what a true pair must be better by.
        top: sum the greatest `top` violations of each caption and direction; all if None.
        true: (B, M) bool, further pairs that are true, and so no negatives.

    Returns:
        The mean over captions and both directions, a scalar.

    Example:
        >>> scores = torch.tensor([[1.0, 0.5], [0.9, 1.0]])
        >>> round(hinge_loss(scores, torch.arange(2), margin=0.2).item(), 3)        # only 0.9 is too close
        0.05
    """
    scores = _precise(scores)
    by_caption, by_image = _rivals(scores, owner, true)  # (M, B), (M, M)
    own = scores[owner, torch.arange(len(owner), device=owner.device)][:, None]  # (M, 1)
    total = scores.new_zeros(())
    for rivals in (by_caption, by_image):
        violations = (margin + rivals - own).clamp(min=0)  # -inf, no negative, gives 0
        if top is not None and top < violations.shape[1]:
            violations = violations.topk(top, dim=1).values
        total = total + violations.sum(1).mean() / 2
    return total


def infonce_loss(
    scores: Tensor, owner: Tensor, *, scale: Tensor | float = 1.0, true: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE over a block of scores, with any number of captions an image.

    Each caption has to find its image among the images of the batch. Each image has to find each of its captions
    among the captions of the *other* images: its own are all true, so none is a negative of another.

    Args:
        scores: (B, M) every image of the batch against every caption.
        owner: (M,) the row of each caption's image.
        scale: inverse temperature.
        true: (B, M) bool, further pairs that are true, and so no negatives.

    Returns:
        The mean over captions and both directions, a scalar.

    Example:
        >>> infonce_loss(torch.eye(2), torch.arange(2), scale=100.0).item() < 1e-6
        True
    """
    logits = scale * _precise(scores)
    by_caption, by_image = _rivals(logits, owner, true)  # (M, B), (M, M)
    own = logits[owner, torch.arange(len(owner), device=owner.device)][:, None]  # (M, 1)
    first = torch.zeros_like(owner)
    found = [F.cross_entropy(torch.cat([own, rivals], 1), first) for rivals in (by_caption, by_image)]
    return (found[0] + found[1]) / 2


def contrastive_loss(
    image_embeds: Tensor, text_embeds: Tensor, scale: Tensor | float, owner: Tensor
) -> Tensor:
    """InfoNCE of cosines, the loss of CLIP (Radford et al. 2021, arXiv:2103.00020), with any number of captions.

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
    return infonce_loss(images @ texts.T, owner, scale=scale)


def _rivals(scores: Tensor, owner: Tensor, true: Tensor | None) -> tuple[Tensor, Tensor]:
    # For each caption: its scores with the images, its image's scores with the captions; -inf where no negative.
    B, _ = scores.shape
    positive = torch.arange(B, device=owner.device)[:, None] == owner[None, :]  # (B, M)
    if true is not None:
        positive = positive | true
    masked = scores.masked_fill(positive, float("-inf"))
    return masked.T, masked[owner]  # (M, B), (M, M)


def _precise(scores: Tensor) -> Tensor:
    # Sums of exponentials want more than the precision of an autocast matrix product.
    return scores if scores.dtype == torch.float64 else scores.float()
