"""The losses of ATBA, of HAL and of the causal student. To add one, write it here and weight it in `config.Weights`.

Each is a mean over the ticks that exist, and 0 if there are none: the mean of an empty set is nan, and one such batch
would ruin the training. The number of these ticks comes with it: the processes of a training weigh their means by it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from edge_hal.model.latents import Mean, mean_of

CONTRAST_TEMPERATURE = 0.2
SMOOTH_LIMIT = 4.0
"""Truncation of the smoothing loss, in nats (MS-TCN, arXiv 1903.01945, section 3.3)."""


def video_loss(classes: Tensor, present: Tensor) -> Mean:
    """Which actions occur in the video: binary cross-entropy of class-token logits (B, K) with {0, 1} (B, K)."""
    return Mean(F.binary_cross_entropy_with_logits(classes, present), len(classes))


def frame_loss(logits: Tensor, labels: Tensor) -> Mean:
    """Cross-entropy of (B, T, K) with labels (B, T); -1 marks ticks that do not exist."""
    count = int((labels >= 0).sum())
    if not count:
        return Mean(logits.new_zeros(()), 0)
    return Mean(F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1), count)


def contrast_loss(tokens: Tensor, features: Tensor, labels: Tensor) -> Mean:
    """Global-local contrast (ATBA, CVPR 2024): the mean feature of an action should be nearest to its own class token,
    by cosine similarity over a temperature. Tokens get no gradient.

    Args:
        tokens: (B, K, w). features: (B, n, w). labels: (B, n), -1 for tokens that do not exist.
    """
    count = tokens.shape[1]
    chosen = F.one_hot(labels.clamp_min(0), count).to(features.dtype) * (labels >= 0).unsqueeze(-1)
    number = chosen.sum(1)  # (B, K)
    mean = torch.einsum("bnk,bnw->bkw", chosen, features) / number.clamp_min(1).unsqueeze(-1)
    unit, target = F.normalize(mean, dim=-1), F.normalize(tokens.detach(), dim=-1)
    similarity = torch.einsum("bkw,bjw->bkj", unit, target) / CONTRAST_TEMPERATURE
    loss = -torch.log_softmax(similarity, -1).diagonal(dim1=1, dim2=2)
    occurs = (number > 0).to(loss.dtype)
    return Mean(((loss * occurs).sum(1) / occurs.sum(1).clamp_min(1)).mean(), len(loss))


def distil_loss(logits: Tensor, teacher: Tensor, exists: Tensor) -> Mean:
    """KL(teacher || student) of logits (B, T, K) against log posteriors (B, T, K), over ticks that exist (B, T)."""
    divergence = (teacher.exp() * (teacher - torch.log_softmax(logits, -1))).sum(-1)
    return mean_of(divergence, exists)


def smooth_loss(logits: Tensor, exists: Tensor) -> Mean:
    """Truncated mean squared change of log posteriors from tick to tick (MS-TCN, eq. 9 and 10)."""
    log_p = torch.log_softmax(logits, -1)
    change = (log_p[:, 1:] - log_p[:, :-1].detach()).clamp(-SMOOTH_LIMIT, SMOOTH_LIMIT)
    return mean_of(change**2, exists[:, 1:])


def change_loss(logits: Tensor, target: Tensor, exists: Tensor) -> Mean:
    """Binary cross-entropy of logits (B, T) with target (B, T): 1 if there is a boundary within the last
    `change_window_s`."""
    return mean_of(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), exists)
