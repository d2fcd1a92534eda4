"""Energies of a network's own representations and of stitched ones, under the detectors of its layers.

Stitching paper, section 4.4 of its code: the energy is E = -log sum exp of the detector's logits, higher for what is less
like the layer's own representations of in-distribution images.
"""

import numpy as np
import torch
from torch import nn

from lib.core.devices import arithmetic
from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.ood.layer_energies import energy
from lib.stitching.grid import Donors, GridStitch, activations_of

Detectors = dict[str, nn.Module]  # by layer, in eval mode


@torch.no_grad()
def native_energies(network: nn.Module, detectors: Detectors, split: Split, batching: Batching) -> dict[str, np.ndarray]:
    """The energies (n,) of the network's own representations of a split, at every layer with a detector."""
    if not detectors:
        return {}
    parts = {layer: [] for layer in detectors}
    for images, _ in batching.over(split, split.name):
        with arithmetic(batching.precision, batching.device):
            activations = activations_of(network, list(detectors), images)
            for layer, detector in detectors.items():
                parts[layer].append(energy(detector(activations[layer]))[:, 0])
    return {layer: _numbers(parts[layer], f"the representations of {split.name} at {layer}") for layer in detectors}


@torch.no_grad()
def stitched_energies(
    donors: Donors, entries: list[GridStitch], detectors: Detectors, split: Split, batching: Batching
) -> tuple[list[float | None], list[np.ndarray | None]]:
    """Of every stitched network the accuracy on a split and the energies (n,) of the stitched representations.

    One pass of the front network. The energies are None where the end layer has no detector, the accuracies where no image
    is labelled.
    """
    correct = torch.zeros(len(entries), dtype=torch.float64, device=batching.device)
    parts = [[] for _ in entries]
    for entry in entries:
        entry.stitch.eval()
    for images, labels in batching.over(split, f"stitched, {split.name}"):
        with arithmetic(batching.precision, batching.device):
            sources = donors.sources(images, labels)
            for number, entry in enumerate(entries):
                logits, representation = donors.logits(entry, sources)
                correct[number] += (logits.argmax(1) == labels).sum()
                if entry.end in detectors:
                    parts[number].append(energy(detectors[entry.end](representation))[:, 0])
    labelled = int((split.labels >= 0).sum())
    accuracies = [count / labelled if labelled else None for count in correct.tolist()]
    return accuracies, [
        _numbers(batches, f"{entry.front} stitched into {entry.end}") if batches else None
        for batches, entry in zip(parts, entries, strict=True)
    ]


def _numbers(parts: list[torch.Tensor], what: str) -> np.ndarray:
    energies = torch.cat(parts).float().cpu().numpy()
    if not np.isfinite(energies).all():
        raise UserError(
            f"{what}: {int((~np.isfinite(energies)).sum())} of {len(energies)} energies are no numbers; the "
            "stitch or the detector has diverged"
        )
    return energies
