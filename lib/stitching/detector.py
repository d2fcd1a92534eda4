"""Detectors of out-of-distribution representations: classifiers of a layer's output, whose energy is the score.

Stitching paper, sections 4.2 and 4.3 of its code, after Liu et al., NeurIPS 2020: a classifier is trained on the layer's
output for labelled images, then fine-tuned such that its energy is below m_in for them and above m_out for outliers. The
network that puts out the representations is frozen, and one pass of it serves the classifiers of all layers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.randomness import stream
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.ood.layer_energies import energy
from lib.stitching.grid import activations_of
from lib.training.energy_loss import hinge
from lib.training.epoch_plan import epoch_order
from lib.training.losses import Draws, IndependentLosses

WEIGHTS = {"energy": 0.1, "OE": 0.5}  # of the terms, as published
MEASURES = ("loss", "ce", "correct", "energy_in", "energy_out")  # summed over the images of an epoch

Term = Callable[[Tensor, Tensor], Tensor]


class Classifiers(nn.Module):
    """A classifier per layer. They share no weights, so that training them together is training each alone."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.body = nn.ModuleList(networks)


def energy_term(inside: Tensor, outside: Tensor, m_in: float = -25.0, m_out: float = -7.0) -> Tensor:
    """0.1 (mean relu(E_in - m_in)^2 + mean relu(m_out - E_out)^2), E = -log sum exp of logits (b, k) and (c, k)."""
    return WEIGHTS["energy"] * hinge(energy(inside), energy(outside), m_in, m_out)


def uniform_term(inside: Tensor, outside: Tensor) -> Tensor:
    """0.5 mean(log sum_k exp z_k - mean_k z_k) of the outliers' logits (c, k): outlier exposure, without a margin."""
    return WEIGHTS["OE"] * (outside.logsumexp(1) - outside.mean(1)).mean()


@dataclass(frozen=True, kw_only=True)
class Outliers:
    """Batches of outliers, augmented as the data is; every image comes once before any comes again."""

    split: Split
    augment: Callable[[Tensor, torch.Generator], Tensor]
    seed: int
    batch_size: int

    def batch(self, step: int, like: Tensor, generator: torch.Generator) -> Tensor:
        """The outliers of a step, counted from 0: as many, of the same shape and on the same device as `like`."""
        rows = epoch_order(len(self.split), step + 1, stream(self.seed, "outliers"), self.batch_size)[: len(like)]
        images, _, _ = next(
            self.split.batches(len(rows), device=like.device, order=rows, channels=like.shape[1], size=like.shape[-1])
        )
        return self.augment(images, generator)


@dataclass(frozen=True)
class ClassifierLoss:
    """Cross-entropy of the classifier of each layer, and the term between its logits of the images and of the outliers.

    Batch normalisation sees images and outliers together, as published. `state` collects `MEASURES` and the steps done.
    """

    source: nn.Module
    layers: list[str]
    state: dict[str, Tensor]
    outliers: Outliers | None = None
    term: Term | None = None

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """The sum over the layers, and the logits of the images by the last layer's classifier; network: `Classifiers`."""
        n, state = len(images), self.state
        if self.outliers is not None:
            step = int(state.get("step", 0))
            state["step"] = torch.tensor(step + 1)
            images = torch.cat([images, self.outliers.batch(step, images, draws("augmentation of outliers"))])
        with torch.no_grad():
            activations = activations_of(self.source, self.layers, images)
        losses, measured = IndependentLosses(), []
        for layer, classifier in zip(self.layers, network.get_submodule("body").children(), strict=True):
            logits = classifier(activations[layer]).float()
            inside, outside = logits[:n], logits[n:]
            task = F.cross_entropy(inside, labels)
            value = task if self.term is None else task + self.term(inside, outside)
            losses.add(value, list(classifier.parameters()))
            measured.append(_measure(value, task, inside, outside, labels))
        self.state["sums"] = self.state.get("sums", 0) + torch.stack(measured) * n
        self.state["images"] = self.state.get("images", 0) + torch.tensor(n)
        return losses.total(), inside.detach()


@torch.no_grad()
def _measure(value: Tensor, task: Tensor, inside: Tensor, outside: Tensor, labels: Tensor) -> Tensor:
    none = value.new_full((), float("nan"))
    energies = [energy(logits).mean() if len(logits) else none for logits in (inside, outside)]
    return torch.stack([value, task, (inside.argmax(1) == labels).float().mean(), *energies]).double()


def finish_epoch(state: dict[str, Tensor]) -> list[dict[str, float | None]]:
    """The means of `MEASURES` over the images of an epoch, layer by layer; the next epoch's begin anew."""
    sums, images = state.pop("sums"), state.pop("images")
    return [
        {name: None if math.isnan(value) else value for name, value in zip(MEASURES, values, strict=True)}
        for values in (sums / images).tolist()
    ]


@torch.no_grad()
def validate(source: nn.Module, layers: list[str], network: Classifiers, split: Split, batching: Batching) -> list[dict]:
    """val_loss (cross-entropy), val_accuracy and val_energy (its mean) of every layer's classifier, in eval mode."""
    network.eval()
    sums = torch.zeros(len(layers), 3, dtype=torch.float64, device=batching.device)
    for images, labels in batching.over(split, "validating"):
        activations = activations_of(source, layers, images)
        for number, (layer, classifier) in enumerate(zip(layers, network.body, strict=True)):
            logits = classifier(activations[layer]).float()
            sums[number] += torch.stack(
                [F.cross_entropy(logits, labels, reduction="sum"), (logits.argmax(1) == labels).sum(), energy(logits).sum()]
            )
    return [
        dict(zip(("val_loss", "val_accuracy", "val_energy"), values, strict=True)) for values in (sums / len(split)).tolist()
    ]
