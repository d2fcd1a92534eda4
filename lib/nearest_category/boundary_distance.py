"""Distance to the decision boundary, beside the distance of OOD images to the training set.

The paper does not measure at the images themselves but at the training examples nearest to them, as far as the network
classifies these correctly (nearest-category paper, section 2); the extension measures at the images (section 6.4).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lib.attacks import minimum_norm
from lib.attacks.pgd import attacked
from lib.core.distributed import ALONE, Processes
from lib.core.errors import UserError
from lib.core.progress import image_bar
from lib.core.randomness import generator
from lib.datasets.split import as_floats
from lib.metrics.kaplan_meier import restricted_mean
from lib.nearest_category.neighbors import Nearest

SEGMENT_POINTS = 32


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """At how many points at most the distance is measured, drawn with which seed; steps of the attack (DDN).

    `processes` share the points.
    """

    count: int
    seed: int
    steps: int
    batch_size: int
    quiet: bool = False
    processes: Processes = ALONE


def at_training_examples(
    network: nn.Module, images: Tensor, labels: Tensor, nearest: Nearest, distances: np.ndarray, sampling: Sampling
) -> tuple[dict, dict]:
    """(row, arrays) of the paper's protocol: a sample of the training examples that are somebody's neighbour.

    images (m, c, h, w), uint8 or stored features, and labels (m,), in the network's numbers, of the training set; nearest
    and distances (n,) of the images from elsewhere, which belong to the example that is their neighbour.
    """
    candidates = nearest.indices.unique()
    answers = _answers(network, images[candidates], sampling.batch_size)
    candidates = candidates[answers == labels[candidates]]
    chosen = _sample(candidates, sampling)
    row, arrays = _measure(network, images[chosen], labels[chosen], sampling)
    arrays["indices"] = chosen.numpy()
    number_of = torch.full((len(images),), -1)  # of a training example in the sample; -1 for the others
    number_of[chosen] = torch.arange(len(chosen))
    belongs = number_of[nearest.indices].numpy()
    attached = belongs >= 0
    covered = distances[attached] < arrays["radius"][belongs[attached]] if len(chosen) else np.zeros(0, bool)
    return {
        **row,
        "n_candidates": len(candidates),
        "n_attached": int(attached.sum()),
        "mean_distance": _mean(distances[attached]),
        "covered": _mean(covered),
    }, arrays


def at_images(
    network: nn.Module, images: Tensor, neighbours: Tensor, distances: np.ndarray, sampling: Sampling
) -> tuple[dict, dict]:
    """(row, arrays) at images from elsewhere: does the answer carry over from an image to its nearest training example?

    images, neighbours (n, c, h, w), uint8 or stored features. covered: the share of images whose neighbour is nearer than
    the boundary; segment_unchanged: of those without another answer on the segment to the neighbour, at 32 points.
    """
    chosen = _sample(torch.arange(len(images)), sampling)
    answers = _answers(network, images[chosen], sampling.batch_size)
    row, arrays = _measure(network, images[chosen], answers, sampling)
    arrays["indices"] = chosen.numpy()
    unchanged = _segments(network, images[chosen], neighbours[chosen], answers, sampling.batch_size)
    distances = distances[chosen.numpy()]
    return {
        **row,
        "n_candidates": len(images),
        "n_attached": len(chosen),
        "mean_distance": _mean(distances),
        "covered": _mean(distances < arrays["radius"]),
        "segment_unchanged": _mean(unchanged.numpy()),
    }, arrays


def _measure(network: nn.Module, images: Tensor, labels: Tensor, sampling: Sampling) -> tuple[dict, dict[str, np.ndarray]]:
    """Radii of images (m, ...), and what a row says of them; a radius without success is a lower bound, and censored."""
    device, size = next(network.parameters()).device, sampling.batch_size
    batches = list(zip(images.split(size), labels.split(size), strict=True)) if len(images) else []

    def measured(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        part, truth = batches[number]
        radii = minimum_norm.minimal_radii(
            network,
            as_floats(part.to(device)),
            truth.to(device),
            steps=sampling.steps,
            box=not part.is_floating_point(),
            generator=generator(sampling.seed, "radius", number, device=device),
        )
        return radii.distances.double().cpu().numpy(), radii.succeeded.cpu().numpy(), radii.won.cpu().numpy()

    quiet = sampling.quiet or sampling.processes.rank > 0
    made = image_bar(sampling.processes.shared(len(batches), measured), len(images), size, label="radius", quiet=quiet)
    parts = [(np.zeros(0), np.zeros(0, bool), np.zeros(0, np.int64)), *made]
    radius, succeeded, won = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    row = {
        "n": len(radius),
        "attack_success": _mean(succeeded),
        "radius_mean": _mean(radius[succeeded]),
        "radius_median": float(np.median(radius)) if len(radius) else None,
        "radius_km": restricted_mean(radius, succeeded) if len(radius) else None,
        **{f"won_{name}": int((won == number).sum()) for number, name in enumerate(minimum_norm.ATTACKS) if number},
    }
    return row, {"radius": radius, "found": succeeded, "won": won}


@torch.no_grad()
def _segments(network, images: Tensor, neighbours: Tensor, answers: Tensor, batch_size: int) -> Tensor:
    """Boolean (n,): whether the network answers alike at points evenly spread from the images to their neighbours."""
    device = next(network.parameters()).device
    unchanged = torch.ones(len(images), dtype=torch.bool)
    with attacked(network):
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            ends = [as_floats(part[rows].to(device)) for part in (images, neighbours)]
            for share in torch.linspace(0, 1, SEGMENT_POINTS).tolist():
                same = network(torch.lerp(*ends, share)).argmax(1).cpu() == answers[rows]
                unchanged[rows] &= same
    return unchanged


@torch.no_grad()
def _answers(network, images: Tensor, batch_size: int) -> Tensor:
    device = next(network.parameters()).device
    with attacked(network):
        logits = torch.cat([network(as_floats(part.to(device))).cpu() for part in images.split(batch_size)])
    if not logits.isfinite().all():
        first = int((~logits.isfinite().all(1)).nonzero()[0])
        raise UserError(f"--radius: the network's logits are NaN or infinite, first for point {first} of {len(images)}")
    return logits.argmax(1)


def _sample(candidates: Tensor, sampling: Sampling) -> Tensor:
    """At most `count` of them, drawn without replacement, in ascending order."""
    order = torch.randperm(len(candidates), generator=generator(sampling.seed, "radius sample"))
    return candidates[order[: sampling.count].sort().values]


def _mean(values: np.ndarray) -> float | None:
    mean = float(np.mean(values)) if len(values) else math.nan
    return mean if math.isfinite(mean) else None
