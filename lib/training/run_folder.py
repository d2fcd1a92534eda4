"""The folder of a training run, models/<dir>/: whose it is, what it keeps, and from where the run continues.

run.json      the configuration that the folder belongs to
init.pt       what the run started from
model_<e>.pt  the epochs that were asked for, and the last one
best.pt       the first of the epochs with the highest validation accuracy
resume.pt     network, optimiser, rows and position; replaced behind every epoch, and when the run is stopped

Importing this needs no torch.
"""

import dataclasses
import io
import json
import sys
from pathlib import Path

from lib.core import files
from lib.core.errors import UserError
from lib.core.lazy import lazy
from lib.runs import cli

checkpoints = lazy("lib.models.checkpoints")
torch = lazy("torch")
loop = lazy("lib.training.loop")


def folder(config) -> Path:
    """The folder of the run's checkpoints: `-dir a` and `-dir models/a` are the same."""
    given = Path(config.directory)
    root = Path(config.models_dir)
    return given if given.is_relative_to(root) else root / given


def claim(directory: Path, config) -> None:
    """Makes the folder this configuration's; raises `UserError` if it holds checkpoints of another one's run.

    Only the process that holds the folder's lock may claim it: half-written files in it are those of killed ones.
    """
    wanted = _as_json(cli.identity(config))
    marker = directory / "run.json"
    for path in directory.glob(".*.tmp"):
        path.unlink()
    if config.overwrite:
        clear(directory)
    if marker.exists() and any(directory.rglob("*.pt")):  # else that run failed before its first step
        try:
            there = json.loads(marker.read_text())
        except ValueError:
            raise UserError(f"{marker} is broken; --overwrite starts the run again") from None
        # A flag younger than the folder had its default there.
        defaults = {
            item.name: item.default
            for item in dataclasses.fields(config)
            if item.name in wanted and item.default is not dataclasses.MISSING
        }
        there = _as_json(defaults) | there
        keys = [key for key in sorted(wanted.keys() | there.keys()) if wanted.get(key) != there.get(key)]
        if keys:
            differences = ", ".join(f"{key} {there.get(key)} there, {wanted.get(key)} here" for key in keys)
            raise UserError(
                f"-dir {config.directory}: {directory} holds another run ({differences}); choose another "
                "-dir, or --overwrite it"
            )
    elif any(directory.glob("*.pt")):
        raise UserError(
            f"-dir {config.directory}: {directory} holds checkpoints of unknown origin; choose another -dir, "
            "or --overwrite them"
        )
    if not config.resume:
        clear(directory)
    files.write_json(marker, wanted)


def clear(directory: Path) -> None:
    """Removes what a run left there."""
    for pattern in ("init", "model_*", "ft_model_*", "best", "resume", "run"):
        for path in (*directory.glob(f"{pattern}.pt"), *directory.glob(f"{pattern}.json")):
            path.unlink()


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
        "loss": getattr(loss, "state", {}),
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
        getattr(loss, "state", {}).update(state["loss"])
        if average is not None:
            average.network.body.load_state_dict(state["average"]["network"])
            average.steps = state["average"]["steps"]
        position = loop.Position(**state["position"])
    except Exception as error:
        raise UserError(f"{path} cannot be continued ({type(error).__name__}); --overwrite starts the run again") from None
    if not quiet:
        print(f"continuing {directory} in epoch {position.epoch}, step {position.step}", file=sys.stderr)
    return state["rows"], position


def _as_json(value):
    """What reading the value back from a JSON file gives: lists for tuples."""
    return json.loads(json.dumps(value))
