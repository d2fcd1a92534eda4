"""What a run leaves in its folder as it goes: checkpoints of epochs, and resume.pt, from which it continues."""

import dataclasses
import sys
from pathlib import Path

import torch

from lib.core import saved_state
from lib.core.errors import UserError
from lib.models import checkpoints
from lib.models.checkpoints import Description
from lib.models.normalized import Normalized
from lib.training import loop, losses
from lib.training.ema import ExponentialMovingAverage


def keep(directory: Path, network: Normalized, description: Description, rows: list[dict], due: bool) -> None:
    """Saves the epoch that has just ended, if it is due, and as best.pt if it is the first of the best."""
    described = dataclasses.replace(description, epoch=rows[-1]["epoch"], metrics=rows[-1])
    if due:
        checkpoints.save(directory / f"model_{described.epoch}.pt", network, described)
    if all(rows[-1]["val_accuracy"] > earlier["val_accuracy"] for earlier in rows[:-1]):
        checkpoints.save(directory / "best.pt", network, described)


def save_state(
    directory: Path,
    network,
    optimiser: torch.optim.Optimizer,
    average: ExponentialMovingAverage | None,
    loss: losses.Loss,
    rows: list[dict],
    position: loop.Position,
) -> None:
    """Writes resume.pt; of the network what it calls its body."""
    state = {
        "network": network.body.state_dict(),
        "optimizer": optimiser.state_dict(),
        "rows": rows,
        "position": dataclasses.asdict(position),
        "loss": losses.state_of(loss),
    }
    if average is not None:
        state["average"] = {"network": average.network.body.state_dict(), "steps": average.steps}
    saved_state.write_state(directory / "resume.pt", state)


def resume(
    directory: Path,
    network,
    optimiser: torch.optim.Optimizer,
    average: ExponentialMovingAverage | None,
    loss: losses.Loss,
    quiet: bool,
) -> tuple[list[dict], loop.Position]:
    """The rows and the position from which the run continues; network, optimiser, average and loss are set to them.

    Raises `UserError` for a file that does not fit: to begin anew is for the user to decide.
    """
    path = directory / "resume.pt"
    try:
        state = saved_state.read_state(path, next(network.parameters()).device)
        if state is None:
            return [], loop.Position()
        network.body.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimizer"])
        losses.state_of(loss).update(state["loss"])
        if average is not None:
            average.network.body.load_state_dict(state["average"]["network"])
            average.steps = state["average"]["steps"]
        position = loop.Position(**state["position"])
    except Exception as error:
        raise UserError(f"{path} cannot be continued ({type(error).__name__}); --overwrite starts the run again") from None
    if not quiet:
        print(f"continuing {directory} in epoch {position.epoch}, step {position.step}", file=sys.stderr)
    return state["rows"], position
