"""Task-loss matching of a grid that goes on after any interruption as if there had been none.

The stitches of a part share its passes and nothing else, so that each becomes what it would become alone: one that another
record holds is taken from there instead of being trained again. The state of a run lies beside its record until that is
written; it is replaced behind every epoch, and when the run is stopped.
"""

import dataclasses
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from lib.core import files
from lib.core.errors import Interrupted
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


@dataclass(frozen=True)
class State:
    """The file of a run that is under way; `key` says which run's it is."""

    path: Path
    key: str

    def load(self, parts: list[Part]) -> dict | None:
        """What the run saved, all stitches set to it; None if there is nothing of this very run."""
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
            if found["key"] != self.key:
                return None
            for part, weights, origins in zip(parts, found["stitches"], found["origins"], strict=True):
                Stitches(part.entries).load_state_dict(weights)
                part.origins = origins
            return found
        except Exception:  # absent, or no whole file: the run begins anew
            return None

    def save(self, parts: list[Part], number: int, optimiser: torch.optim.Optimizer, position: loop.Position) -> None:
        """Writes the file: part `number` is at `position`, those before it are done."""
        buffer = io.BytesIO()
        torch.save(
            {
                "key": self.key,
                "part": number,
                "position": dataclasses.asdict(position),
                "optimizer": optimiser.state_dict(),
                "origins": [part.origins for part in parts],
                "stitches": [Stitches(part.entries).state_dict() for part in parts],
            },
            buffer,
        )
        files.write_atomically(self.path, lambda file: file.write(buffer.getbuffer()))


def train(
    parts: list[Part],
    epochs: int,
    recipe: Callable[[Part], loop.Recipe],
    optimiser: Callable[[nn.Module], torch.optim.Optimizer],
    state: State,
    fresh: bool,
    take: Callable[[Part], dict[int, str]],
    quiet: bool = False,
) -> None:
    """Trains the stitches of one part after the other, from where `state` says unless `fresh`.

    take   sets entries of a part that are known already; number -> where from
    """
    found = None if fresh else state.load(parts)
    if found is None:
        for part in parts:
            part.origins = take(part)
    first, position = (found["part"], loop.Position(**found["position"])) if found else (0, loop.Position())
    _say(parts, found, first, position, quiet)
    with loop.Stopping().listening() as stopping:
        for number, part in list(enumerate(parts))[first:]:
            if not part.trained():
                continue
            network = Stitches(part.trained())
            steps = optimiser(network)
            if found and number == first:
                steps.load_state_dict(found["optimizer"])
            while position.epoch <= epochs:
                whole = loop.train_epoch(network, part.split, steps, recipe(part), position, stopping)
                if whole:
                    position = loop.Position(epoch=position.epoch + 1)
                if whole or stopping.by:
                    state.save(parts, number, steps, position)
                if stopping.by:
                    raise Interrupted(
                        f"stopped by {stopping.by} in epoch {position.epoch}, step {position.step}; the same "
                        f"command continues from {state.path}"
                    )
            position = loop.Position()


def clip_each(optimiser: torch.optim.Optimizer, network: Stitches, most: float) -> None:
    """Limits the gradient of every stitch to this L2 norm before a step: each alone, or pairs would disturb one another."""

    def clip(*_):
        for stitch in network.stitches:
            nn.utils.clip_grad_norm_(stitch.parameters(), most)

    optimiser.register_step_pre_hook(clip)


def _say(parts: list[Part], found: dict | None, first: int, position: loop.Position, quiet: bool) -> None:
    taken = sum(len(part.origins) for part in parts)
    if taken and not quiet:
        print(
            f"{taken} of {sum(len(part.entries) for part in parts)} stitches are in other records and not trained again",
            file=sys.stderr,
        )
    if found and not quiet:
        print(
            f"continuing part {first + 1} of {len(parts)} in epoch {position.epoch}, step {position.step}", file=sys.stderr
        )
