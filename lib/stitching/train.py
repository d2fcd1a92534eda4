"""Task-loss matching of a grid, which continues after an interruption with the same result.

The stitches of a part share its passes and nothing else, so that each becomes what it would become alone: one that another
record holds is taken from there instead of being trained again. The state of a run lies beside its record until that is
written; it is replaced behind every epoch, and when the run is stopped.
"""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from lib.core.errors import Interrupted
from lib.core.progress import TRAINING
from lib.core.saved_state import RunFile
from lib.datasets.split import Split
from lib.stitching.grid import Donors, GridStitch, Stitches
from lib.training import loop


@dataclass
class Part:
    """Stitches with the same donors, trained on the same images and labels.

    origins   number of an entry -> the record that it is taken from; these are not trained
    """

    donors: Donors
    split: Split
    entries: list[GridStitch]
    origins: dict[int, str] = field(default_factory=dict)

    def trained(self) -> list[GridStitch]:
        """The entries that are trained here."""
        return [entry for number, entry in enumerate(self.entries) if number not in self.origins]


def _load(saved: RunFile, parts: list[Part]) -> dict | None:
    """What the run saved, all stitches set to it; None if there is nothing of this very run."""
    state = saved.read()
    if state is None:
        return None
    try:
        for part, weights, origins in zip(parts, state["stitches"], state["origins"], strict=True):
            Stitches(part.entries).load_state_dict(weights)
            part.origins = origins
    except (KeyError, ValueError, RuntimeError):  # left by another version: the run begins anew
        return None
    return state


def _save(saved: RunFile, parts: list[Part], number: int, optimiser: torch.optim.Optimizer, position: loop.Position) -> None:
    """Writes the file: part `number` is at `position`, those before it are done."""
    saved.write(
        part=number,
        position=dataclasses.asdict(position),
        optimizer=optimiser.state_dict(),
        origins=[part.origins for part in parts],
        stitches=[Stitches(part.entries).state_dict() for part in parts],
    )


def train(
    parts: list[Part],
    epochs: int,
    recipe: Callable[[Part], loop.Recipe],
    optimiser: Callable[[nn.Module], torch.optim.Optimizer],
    saved: RunFile,
    fresh: bool,
    take: Callable[[Part], dict[int, str]],
    quiet: bool = False,
) -> None:
    """Trains the stitches of one part after the other, from where `saved` says unless `fresh`.

    take   sets entries of a part that are known already; number -> where from
    """
    state = None if fresh else _load(saved, parts)
    if state is None:
        for part in parts:
            part.origins = take(part)
    first, position = (state["part"], loop.Position(**state["position"])) if state else (0, loop.Position())
    _say(parts, state is not None, first, position, quiet)
    for number, part in list(enumerate(parts))[first:]:
        if part.trained():
            left = epochs + 1 - (position.epoch if number == first else 1)
            recipe(part).batching.whole.plan(TRAINING, *[len(part.split)] * left)
    with loop.Stopping().listening() as stopping:
        for number, part in list(enumerate(parts))[first:]:
            if not part.trained():
                continue
            network = Stitches(part.trained())
            steps = optimiser(network)
            if state and number == first:
                steps.load_state_dict(state["optimizer"])
            while position.epoch <= epochs:
                whole = loop.train_epoch(network, part.split, steps, recipe(part), position, stopping)
                if whole:
                    position = loop.Position(epoch=position.epoch + 1)
                if whole or stopping.by:
                    _save(saved, parts, number, steps, position)
                if stopping.by:
                    raise Interrupted(
                        f"stopped by {stopping.by} in epoch {position.epoch}, step {position.step}; the same "
                        f"command continues from {saved.path}"
                    )
            position = loop.Position()


def clip_each(optimiser: torch.optim.Optimizer, network: Stitches, most: float) -> None:
    """Limits the gradient of every stitch to this L2 norm before a step: each alone, or pairs would disturb one another."""

    def clip(*_):
        for stitch in network.stitches:
            nn.utils.clip_grad_norm_(stitch.parameters(), most)

    optimiser.register_step_pre_hook(clip)


def _say(parts: list[Part], continued: bool, first: int, position: loop.Position, quiet: bool) -> None:
    taken = sum(len(part.origins) for part in parts)
    if taken and not quiet:
        print(
            f"{taken} of {sum(len(part.entries) for part in parts)} stitches are in other records and not trained again",
            file=sys.stderr,
        )
    if continued and not quiet:
        print(
            f"continuing part {first + 1} of {len(parts)} in epoch {position.epoch}, step {position.step}", file=sys.stderr
        )
