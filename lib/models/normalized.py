"""A network behind its normalisation: images enter in [0, 1], everything else is the network's own."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Normalized(nn.Module):
    """`body((images - mean) / std)`: distances and radii are in [0, 1] units whatever the network was trained with.

    images (b, c, h, w) in [0, 1]; mean and std have one number per channel, or none for images that go in as they are.
    With `padding` the images are first framed by so many black pixels on each side.
    Layer names and state-dict keys everywhere in the suite are the body's.
    """

    body: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, mean: tuple[float, ...] = (), std: tuple[float, ...] = (), padding: int = 0) -> None:
        super().__init__()
        self.padding = padding
        self.body = body
        self.normalise(mean, std)

    def normalise(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Sets the normalisation."""
        self.register_buffer("mean", torch.tensor(mean or (0.0,)).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std or (1.0,)).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.padding:
            images = F.pad(images, (self.padding,) * 4)
        return self.body((images - self.mean) / self.std)
