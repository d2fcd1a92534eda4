"""Module criticality: the continuous companion of the re-initialisation test."""

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lib.core.randomness import generator
from lib.models.normalized import Normalized
from lib.reinit.stages import cut_stages, walk
from lib.reinit.targets import State, Target


@torch.no_grad()
def measure(
    network: Normalized,
    batches: list[tuple[Tensor, Tensor]],
    units: list[Target],
    initial: list[State],
    *,
    tolerance: float,
    draws: int,
    seed: int,
) -> list[float | None]:
    """Module criticality of each layer, 0 or more; ours, after Chatterji, Neyshabur & Sedghi, ICLR 2020.

    The least a^2 |W - W0|^2 / s^2 over positions a in [0, 1] on the way from initial to final weights and widths s > 0 of
    Gaussian noise around it, such that the mean cross-entropy on the batches (images, labels) rises by no more than
    `tolerance` nats over the intact network's. Searched on a grid (POSITIONS, WIDTHS: s in units of the mean distance
    per weight); None where no point of it qualifies. 0: the layer can be put back and shaken.
    """
    network.eval()
    stages, tail = cut_stages(network, units, False)
    images, labels = [list(part) for part in zip(*batches, strict=True)]
    final = network.body.state_dict()
    bound = _mean_loss([network(batch) for batch in images], labels) + tolerance
    least: list[float | None] = [None] * len(units)
    for stage, activations in walk(stages, images):
        for number in stage.units:
            start, end = initial[number], {key: final[key] for key in units[number].keys}
            numbers = sum(value.numel() for value in end.values())
            distance = math.sqrt(sum((end[key] - start[key]).double().square().sum().item() for key in end))
            for position in POSITIONS:
                for width in WIDTHS:  # the widest first: it is the least value of its position
                    value = position**2 * numbers / width**2
                    if least[number] is not None and value >= least[number]:
                        break
                    noise = width * distance / math.sqrt(numbers)
                    losses = []
                    for draw in range(draws):
                        random = generator(seed, "criticality", units[number].layer, draw, device=images[0].device)
                        cell = {
                            key: (1 - position) * start[key]
                            + position * end[key]
                            + noise * torch.randn(end[key].shape, generator=random, device=end[key].device)
                            for key in end
                        }
                        losses.append(
                            _mean_loss(
                                [functional_call(stage.rest, stage.named(cell), (batch,)) for batch in activations], labels
                            )
                        )
                    if sum(losses) / draws <= bound:
                        least[number] = value
                        break
    return least


POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
WIDTHS = tuple(2.0**-power for power in range(-2, 7))  # 4 to 1/64


def _mean_loss(logits: list[Tensor], labels: list[Tensor]) -> float:
    return nn.functional.cross_entropy(torch.cat(logits).double(), torch.cat(labels)).item()
