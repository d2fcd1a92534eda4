"""Early exit: stops the forward pass at the first layer whose energy identifies an outlier.

At exit k the statistic is the rank of |z_k| among in-distribution images, as in the aggregator `max`; an image is flagged
and its pass ends where that exceeds one threshold, which is calibrated on the maximum over all exits, so that the false
alarms of all of them together have the rate alpha. OOD-layers paper, section 2.7 of our specification: the paper states no
rule. A network fits the images that it was trained on better than others: the threshold takes images that it was not.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lib.core.errors import UserError
from lib.metrics import nearest_category, ood_detection
from lib.models import cutting
from lib.ood.layer_energies import energy
from lib.ood.standardize import ZScore, ranks, standardise


@dataclass(frozen=True)
class Rule:
    """When to stop: scale and ranks from some in-distribution images, the threshold from others."""

    scale: ZScore
    threshold: float
    alpha: float

    def statistics(self, energies: np.ndarray) -> np.ndarray:
        """How extreme each exit's energy is, in [0, 1): energies (n, K) to (n, K)."""
        return ranks(np.abs(self.scale.z(energies)), np.abs(self.scale.fitted))

    def at(self, exit: int, energies: np.ndarray) -> np.ndarray:
        """The statistics (n,) of one exit alone, from its energies (n,)."""
        mean, deviation = self.scale.mean[exit], self.scale.deviation[exit]
        scores = np.abs((energies.astype(np.float64) - mean) / deviation)[:, None]
        return ranks(scores, np.abs(self.scale.fitted[:, exit : exit + 1]))[:, 0]

    def exits(self, energies: np.ndarray) -> np.ndarray:
        """The exit (n,) at which each image stops, K where none flags it, from the energies (n, K) of all exits."""
        flagged = self.statistics(energies) > self.threshold
        return np.where(flagged.any(1), flagged.argmax(1), energies.shape[1])


def calibrate(scale_on: np.ndarray, unseen: np.ndarray, alpha: float, names: list[str]) -> Rule:
    """The rule with false-alarm rate alpha over all exits, from energies (f, K) and (c, K) of in-distribution images.

    The first give the scale, the others the threshold: of images that are exchangeable with `unseen` the share alpha, or at
    most 1 / (c + 1) less, is flagged on average over draws of `unseen`, whatever images the scale is from. Of one draw the
    rate deviates from that by sqrt(alpha (1 - alpha) / c).
    """
    scale = standardise(scale_on)
    if not scale.kept.all():
        raise UserError(f"--exits {names[int(scale.kept.argmin())]}: its energy is constant over the fitting images")
    rule = Rule(scale, math.inf, alpha)
    largest = np.sort(rule.statistics(unseen).max(1))
    rank = math.ceil((len(largest) + 1) * (1 - alpha))  # of the threshold among the largest statistics
    if rank > len(largest):
        raise UserError(
            f"--early-exit {alpha}: {len(largest)} images calibrate no rate below {1 / (len(largest) + 1):.2g}; more of -d, "
            "of which half are taken, or with --fit-on of --fit-examples, do"
        )
    return Rule(scale, float(largest[rank - 1]), alpha)


def possible_exits(listed: list[cutting.Layer]) -> list[str]:
    """The cuts in execution order, without those that hold other cuts: `layer1` ends where `layer1.1` does."""
    cuts = [layer.name for layer in listed if layer.cut and layer.shape]
    return [name for name in cuts if not any(other.startswith(name + ".") for other in cuts)]


def default_exits(listed: list[cutting.Layer]) -> list[str]:
    """Of the possible exits the last one before each further convolution or linear map, and the last of all."""
    before = cutting.macs_before(listed)
    return list({before[name]: name for name in possible_exits(listed)}.values())


@torch.no_grad()
def run(pieces: list[nn.Module], rule: Rule, images: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The exit (b,) of each image, K where none flags it, and the logits of those, in order.

    What was flagged leaves the batch: the pieces behind an exit see only the images that are still there.
    """
    exits = torch.full((len(images),), len(pieces) - 1)
    staying, values = torch.arange(len(images)), images
    for number, piece in enumerate(pieces[:-1]):
        values = piece(values)
        statistics = rule.at(number, energy(values, (temperature,))[:, 0].cpu().numpy())
        stays = torch.from_numpy(statistics <= rule.threshold)
        if not bool(stays.all()):
            exits[staying[~stays]] = number
            staying, values = staying[stays], values[stays.to(values.device)]
        if not len(staying):
            return exits, values.new_empty(0, 0)
    return exits, pieces[-1](values)


def report(rule: Rule, inside: np.ndarray, outside: np.ndarray, macs: np.ndarray) -> list[dict]:
    """A row per exit, then one for all: from the energies (n, K) and (m, K) of images that ran through to the end.

    auroc, false_alarms and detected are running: of the largest statistic up to this exit, and the shares of in- and
    out-of-distribution images flagged up to it. false_alarms_low, false_alarms_high: Wilson's 95 % interval. exited_*: the
    share that leaves here. mac_id, mac_ood: the mean share of the network's multiply-accumulates that is spent, `macs` (K,)
    being those done at each exit.
    """
    first, second = (np.maximum.accumulate(rule.statistics(part), 1) for part in (inside, outside))
    running = ood_detection.auroc(first, second)
    leaves = [rule.exits(part) for part in (inside, outside)]
    counts = [np.bincount(part, minlength=len(macs) + 1) for part in leaves]
    shares = [count / len(part) for count, part in zip(counts, leaves, strict=True)]
    alarms = [nearest_category.wilson(int(number), len(inside)) for number in counts[0].cumsum()]
    of_exits = [
        {
            "auroc": running[exit],
            "false_alarms": shares[0][: exit + 1].sum(),
            "false_alarms_low": alarms[exit][0],
            "false_alarms_high": alarms[exit][1],
            "detected": shares[1][: exit + 1].sum(),
            "exited_id": shares[0][exit],
            "exited_ood": shares[1][exit],
            "mac_fraction": macs[exit],
        }
        for exit in range(len(macs))
    ]
    spent = np.append(macs, 1.0)
    rate = 1 - shares[0][-1]
    return [
        *of_exits,
        {
            "auroc": running[-1],
            "false_alarms": rate,
            "false_alarms_low": alarms[-2][0],
            "false_alarms_high": alarms[-2][1],
            "detected": 1 - shares[1][-1],
            "false_alarms_se": math.sqrt(rate * (1 - rate) / len(inside)),
            "alpha": rule.alpha,
            "mac_id": spent[leaves[0]].mean(),
            "mac_ood": spent[leaves[1]].mean(),
        },
    ]


@torch.no_grad()
def timed(
    network: nn.Module, pieces: list[nn.Module], rule: Rule, batches: Iterable[Tensor], temperature: float = 1.0
) -> tuple[np.ndarray, float, float]:
    """The exits (n,) of real early exits, the seconds these take, and those of the whole network on the same batches.

    Both are timed batch by batch in turn, after one batch that warms up, so that they see the same machine.
    """
    exits, stopping, whole = [], 0.0, 0.0
    network.eval()
    for number, images in enumerate(batches):
        for warmed in (False, True) if number == 0 else (True,):
            begin = _now(images)
            network(images)
            middle = _now(images)
            left, _ = run(pieces, rule, images, temperature)
            end = _now(images)
            if warmed:
                whole, stopping = whole + middle - begin, stopping + end - middle
                exits.append(left)
    return torch.cat(exits).numpy(), stopping, whole


def _now(images: Tensor) -> float:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter()
