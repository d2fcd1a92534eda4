"""How well logits agree with labels.

Logits are (n, k) tensors, labels (n,) with -1 for unlabelled images, which no measure counts. Accuracies are fractions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def top_k_correct(logits: Tensor, labels: Tensor, k: int) -> int:
    """The number of images whose label is among the k largest logits."""
    return int((logits.topk(k, 1).indices == labels[:, None]).any(1).sum())


def accuracy(logits: Tensor, labels: Tensor) -> float | None:
    """The fraction of correct predictions, in [0, 1]; None without labelled images."""
    labelled = labels >= 0
    if not labelled.any():
        return None
    return (logits[labelled].argmax(1) == labels[labelled]).double().mean().item()


def standard_error(accuracy: float | None, n: int) -> float | None:
    """Binomial standard error of an accuracy over n images."""
    return None if accuracy is None or n == 0 else math.sqrt(accuracy * (1 - accuracy) / n)


def cross_entropy(logits: Tensor, labels: Tensor) -> float | None:
    """Mean negative log-likelihood, in nats, lower is better; None without labelled images."""
    labelled = labels >= 0
    return F.cross_entropy(logits[labelled].double(), labels[labelled]).item() if labelled.any() else None


def calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float | None:
    """Expected calibration error, in [0, 1], lower is better (Guo et al. 2017, eq. 3; 15 equal bins of confidence).

    The mean over images of |accuracy - confidence| of the image's bin, confidence being the largest probability.
    """
    labelled = labels >= 0
    if not labelled.any():
        return None
    confidence, predicted = logits[labelled].double().softmax(1).max(1)
    correct = (predicted == labels[labelled]).double()
    # bins are open on the left, as in the paper: a confidence of exactly 1/15 is in the first
    which = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, which, correct - confidence)
    return gaps.abs().sum().item() / len(correct)


def confusion(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts (classes, k): row = true class, column = prediction."""
    labelled = labels >= 0
    k = logits.shape[1]
    pairs = labels[labelled] * k + logits[labelled].argmax(1)
    return torch.bincount(pairs, minlength=classes * k).view(classes, k)
