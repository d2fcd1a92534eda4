"""The network in pieces, each from a cut at which re-initialised layers start."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lib.models import cutting
from lib.reinit.targets import State, Target


@dataclass(frozen=True)
class Stage:
    """The units that start at one cut: `lead` leads there from the previous one, `rest` from there to the end.

    parts has, for stacking, what runs between the start and the end of each unit, and what follows.
    """

    network: nn.Module
    lead: nn.Module
    rest: nn.Module
    units: list[int]
    parts: dict[int, tuple[nn.Module, nn.Module]]

    def named(self, cell: State) -> State:
        """The tensors of a cell under their paths in a piece."""
        return {cutting.inside(self.network, key): value for key, value in cell.items()}

    def key(self, path: str) -> str:
        """The state-dict key of a path in a piece."""
        return path.removeprefix(cutting.inside(self.network, ""))

    def answers(self, unit: int, activations: Tensor, cells: list[State]) -> list[Tensor]:
        """The logits (b, k) of each cell."""
        if len(cells) == 1 or unit not in self.parts:
            return [functional_call(self.rest, self.named(cell), (activations,)) for cell in cells]
        part, suffix = self.parts[unit]
        outputs = [functional_call(part, self.named(cell), (activations,)) for cell in cells]
        return list(suffix(torch.cat(outputs)).split(len(activations)))


def cut_stages(network: nn.Module, units: list[Target], stacking: bool) -> tuple[list[Stage], nn.Module]:
    """One stage per cut at which units start, and what leads from the last one to the output."""
    starts = list(dict.fromkeys(unit.start for unit in units))
    named = [start for start in starts if start is not None]
    *leads, tail = cutting.pieces(network, named)
    if None in starts:
        leads.insert(0, nn.Identity())
    stages = []
    for start, lead in zip(starts, leads, strict=True):
        members = [number for number, unit in enumerate(units) if unit.start == start]
        rest = cutting.pieces(network, [start] if start else [])[-1]
        parts = {}
        for number in members if stacking else ():
            if units[number].end is not None:
                *_, part, suffix = cutting.pieces(network, [cut for cut in (start, units[number].end) if cut])
                parts[number] = part, suffix
        stages.append(Stage(network, lead, rest, members, parts))
    return stages, tail


def walk(stages: list[Stage], batches: list[Tensor]) -> Iterator[tuple[Stage, list[Tensor]]]:
    """Each stage and what enters it, for all batches at once."""
    for stage in stages:
        batches = [stage.lead(batch) for batch in batches]
        yield stage, batches
