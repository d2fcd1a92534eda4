"""What several families of networks share: chains of named modules, their initialisation, a fixed input size."""

from collections import OrderedDict

from torch import Tensor, nn

from lib.core.errors import UserError


def chain(**modules: nn.Module) -> nn.Sequential:
    """Modules called in the order given, each exactly once, under these names: a network that can be cut anywhere."""
    return nn.Sequential(OrderedDict(modules))


def kaiming_fan_out(network: nn.Module, kind: type[nn.Conv2d] | type[nn.Linear]) -> nn.Module:
    """Draw the weights of all layers of this kind from N(0, 2 / fan_out) (He et al. 2015) and zero their biases."""
    for module in network.modules():
        if isinstance(module, kind):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def with_channels(network: nn.Module, channels: int) -> nn.Module:
    """Replace the first convolution by a new one for `channels` input channels (Kaiming normal fan-out, bias 0)."""
    name, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels != channels:
        bias = first.bias is not None
        conv = nn.Conv2d(channels, first.out_channels, first.kernel_size, first.stride, first.padding, bias=bias)
        network.set_submodule(name, kaiming_fan_out(conv, nn.Conv2d))
    return network


class FixedSize(nn.Sequential):
    """A chain for square images of one size only, where others would run into a pool that was not made for them."""

    def __init__(self, image_size: int, modules: dict[str, nn.Module]):
        super().__init__(OrderedDict(modules))
        self.image_size = image_size

    def forward(self, input: Tensor) -> Tensor:
        require_size(input, self.image_size)
        return super().forward(input)


def require_size(images: Tensor, size: int) -> None:
    """Raise a `UserError` unless images (n, c, h, w) are `size` high and wide."""
    # A proxy of torch.fx has no size to look at.
    if isinstance(images, Tensor) and tuple(images.shape[-2:]) != (size, size):
        sides = " x ".join(map(str, images.shape[-2:]))
        raise UserError(f"this network takes {size} x {size} images, not {sides}: resize them or train another type")
