"""One forward pass over a split: the outputs of named layers, reduced batch by batch.

A representation is what a layer puts out, made a vector per image by a reducer. The network is put in eval mode, and the
pass ends behind the deepest layer that was asked for: nothing after it is computed.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from lib.core.errors import UserError
from lib.datasets import augment
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models import cutting

Reduce = Callable[[Tensor], Tensor]  # (b, ...) -> (b, d)
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class View:
    """A view of the images by number, augmented as is customary for their data set and drawn with the seed."""

    number: int
    seed: int


def flatten(output: Tensor) -> Tensor:
    """(b, ...) -> (b, d): all activations, channels first."""
    return output.flatten(1)


@torch.no_grad()
def reduced_outputs(
    network: nn.Module,
    split: Split,
    reduce: Mapping[str, Callable[[Tensor], dict[Name, Tensor]]],
    batching: Batching,
    *,
    order: Tensor | None = None,
    first: int = 0,
    view: View | None = None,
    label: str = "",
    finite: int = 0,
) -> Iterator[tuple[Tensor, dict[Name, Tensor]]]:
    """Per batch the positions (b,), and everything that `reduce` makes of the outputs of its layers.

    reduce    layer -> a function from its output (b, ...) to a dictionary of tensors
    order     the positions that are passed, in this order; by default all from `first` on
    first     the beginning of a batch: those before are left out
    finite    refuse what is not finite; on a GPU so many batches are looked at together, as each look waits for it

    Raises `UserError` for a layer that does not exist, does not run, or puts out no tensor with a row per image.
    """
    label, change = label or split.name, None
    if view is not None:
        split, drawn = augment.for_epoch(split, split.augmentation, view.seed, "view", view.number, device=batching.device)
        change = None if drawn is None else lambda images, step: drawn(images, step + first // batching.batch_size)
    if first:
        order = torch.arange(first, len(split))
    made: dict[str, dict[Name, Tensor]] = {}
    sums: dict[str, Tensor] = {}  # of each image's numbers, which are finite if those are
    together = finite if batching.device.type == "cuda" else 1
    unseen: list[tuple[Mapping[str, Tensor], Tensor]] = []  # sums of batches, and their positions

    def keep(layer: str) -> Callable[[Tensor], None]:
        def kept(output: Tensor) -> None:
            made.setdefault(layer, reduce[layer](output))
            if finite:
                sums.setdefault(layer, output.flatten(1).sum(1, dtype=torch.float64))

        return kept

    def forward(images: Tensor, labels: Tensor, positions: Tensor) -> tuple[dict[Name, Tensor], dict[str, Tensor]]:
        made.clear()
        sums.clear()
        cutting.run(network, images)
        for layer in reduce:
            if layer not in made:
                raise UserError(f"layer {layer} does not run in a forward pass, so it has no features")
        return {name: rows for layer in reduce for name, rows in made[layer].items()}, dict(sums)

    network.eval()
    with cutting.record(network, list(reduce), reduce={layer: keep(layer) for layer in reduce}, stop=True):
        for positions, (rows, summed) in batching.each(split, label, forward, order=order, augment=change):
            if summed:
                unseen.append((summed, positions))
            if len(unseen) >= together:
                _look(unseen, split)
            yield positions, rows
    _look(unseen, split)


def _look(unseen: list[tuple[Mapping[str, Tensor], Tensor]], split: Split) -> None:
    """Refuses what is not finite in some batches, and forgets them."""
    if unseen:
        sums = {layer: torch.cat([batch[layer] for batch, _ in unseen]) for layer in unseen[0][0]}
        refuse_not_finite(sums, split, torch.cat([positions for _, positions in unseen]))
        unseen.clear()


def refuse_not_finite(outputs: Mapping[str, Tensor], split: Split, positions: Tensor) -> None:
    """Raises `UserError` where what a layer puts out for the images of a split at some positions (b,) is not finite.

    outputs    layer -> numbers (b, ...), in order of execution
    """
    wrong = torch.stack([~output.isfinite().view(len(output), -1).all(1) for output in outputs.values()]).cpu()
    if not bool(wrong.any()):
        return
    first = int(wrong.any(1).nonzero()[0])
    image = int(split.indices[positions[int(wrong[first].nonzero()[0])]])
    where = f"{split.name}:{split.split}" + (f"/{split.variant}" if split.variant else "")
    raise UserError(
        f"layer {list(outputs)[first]} puts out NaN or infinite numbers for image {image} of {where}, so nothing that is "
        "measured on it would hold; the weights are too large or broken"
    )


def represent(
    network: nn.Module,
    split: Split,
    layers: list[str],
    batching: Batching,
    reduce: Reduce = flatten,
    label: str = "",
) -> Iterator[dict[str, Tensor]]:
    """Per batch: layer -> features (b, d) in float32, where the network is or on the CPU. Raises as `reduced_outputs`."""

    def named(layer: str) -> Callable[[Tensor], dict[str, Tensor]]:
        return lambda output: {layer: reduce(output).float().clone()}

    for _, rows in reduced_outputs(network, split, {layer: named(layer) for layer in layers}, batching, label=label):
        yield rows


def features_and_logits(
    network: nn.Module, split: Split, layers: list[str], batching: Batching, label: str = ""
) -> tuple[dict[str, Tensor], Tensor]:
    """Layer -> its activations (n, d), and the logits (n, k), of one pass; float32 on the CPU, in the split's order."""
    network.eval()
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    logits = []

    def forward(images: Tensor, labels: Tensor, positions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        answers = cutting.outputs(network, images).float().cpu()
        return answers, {layer: outputs[layer].cpu() for layer in layers}

    with torch.no_grad(), cutting.record(network, layers, reduce=lambda output: flatten(output).float().clone()) as outputs:
        for _, (answers, activations) in batching.each(split, label or split.name, forward):
            logits.append(answers)
            for layer in layers:
                parts[layer].append(activations[layer])
    return {layer: torch.cat(parts.pop(layer)) for layer in layers}, torch.cat(logits)


def features(
    network: nn.Module, split: Split, layer: str, batching: Batching, reduce: Reduce = flatten, label: str = ""
) -> Tensor:
    """The features (n, d) of one layer for a whole split, float32 on the CPU, in the split's order."""
    return torch.cat([rows[layer].cpu() for rows in represent(network, split, [layer], batching, reduce, label)])
