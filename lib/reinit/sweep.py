"""One pass over the data for the accuracies of all cells."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.core import saved_state
from lib.core.devices import arithmetic
from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.reinit.stages import cut_stages
from lib.reinit.targets import Cells, Target


@dataclass
class Counts:
    """Correct predictions among the first `images` images, in the first place and in the first five.

    intact (2,) of the network as it is, cells (layers, sources, 2), int64.
    """

    images: int
    intact: Tensor
    cells: Tensor

    def to(self, device: torch.device) -> "Counts":
        """The same on another device."""
        return Counts(self.images, self.intact.to(device), self.cells.to(device))


@dataclass(frozen=True)
class Checkpointing:
    """`counts`: how far an interrupted pass had got. `save` is called with how far this one is, every ten seconds and
    when it is interrupted."""

    counts: Counts | None = None
    save: Callable[[Counts], None] = lambda counts: None


@torch.no_grad()
def run(
    network: nn.Module,
    split: Split,
    units: list[Target],
    cells: Cells,
    batching: Batching,
    *,
    stacked: int = 1,
    checkpointing: Checkpointing | None = None,
) -> Counts:
    """One pass over the split; cells[i][e] are the tensors that source e puts into units[i], by state-dict key.

    units     in execution order, as `targets` gives them
    cells     None is a cell without effect, which gets the intact network's answers and is not run
    stacked   so many sources share one run of what follows the layer: better use of a GPU; equal up to rounding
    """
    checkpointing = checkpointing or Checkpointing()
    device = batching.device
    network.eval()
    stages, tail = cut_stages(network, units, stacked > 1)
    nothing = Counts(0, torch.zeros(2).long(), torch.zeros(len(units), len(cells[0]), 2).long())
    counts = (checkpointing.counts or nothing).to(device)
    same = [
        torch.tensor([source for source, cell in enumerate(row) if cell is None], dtype=torch.int64, device=device)
        for row in cells
    ]
    order = torch.arange(counts.images, len(split))
    broken = torch.zeros(len(units) + 1, dtype=torch.int64, device=device)  # images whose logits are no numbers

    def forward(images: Tensor, labels: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of a batch: what is right of the intact network and of the cells, and logits that are no numbers."""
        right, wrong = torch.zeros_like(nothing.cells, device=device), torch.zeros_like(broken)
        activations = images
        with arithmetic(batching.precision, device):
            for stage in stages:
                activations = stage.lead(activations)
                for number in stage.units:
                    run = [(source, cell) for source, cell in enumerate(cells[number]) if cell is not None]
                    for first in range(0, len(run), stacked):
                        group, states = zip(*run[first : first + stacked], strict=True)
                        answers = stage.answers(number, activations, list(states))
                        for source, logits in zip(group, answers, strict=True):
                            right[number, source] = _right(logits, labels)
                        wrong[number] += torch.stack([_broken(logits) for logits in answers]).sum()
            logits = tail(activations)
            intact = _right(logits, labels)
            wrong[-1] += _broken(logits)
        for number, sources in enumerate(same):
            right[number, sources] = intact
        return intact, right, wrong

    saved = time.monotonic()
    try:
        for positions, (intact, right, wrong) in batching.each(split, split.name, forward, order=order):
            broken = broken + wrong.to(device)
            # replaced as a whole, so that an interruption meets the old counts or the new ones
            counts = Counts(
                counts.images + len(positions), counts.intact + intact.to(device), counts.cells + right.to(device)
            )
            if time.monotonic() - saved > saved_state.SAVE_EVERY:
                _refuse_broken(units, broken.tolist(), split)  # of images that count as done
                checkpointing.save(counts.to(torch.device("cpu")))
                saved = time.monotonic()
    except BaseException:
        if not broken.any():
            checkpointing.save(counts.to(torch.device("cpu")))
        raise
    _refuse_broken(units, broken.tolist(), split)
    return counts.to(torch.device("cpu"))


def _refuse_broken(units: list[Target], broken: list[int], split: Split) -> None:
    """Raises `UserError` where logits were NaN or infinite: what they classify correctly says nothing."""
    whole = f"of images of {split.name}:{split.split}"
    if broken[-1]:
        raise UserError(f"the network's logits {whole} are NaN or infinite for {broken[-1]} images")
    for unit, count in zip(units, broken, strict=False):
        if count:
            raise UserError(
                f"layer {unit.layer}: with other weights in it, logits {whole} are NaN or infinite {count} times"
            )


def _broken(logits: Tensor) -> Tensor:
    """How many images have logits that are not finite."""
    return (~logits.isfinite().all(1)).sum()


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    """(2,): how many labels are the largest logit, and how many are among the five largest."""
    five = (logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]).sum()
    return torch.stack([(logits.argmax(1) == labels).sum(), five])
