"""What training minimises: `loss(network, images, labels, draws) -> (mean loss, logits)`.

A loss gets the network rather than its logits, because some need more than one forward pass, and `draws(name)`, the
generator of a stream that is the step's own, on the images' device. The entries of `LOSSES` make a loss from the training's
configuration. Importing this needs no torch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lib.lazy import lazy

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

functional = lazy("torch.nn.functional")

Draws = Callable[[str], "torch.Generator"]
Loss = Callable[["nn.Module", "Tensor", "Tensor", Draws], tuple["Tensor", "Tensor"]]

LOSSES = {
    "ce": "lib.losses:cross_entropy",
    "at": "lib.robust_losses:adversarial",
    "trades": "lib.robust_losses:trades",
    "mixup": "lib.robust_losses:mixup",
}


def cross_entropy(config) -> Loss:
    """Mean cross-entropy of the labels, mixed with the uniform distribution by `config.label_smoothing` in [0, 1]."""
    def loss(network, images, labels, draws):
        logits = network(images)
        return functional.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing), logits
    return loss
