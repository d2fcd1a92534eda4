"""What a run leaves in its folder as it goes: checkpoints of epochs, and resume.pt, from which it continues."""

import dataclasses
import io
import sys
from pathlib import Path

import torch

from lib.core import files
from lib.core.errors import UserError
from lib.models import checkpoints
from lib.training import loop, losses


def keep(directory: Path, network, description, rows: list[dict], due: bool) -> None:
    """Saves the epoch that has just ended, if it is due, and as best.pt if it is the first of the best."""
    described = dataclasses.replace(description, epoch=rows[-1]["epoch"], metrics=rows[-1])
    if due:
        checkpoints.save(directory / f"model_{described.epoch}.pt", network, described)
    if all(rows[-1]["val_accuracy"] > earlier["val_accuracy"] for earlier in rows[:-1]):
        checkpoints.save(directory / "best.pt", network, described)


def save_state(directory: Path, network, optimiser, average, loss, rows: list[dict], position) -> None:
    """Writes resume.pt."""
    state = {
        "network": network.body.state_dict(),
        "optimizer": optimiser.state_dict(),
        "rows": rows,
        "position": dataclasses.asdict(position),
        "loss": losses.state_of(loss),
    }
    if average is not None:
        state["average"] = {"network": average.network.body.state_dict(), "steps": average.steps}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    files.write_atomically(directory / "resume.pt", lambda file: file.write(buffer.getbuffer()))


def resume(directory: Path, network, optimiser, average, loss, quiet: bool):
    """The rows and the position from which the run continues; network, optimiser, average and loss are set to them."""
    path = directory / "resume.pt"
    if not path.exists():
        return [], loop.Position()
    try:
        state = torch.load(path, map_location=next(network.parameters()).device, weights_only=True)
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
