"""Grids of stitched networks: collects statistics, trains stitches, evaluates the stitched networks.

Both donors are frozen and in eval mode, and are the same to the last bit afterwards. Every batch goes once through the front
network, as far as its deepest cut, and where it is needed once through the end network; what follows a stitch is the end
network from its cut.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.devices import arithmetic
from lib.core.errors import UserError
from lib.core.randomness import generator
from lib.core.registry import near
from lib.datasets.batching import Batching
from lib.datasets.split import Split, fit
from lib.models import cutting
from lib.models.checkpoints import Checkpoint
from lib.stitching.layer import Shape, Stitch
from lib.stitching.least_squares import Statistics, StreamedQR
from lib.training.losses import IndependentLosses, Loss


@dataclass(frozen=True)
class GridStitch:
    """One stitch of a grid: behind a layer of the front network, in place of the output of a layer of the end network."""

    front: str
    end: str
    stitch: Stitch


class Donors:
    """The two networks, frozen, cut at these layers. Raises `UserError` for layers that are no cuts."""

    def __init__(self, front: nn.Module, end: nn.Module, front_layers: list[str], end_layers: list[str]) -> None:
        for layer in front_layers:
            cutting.cut(front, layer)
        self.front, self.end = front.eval().requires_grad_(False), end.eval().requires_grad_(False)
        self.tails = {layer: cutting.cut(end, layer)[1] for layer in end_layers}
        self.front_layers = front_layers

    @torch.no_grad()
    def sources(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """The activations of the front layers; a network does not look at the labels."""
        return activations_of(self.front, self.front_layers, images)

    @torch.no_grad()
    def targets(self, images: Tensor) -> dict[str, Tensor]:
        """The end network's own activations of the end layers."""
        return activations_of(self.end, list(self.tails), images)

    @torch.no_grad()
    def targets_and_logits(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Those, and the end network's logits (b, k)."""
        with cutting.record(self.end, list(self.tails)) as outputs:
            logits = cutting.outputs(self.end, images)
        return {layer: outputs[layer] for layer in self.tails}, logits

    def logits(self, entry: GridStitch, sources: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The stitched network's logits (b, k), and the stitched activation."""
        stitched = entry.stitch(sources[entry.front])
        return self.tails[entry.end](stitched), stitched


class Sender(Donors):
    """Donors whose front is another network, trained for whatever task: it sees the images in the channels that it takes.

    Such a front, too, can be stitched to a high accuracy (Smith et al. 2025, as below).
    """

    def __init__(self, network: nn.Module, channels: int, donors: Donors) -> None:
        super().__init__(network, donors.end, donors.front_layers, list(donors.tails))
        self.channels = channels

    @torch.no_grad()
    def sources(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return super().sources(fit(images, self.channels), labels)


class ClusteredNoise(Donors):
    """Donors whose front layers put out noise that knows the label: a centre drawn for each class, and noise around it.

    Nothing of an image is in it but its class, and yet a trained stitch makes the end network classify it (Smith et al.,
    "Functional Alignment Can Mislead: Examining Model Stitching", ICML 2025): a high accuracy of a stitch does not say that
    two networks mean the same. Centres are normal with unit variance in each of a layer's numbers, the noise with `SPREAD`.

    shapes    (c, h, w) or (t, d) of each front layer
    """

    SPREAD = 0.5

    def __init__(self, donors: Donors, shapes: Mapping[str, Shape], seed: int) -> None:
        super().__init__(donors.front, donors.end, donors.front_layers, list(donors.tails))
        self.shapes, self.seed = {layer: shapes[layer] for layer in donors.front_layers}, seed

    @torch.no_grad()
    def sources(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """The noise of a batch: the same for the same images, so that an interrupted run goes on as if it had not been."""
        if labels is None:
            raise ValueError("clustered noise is drawn by label")
        content = hashlib.sha256(images.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        found = {}
        for layer, shape in self.shapes.items():
            present, places = labels.cpu().unique(return_inverse=True)
            centres = [torch.randn(shape, generator=generator(self.seed, "centre", layer, int(label))) for label in present]
            noise = torch.randn(len(labels), *shape, generator=generator(self.seed, "noise", layer, content))
            found[layer] = (torch.stack(centres)[places] + self.SPREAD * noise).to(images.device)
        return found


def activations_of(network: nn.Module, layers: list[str], images: Tensor) -> dict[str, Tensor]:
    """What these layers put out; the pass ends behind the deepest one."""
    with cutting.record(network, layers, stop=True) as outputs:
        cutting.run(network, images)
    return {layer: outputs[layer] for layer in layers}


def choose(checkpoint: Checkpoint, listed: list[cutting.Layer], words: tuple[str, ...], where: str) -> list[str]:
    """The cuts with maps or tokens that names and globs choose, in execution order, of all layers.

    Raises `UserError`, which names `where` the words stand, for what is no layer, no cut, or puts out a vector.
    """
    usable = [layer.name for layer in listed if layer.cut and len(layer.shape) in (2, 3)]
    for layer in listed:
        if layer.name in words and layer.name not in usable:
            cutting.cut(checkpoint.network, layer.name)
            raise UserError(f"{where} {layer.name}: it puts out a vector, and stitches join maps and tokens")
    return cutting.select(usable, words, cutting.groups(listed, usable), where)


def pairs(
    donors: Donors, split: Split, batching: Batching, label: str, partners: Split | None = None
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """The activations of the front layers and of the end layers, batch by batch: one pass of each network.

    The end network sees the same images, or those of `partners`.
    """
    if partners is None:
        for images, labels in batching.over(split, label):
            yield donors.sources(images, labels), donors.targets(images)
    else:
        of_partners = replace(batching, quiet=True).over(partners, label)
        for (images, labels), (other, _) in zip(batching.over(split, label), of_partners, strict=True):
            yield donors.sources(images, labels), donors.targets(other)


def collect(
    donors: Donors, split: Split, statistics: Statistics, batching: Batching, partners: Split | None = None
) -> Statistics:
    """The statistics with those of all images of a split added."""
    for sources, targets in pairs(donors, split, batching, "matching", partners):
        statistics.add(sources, targets)
    return statistics


def streamed_qr(
    donors: Donors,
    split: Split,
    stitches: Mapping[tuple[str, str], Stitch],
    batching: Batching,
    partners: Split | None = None,
) -> dict[tuple[str, str], StreamedQR]:
    """(front layer, end layer) -> the QR decomposition of its rows over all images of a split: another pass.

    stitches   one of each pair, which says what its rows are
    """
    made = {pair: StreamedQR() for pair in stitches}
    for sources, targets in pairs(donors, split, batching, "matching again", partners) if made else ():
        for (front, end), stitch in stitches.items():
            rows = stitch.rows_of_source(sources[front]), stitch.rows_of_target(targets[end])
            made[front, end].add(*(part.flatten(0, 1) for part in rows))
    return made


def activations(
    donors: Donors, split: Split, batching: Batching, partners: Split | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All activations (n, ...) of the front and end layers: for what cannot stream."""
    parts = list(pairs(donors, split, batching, "matching", partners))
    sources, targets = ([part[side] for part in parts] for side in (0, 1))
    return _joined(sources), _joined(targets)


def _joined(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {layer: torch.cat([batch[layer] for batch in batches]) for layer in batches[0]}


def derangement(n: int, seed: int) -> Tensor:
    """A permutation of n >= 2 images, int64 (n,), that leaves none in its place: a random cycle through all of them."""
    order = torch.randperm(n, generator=generator(seed, "null"))
    return torch.empty_like(order).index_copy_(0, order, order.roll(1))


@torch.no_grad()
def evaluate(
    donors: Donors, entries: list[GridStitch], split: Split, batching: Batching, kept: list[Tensor] | None = None
) -> tuple[list[dict], float]:
    """The measures of every stitched network on a labelled split, and the accuracy of the end network.

    accuracy, relative_accuracy (over the end network's), penalty (the end network's accuracy minus it), agreement (share of
    images with the end network's prediction), normalized_difference (||S - E||^2 / ||E||^2 over all images),
    normalized_difference_batch_mean (the mean of that ratio over batches, as published: it depends on the batch size) and r2
    (1 - ||S - E||^2 / ||E - mean||^2, the mean per channel), S the stitched activation and E the end network's own. The
    answers of the stitched networks are added to `kept`, if given, a batch (entries, b) at a time.
    """
    device = batching.device
    counts = {"correct": torch.zeros(len(entries), dtype=torch.float64, device=device)}
    counts |= {name: counts["correct"].clone() for name in ("agree", "difference", "ratio", "broken")}
    own_broken = torch.zeros((), dtype=torch.int64, device=device)
    own_correct, own = torch.zeros((), dtype=torch.float64, device=device), {layer: _Spread() for layer in donors.tails}
    for entry in entries:
        entry.stitch.eval()
    batches, stacks = 0, _stacks(entries, min(batching.batch_size, len(split)))
    places = [torch.tensor(numbers, device=device) for numbers in stacks]
    for images, labels in replace(batching, own=True).over(split, "evaluating"):
        with arithmetic(batching.precision, device):
            sources, (targets, logits) = donors.sources(images, labels), donors.targets_and_logits(images)
            predicted = logits.argmax(1)
            own_correct += (predicted == labels).sum()
            own_broken += (~logits.isfinite().all(1)).sum()
            squares = {layer: own[layer].add(target) for layer, target in targets.items()}
            of_batch = labels.new_empty(len(entries), len(labels)) if kept is not None else None
            for numbers, there in zip(stacks, places, strict=True):
                end = entries[numbers[0]].end
                stitched = [entries[number].stitch(sources[entries[number].front]) for number in numbers]
                answered = donors.tails[end](torch.cat(stitched))
                counts["broken"][there] += (~answered.isfinite().all(1)).view(len(numbers), -1).sum(1)
                answers = answered.argmax(1).view(len(numbers), -1)
                if of_batch is not None:
                    of_batch[there] = answers
                counts["correct"][there] += (answers == labels).sum(1)
                counts["agree"][there] += (answers == predicted).sum(1)
                difference = torch.stack([(one - targets[end]).square().sum(dtype=torch.float64) for one in stitched])
                counts["difference"][there] += difference
                counts["ratio"][there] += difference / squares[end]
        if kept is not None and of_batch is not None:
            kept.append(of_batch)
        batches += 1
    n = len(split)
    _refuse_broken(entries, int(own_broken), counts["broken"].tolist(), split)
    end_accuracy = own_correct.item() / n
    rows = []
    for number, entry in enumerate(entries):
        values = {name: count[number].item() for name, count in counts.items()}
        whole, centred = own[entry.end].squares.item(), own[entry.end].centred()
        accuracy = values["correct"] / n
        rows.append(
            {
                "accuracy": accuracy,
                "relative_accuracy": accuracy / end_accuracy if end_accuracy else None,
                "penalty": end_accuracy - accuracy,
                "agreement": values["agree"] / n,
                "normalized_difference": values["difference"] / whole if whole else None,
                "normalized_difference_batch_mean": values["ratio"] / batches if whole else None,
                "r2": 1 - values["difference"] / centred if centred else None,
            }
        )
    return rows, end_accuracy


def _refuse_broken(entries: list[GridStitch], own: int, broken: list[float], split: Split) -> None:
    """Raises `UserError` where logits were NaN or infinite: what they classify correctly says nothing."""
    where = f"of {len(split)} images of {split.name}:{split.split}"
    if own:
        raise UserError(f"the end network's logits are NaN or infinite for {own} {where}")
    for entry, count in zip(entries, broken, strict=True):
        if count:
            raise UserError(
                f"{entry.front} stitched into {entry.end}: the logits are NaN or infinite for {int(count)} {where}; did the "
                "stitch's training diverge?"
            )


STACKED = 1 << 22  # numbers that go through a tail at a time: weights are read less often, and memory stays small


def _stacks(entries: list[GridStitch], batch_size: int) -> list[list[int]]:
    """The numbers of entries whose stitched activations go through a tail together: of one end layer, as many as fit."""
    of_layer: dict[str, list[list[int]]] = {}
    for number, entry in enumerate(entries):
        most = max(1, STACKED // (math.prod(entry.stitch.target) * batch_size))
        groups = of_layer.setdefault(entry.end, [[]])
        if len(groups[-1]) == most:
            groups.append([])
        groups[-1].append(number)
    return [numbers for groups in of_layer.values() for numbers in groups]


class _Spread:
    """Sums of an activation's squares and, per channel, of its values."""

    def __init__(self) -> None:
        self.count = 0
        self.sums = self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, activation: Tensor) -> Tensor:
        axes = (0, 2, 3) if activation.ndim == 4 else (0, 1)
        squares = activation.square().sum(dtype=torch.float64)
        self.sums = self.sums + activation.sum(axes, dtype=torch.float64)
        self.squares = self.squares + squares
        self.count += activation.numel() // len(self.sums)
        return squares

    def centred(self) -> float:
        return max((self.squares - (self.sums.square() / self.count).sum()).item(), 0.0)


class Stitches(nn.Module):
    """All stitches that are trained together; the donors are not part of it, so that no mode of theirs is changed."""

    def __init__(self, entries: list[GridStitch]) -> None:
        super().__init__()
        self.stitches = nn.ModuleList([entry.stitch for entry in entries])


def between(donors: Donors, layer: str, cuts: list[str]) -> dict[str, nn.Module]:
    """What the end network does from each end layer to a later one of its cuts, which are in execution order.

    Raises `UserError` where the layer is no cut, or not behind every end layer.
    """
    if layer not in cuts:
        raise UserError(f"--match-at {layer}: it is no cut of the end network; {near(layer, cuts)}")
    for end in donors.tails:
        if cuts.index(layer) <= cuts.index(end):
            raise UserError(f"--match-at {layer}: it does not lie behind END_LAYER {end}")
    return {end: cutting.pieces(donors.end, [end, layer])[1] for end in donors.tails}


def latent_loss(
    donors: Donors, entries: list[GridStitch], layer: str, between: Mapping[str, nn.Module], *, l1: float = 0.0
) -> Loss:
    """Matching at a later layer of the end network, all entries in one step: ||L(S) - L||^2 / ||L||^2, and l1 |W, b|_1.

    L is what the end network puts out at `layer` for the images, L(S) what it makes there of the stitched activation. The
    idea is that of functional latent alignment (Athanasiadis et al., "Model Stitching by Functional Latent Alignment",
    2025), and at the penultimate layer that of final feature matching (Mai et al., "Revisiting Model Stitching in the
    Foundation Model Era", 2026): no label is seen, so that a stitch is not rewarded for what only the classifier can use.
    The form is ours.

    between   what the end network does from each end layer to `layer`
    """

    def loss(network, images, labels, draws):
        sources = donors.sources(images, labels)
        with torch.no_grad():
            wanted = activations_of(donors.end, [layer], images)[layer].float()
        scale = wanted.square().sum().clamp_min(1e-30)
        losses = IndependentLosses()
        for entry in entries:
            stitched = entry.stitch(sources[entry.front])
            value = (between[entry.end](stitched).float() - wanted).square().sum() / scale
            if l1:
                value = value + l1 * (entry.stitch.weight.abs().sum() + entry.stitch.bias.abs().sum())
            losses.add(value, list(entry.stitch.parameters()))
        return losses.total(), wanted.new_zeros(len(images), 1)

    return loss


def task_loss(donors: Donors, entries: list[GridStitch], *, l1: float = 0.0, soft_targets: bool = False) -> Loss:
    """Task-loss matching of all entries in one step: the cross-entropy of each stitched network, and l1 |W, b|_1.

    The stitches share no weights, so that training them together is training each alone. With `soft_targets` the labels are
    the end network's own probabilities.
    """

    def loss(network, images, labels, draws):
        sources = donors.sources(images, labels)
        wanted = labels
        if soft_targets:
            with torch.no_grad():
                wanted = donors.end(images).float().softmax(1)
        losses = IndependentLosses()
        for entry in entries:
            logits, _ = donors.logits(entry, sources)
            value = F.cross_entropy(logits.float(), wanted)
            if l1:
                value = value + l1 * (entry.stitch.weight.abs().sum() + entry.stitch.bias.abs().sum())
            losses.add(value, list(entry.stitch.parameters()))
        return losses.total(), logits.detach()

    return loss
