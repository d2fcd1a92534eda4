"""How far the decision boundary lies, beside how far the images from elsewhere lie from the training set.

The paper does not measure at the images themselves but at the training examples nearest to them, as far as the network
classifies these correctly (nearest-category paper, section 2); the extension measures at the images (section 6.4).
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from lib.attacks import minimum_norm
from lib.attacks.pgd import attacked
from lib.core.progress import bar
from lib.core.randomness import generator
from lib.datasets.split import as_floats
from lib.metrics.kaplan_meier import restricted_mean
from lib.nearest_category.neighbors import Nearest

SEGMENT_POINTS = 32


def at_training_examples(
    network: nn.Module, images: Tensor, labels: Tensor, nearest: Nearest, distances: np.ndarray, count: int, **options
) -> tuple[dict, dict]:
    """(row, arrays) of the paper's protocol: at most `count` of the training examples that are somebody's neighbour.

    images (m, c, h, w), uint8 or stored features, and labels (m,), in the network's numbers, of the training set; nearest
    and distances (n,) of the images from elsewhere, which belong to the example that is their neighbour. `options` as in
    `_measure`.
    """
    candidates = nearest.indices.unique()
    answers = _answers(network, images[candidates], options["batch_size"])
    candidates = candidates[answers == labels[candidates]]
    chosen = _sample(candidates, count, options["seed"])
    row, arrays = _measure(network, images[chosen], labels[chosen], **options)
    arrays["indices"] = chosen.numpy()
    place = torch.full((len(images),), -1)
    place[chosen] = torch.arange(len(chosen))
    belongs = place[nearest.indices].numpy()
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
    network: nn.Module, images: Tensor, neighbours: Tensor, distances: np.ndarray, count: int, **options
) -> tuple[dict, dict]:
    """(row, arrays) at images from elsewhere: does the answer carry over from an image to its nearest training example?

    images, neighbours (n, c, h, w), uint8 or stored features. covered: the share of images whose neighbour is nearer than
    the boundary; segment_unchanged: of those without another answer on the segment to the neighbour, at 32 points.
    """
    chosen = _sample(torch.arange(len(images)), count, options["seed"])
    answers = _answers(network, images[chosen], options["batch_size"])
    row, arrays = _measure(network, images[chosen], answers, **options)
    arrays["indices"] = chosen.numpy()
    unchanged = _segments(network, images[chosen], neighbours[chosen], answers, options["batch_size"])
    distances = distances[chosen.numpy()]
    return {
        **row,
        "n_candidates": len(images),
        "n_attached": len(chosen),
        "mean_distance": _mean(distances),
        "covered": _mean(distances < arrays["radius"]),
        "segment_unchanged": _mean(unchanged.numpy()),
    }, arrays


def _measure(
    network, images: Tensor, labels: Tensor, *, steps: int, seed: int, batch_size: int, quiet: bool
) -> tuple[dict, dict]:
    """Radii of images (m, ...), and what a row says of them; a radius without success is a lower bound, and censored."""
    radius, found, won = [np.zeros(0)], [np.zeros(0, bool)], [np.zeros(0, np.int64)]
    device = next(network.parameters()).device
    parts = list(zip(images.split(batch_size), labels.split(batch_size), strict=True)) if len(images) else []
    for number, (part, truth) in enumerate(bar(parts, total=len(parts), label="radius", quiet=quiet)):
        radii = minimum_norm.minimal_radii(
            network,
            as_floats(part.to(device)),
            truth.to(device),
            steps=steps,
            box=not part.is_floating_point(),
            generator=generator(seed, "radius", number, device=device),
        )
        radius.append(radii.distances.double().cpu().numpy())
        found.append(radii.found.cpu().numpy())
        won.append(radii.won.cpu().numpy())
    radius, found, won = map(np.concatenate, (radius, found, won))
    row = {
        "n": len(radius),
        "attack_success": _mean(found),
        "radius_mean": _mean(radius[found]),
        "radius_median": float(np.median(radius)) if len(radius) else None,
        "radius_km": restricted_mean(radius, found) if len(radius) else None,
        **{f"won_{name}": int((won == number).sum()) for number, name in enumerate(minimum_norm.ATTACKS) if number},
    }
    return row, {"radius": radius, "found": found, "won": won}


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
        return torch.cat([network(as_floats(part.to(device))).argmax(1).cpu() for part in images.split(batch_size)])


def _sample(candidates: Tensor, count: int, seed: int) -> Tensor:
    """At most `count` of them, drawn without replacement, in ascending order."""
    order = torch.randperm(len(candidates), generator=generator(seed, "radius sample"))
    return candidates[order[:count].sort().values]


def _mean(values: np.ndarray) -> float | None:
    mean = float(np.mean(values)) if len(values) else math.nan
    return mean if math.isfinite(mean) else None
