"""What training minimises: `loss(network, images, labels, draws) -> (mean loss, logits)`.

A loss gets the network rather than its logits, because some need more than one forward pass, and `draws(name)`, the
generator of a stream that is the step's own, on the images' device. The entries of `LOSSES` make a loss from the training's
configuration. A loss that carries something from step to step keeps it in `loss.state`, a dictionary of tensors, which
resuming restores. Importing this needs no torch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lib.core.errors import UsageError
from lib.core.lazy import lazy

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

functional = lazy("torch.nn.functional")
torch = lazy("torch")

Draws = Callable[[str], "torch.Generator"]
Loss = Callable[["nn.Module", "Tensor", "Tensor", Draws], tuple["Tensor", "Tensor"]]

LOSSES = {
    "ce": "lib.training.losses:cross_entropy",
    "at": "lib.training.robust_losses:adversarial",
    "trades": "lib.training.robust_losses:trades",
    "mixup": "lib.training.robust_losses:mixup",
    "energy_layers": "lib.training.energy_loss:energy_layers",
}


def check(config) -> None:
    """Raises `UsageError` for flags that do not go with the configuration's loss."""
    if config.loss in ("at", "trades") and config.eps is None:
        raise UsageError(f"--eps is required: the radius of the attack of --loss {config.loss}")
    if config.loss in ("at", "trades", "mixup") and config.label_smoothing:
        raise UsageError(f"--label-smoothing is for --loss ce, not {config.loss}")
    if config.outliers and config.loss != "energy_layers":
        raise UsageError(f"--outliers is for --loss energy_layers, not {config.loss}")
    if config.loss == "energy_layers":
        _check_energy_layers(config)


def cross_entropy(config) -> Loss:
    """Mean cross-entropy of the labels, mixed with the uniform distribution by `config.label_smoothing` in [0, 1]."""

    def loss(network, images, labels, draws):
        logits = network(images)
        return functional.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing), logits

    return loss


class Separate:
    """The sum of losses that share no weights: the graph of each is freed before the next one's is made.

    What `total` gives has the value of the sum, and its gradient as a constant.
    """

    def __init__(self) -> None:
        self._value, self._gradients = 0.0, 0.0

    def add(self, value: "Tensor", weights: list["Tensor"]) -> None:
        """Takes in a loss, which depends on all these weights and on no others that are trained."""
        found = torch.autograd.grad(value, weights)
        self._gradients = self._gradients + sum(
            (weight * gradient).sum() for weight, gradient in zip(weights, found, strict=True)
        )
        self._value = self._value + value.detach()

    def total(self) -> "Tensor":
        """The sum so far."""
        return self._gradients - self._gradients.detach() + self._value


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
