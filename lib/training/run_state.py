"""Saves a training run in its folder: checkpoints of epochs, and resume.pt, from which it continues."""

import dataclasses
import sys
from pathlib import Path

import torch
from torch import Tensor

from lib.core import saved_state
from lib.core.errors import UserError
from lib.models import checkpoints
from lib.models.checkpoints import Description
from lib.models.normalized import Normalized
from lib.runs import input_files
from lib.training import loop, losses
from lib.training.ema import ExponentialMovingAverage
from lib.training.flags import TrainingConfig


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


def begin_behind(config: TrainingConfig, optimiser: torch.optim.Optimizer) -> int:
    """The epochs that a run of `--resume-from` has behind it when it begins.

    Of a .tar snapshot with the state of its optimiser, as the papers' code saves it, these are its own, and the optimiser
    goes on from there with the settings of the command line; `--start-epoch` wins, and 0 takes the weights alone. Raises
    `UserError` for a snapshot whose optimiser is another one, or whose epochs are all that are asked for.
    """
    if not config.resume_from.endswith(".tar") or config.start_epoch == 0:
        return config.start_epoch or 0
    path = input_files.locate(config, config.resume_from)
    content = torch.load(path, map_location=next(iter(optimiser.param_groups[0]["params"])).device, weights_only=True)
    state = next((content[key] for key in ("optimizer_state_dict", "optimizer") if isinstance(content.get(key), dict)), None)
    if state is None or not isinstance(content.get("epoch"), int):
        return config.start_epoch or 0
    # PyTorch's example counts finished epochs, the hyperplane paper's code the last one from 0
    done = content["epoch"] + ("optimizer_state_dict" in content)
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimiser.param_groups]
    try:
        optimiser.load_state_dict(state)
        _require_shapes(optimiser)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"--resume-from {config.resume_from}: the state of its optimiser is not of -o {config.optimizer} on this "
            "network; --start-epoch 0 takes the weights alone"
        ) from None
    for group, stated in zip(optimiser.param_groups, settings, strict=True):
        group.update(stated)
    done = config.start_epoch or done
    if done >= config.epochs:
        raise UserError(
            f"--resume-from {config.resume_from}: its {done} epochs are done, and -e {config.epochs} is not more"
        )
    if not config.quiet:
        print(f"continuing {config.resume_from} in epoch {done + 1}", file=sys.stderr)
    return done


# what each optimiser keeps of a parameter between two steps
_OF_ADAM = {"step", "exp_avg", "exp_avg_sq"}
_KEPT = {torch.optim.SGD: {"momentum_buffer"}, torch.optim.Adam: _OF_ADAM, torch.optim.AdamW: _OF_ADAM}


def _require_shapes(optimiser: torch.optim.Optimizer) -> None:
    """Raises `ValueError` for a state of another kind of optimiser, or of parameters of other shapes."""
    known = next((names for kind, names in _KEPT.items() if isinstance(optimiser, kind)), set())
    for parameter, kept in optimiser.state.items():
        shapes = {value.shape for value in kept.values() if isinstance(value, torch.Tensor) and value.ndim}
        if not set(kept) <= known or shapes - {parameter.shape}:
            raise ValueError(f"{sorted(kept)} of {sorted(shapes)}")


def begun_channels_last(directory: Path) -> bool | None:
    """Whether the run that resume.pt goes on with stores its images and weights channels last; None where nothing tells.

    Its weights lie there as they did in memory. To go on in the other order would round in another way.
    """
    try:
        state = saved_state.read_state(directory / "resume.pt") or {}
        weights = [weight for weight in state.get("network", {}).values() if weight.ndim == 4]
    except Exception:  # `resume` has the sentence for a file that is damaged
        return None
    orders = [weight.is_contiguous(memory_format=torch.channels_last) for weight in weights if not _lies_both_ways(weight)]
    return any(orders) if orders else None


def _lies_both_ways(weight: Tensor) -> bool:
    return weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last)


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
