"""Our residual blocks are torchvision's: the same keys, the same module names in the same order, the same outputs."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet

from lib.models import residual_blocks

WIDE = {"groups": 32, "base_width": 4}


def calls(block: nn.Module, channels: int) -> list[str]:
    """The names of a block's modules in the order in which a forward pass calls them: layers are numbered by it."""
    order = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: order.append(name)) for name, module in block.named_modules()
    ]
    block(torch.zeros(2, channels, 9, 9))
    for hook in hooks:
        hook.remove()
    return order


@pytest.mark.parametrize("kind, options", [("BasicBlock", {}), ("Bottleneck", {}), ("Bottleneck", WIDE)])
@pytest.mark.parametrize("stride, inward", [(1, None), (1, 32), (2, 32)])
def test_a_block_is_torchvisions_in_keys_names_order_and_outputs(kind, options, stride, inward):
    theirs, ours = getattr(resnet, kind), getattr(residual_blocks, kind)
    assert ours.expansion == theirs.expansion
    width = 64
    outward = width * theirs.expansion
    blocks = []
    for make in (theirs, ours):
        shorter = (
            None  # the input has the output's shape
            if inward is None
            else nn.Sequential(nn.Conv2d(inward, outward, 1, stride, bias=False), nn.BatchNorm2d(outward))
        )
        blocks.append(make(inward or outward, width, stride, shorter, **options))
    their, our = blocks
    assert [name for name, _ in our.named_modules()] == [name for name, _ in their.named_modules()]
    assert [(key, value.shape) for key, value in our.state_dict().items()] == [
        (key, value.shape) for key, value in their.state_dict().items()
    ]
    torch.manual_seed(0)
    for module in their.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics and weights of a trained network, not zeros and ones
            for value in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(value)
            nn.init.uniform_(module.running_var, 0.5, 2)
    our.load_state_dict(their.state_dict())
    assert calls(our, inward or outward) == calls(their, inward or outward)
    images = torch.randn(3, inward or outward, 9, 9)
    for training in (True, False):
        with torch.no_grad():
            expected, found = (block.train(training)(images.clone()) for block in blocks)
        assert found.shape == (3, outward, *[(9 + stride - 1) // stride] * 2)
        assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(block(images.clone()).square().sum(), [*block.parameters()]) for block in blocks]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("module", [resnet, residual_blocks])
def test_a_basic_block_has_neither_groups_nor_another_width(module):
    for options in ({"groups": 2}, {"base_width": 128}):
        with pytest.raises(ValueError):
            module.BasicBlock(64, 64, **options)
