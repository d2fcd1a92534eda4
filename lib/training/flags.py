"""The flags of every training, and the names of optimisers, schedules and losses."""

from dataclasses import dataclass

from lib.core.errors import UsageError
from lib.runs.cli import RunConfig, above, at_least, flag

# adam adds the weight decay to the gradient, adamw shrinks the weights
OPTIMIZERS = {"adam": "torch.optim:Adam", "adamw": "torch.optim:AdamW", "sgd": "torch.optim:SGD"}

SCHEDULES = {
    "none": "lib.training.optimizers:constant",
    "cosine": "lib.training.optimizers:cosine",
    "onecycle": "lib.training.optimizers:onecycle",
    "step": "lib.training.optimizers:step",
}


LOSSES = {
    "ce": "lib.training.losses:cross_entropy",
    "at": "lib.training.robust_losses:adversarial",
    "trades": "lib.training.robust_losses:trades",
    "mixup": "lib.training.robust_losses:mixup",
    "energy_layers": "lib.training.energy_loss:energy_layers",
}


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig(RunConfig):
    """The flags of every script that trains by gradient steps."""

    learning_rate: float = flag(1e-3, "-lr", check=above(0), help="peak learning rate")
    weight_decay: float = flag(1e-5, "-wd", check=at_least(0), help="weight decay")
    optimizer: str = flag("adam", "-o", choices=OPTIMIZERS, help="adam (L2 in the gradient), adamw or sgd")
    schedule: str = flag("none", "-sched", choices=SCHEDULES, help="course of the learning rate")
    milestones: tuple[int, ...] = flag(
        (), "-rlre", check=at_least(1), help="epochs after which the learning rate is multiplied by 0.1"
    )


def check_loss(config) -> None:
    """Raises `UsageError` for flags that do not go with the configuration's loss."""
    if config.loss in ("at", "trades") and config.eps is None:
        raise UsageError(f"--eps is required: the radius of the attack of --loss {config.loss}")
    if config.loss in ("at", "trades", "mixup") and config.label_smoothing:
        raise UsageError(f"--label-smoothing is for --loss ce, not {config.loss}")
    if config.outliers and config.loss != "energy_layers":
        raise UsageError(f"--outliers is for --loss energy_layers, not {config.loss}")
    if config.loss == "energy_layers":
        _check_energy_layers(config)


def _check_energy_layers(config) -> None:
    if not config.outliers:
        raise UsageError("--loss energy_layers needs --outliers: a data set of outliers to train against")
    if config.margins_in == "raw" and not config.energy_margins:
        raise UsageError("--margins-in raw needs --energy-margins IN OUT: raw energies have no common scale")
    margins = config.energy_margins
    if margins and (len(margins) != 2 or margins[0] >= margins[1]):
        raise UsageError(
            f"--energy-margins {' '.join(map(str, margins))}: two numbers, the data's and a higher one for the outliers"
        )
    if config.compile:
        raise UsageError("--loss energy_layers looks inside the network, which --compile hides")
