"""What training minimises: `loss(network, images, labels) -> (mean loss, logits)`.

A loss gets the network rather than its logits, because some need more than one forward pass. Importing this needs no
torch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lib.lazy import lazy

if TYPE_CHECKING:
    from torch import Tensor, nn

functional = lazy("torch.nn.functional")

Loss = Callable[["nn.Module", "Tensor", "Tensor"], tuple["Tensor", "Tensor"]]

LOSSES = {"ce": "lib.losses:cross_entropy"}


def cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """Mean cross-entropy of the labels, mixed with the uniform distribution by `label_smoothing` in [0, 1]."""
    def loss(network, images, labels):
        logits = network(images)
        return functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing), logits
    return loss
