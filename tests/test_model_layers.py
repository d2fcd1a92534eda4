"""Layers of the zoo: the names, blocks, shapes and costs that the papers state, and the keys of published checkpoints."""

import math

import pytest
import timm
import torch
import torchvision
from test_models import RESNET_DEPTHS, on_meta, shapes
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lib import models


@pytest.mark.parametrize("depth", RESNET_DEPTHS)
@pytest.mark.parametrize("prefix", ["resnet", "tv_resnet"])
def test_resnet_stages_have_the_papers_blocks(prefix, depth):
    names = {name for name, _ in on_meta(f"{prefix}{depth}").named_modules()}
    assert {"conv1", "bn1", "fc"} <= names
    blocks = {name for name in names if name.startswith("layer") and name.count(".") == 1}
    stages = enumerate(RESNET_DEPTHS[depth], start=1)
    assert blocks == {f"layer{stage}.{block}" for stage, blocks in stages for block in range(blocks)}


def test_resnet_blocks_pass_the_papers_shapes():
    found, _ = shapes(models.build("resnet18", 10), torch.zeros(2, 3, 32, 32))
    assert [found[f"layer{i}.1"] for i in (1, 2, 3, 4)] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    found, _ = shapes(on_meta("tv_resnet18"), torch.zeros(2, 3, 224, 224, device="meta"))
    assert [found[f"layer{i}.1"] for i in (1, 2, 3, 4)] == [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]
    found, _ = shapes(on_meta("resnet50"), torch.zeros(2, 3, 32, 32, device="meta"))
    assert [found[f"layer{i}"] for i in (1, 2, 3, 4)] == [(256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)]


def test_equal_width_and_equal_size_variants_pass_equal_widths_and_sizes():
    images = torch.zeros(2, 3, 32, 32)
    found, _ = shapes(models.build("resnet18_samewidth", 10), images)
    assert [found[f"layer{i}.0"] for i in (1, 2, 3, 4)] == [(64, side, side) for side in (32, 16, 8, 4)]
    found, _ = shapes(on_meta("resnet18_samesize"), images.to("meta"))
    assert [found[f"layer{i}.0"] for i in (1, 2, 3, 4)] == [(width, 32, 32) for width in (64, 128, 256, 512)]
    found, _ = shapes(on_meta("resnet18_samewidth_samesize"), images.to("meta"))
    assert {found[f"layer{i}.{j}"] for i in (1, 2, 3, 4) for j in (0, 1)} == {(64, 32, 32)}


def test_flattened_features_have_the_intermediate_layer_papers_sizes():
    """Intermediate layers, section 4: the table of feature sizes."""
    layers = ("relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")
    table = {
        ("cifar_resnet18_maxpool", 32): (65_536, 16_384, 16_384, 8_192, 4_096, 2_048, 512),
        ("resnet18", 32): (65_536, None, 65_536, 32_768, 16_384, 8_192, 512),
        ("pytorch_cifar_resnet18", 32): (None, None, 65_536, 32_768, 16_384, 8_192, None),
        ("tv_resnet18", 224): (802_816, 200_704, 200_704, 100_352, 50_176, 25_088, 512),
        ("tv_resnet50", 224): (802_816, 200_704, 802_816, 401_408, 200_704, 100_352, 2_048),
    }
    for (name, size), wanted in table.items():
        found, _ = shapes(on_meta(name, size=size), torch.zeros(2, 3, size, size, device="meta"))
        assert tuple(math.prod(found[layer]) if layer in found else None for layer in layers) == wanted, name


def test_torchvisions_resnet18_at_32_px_has_the_ood_papers_41_layers():
    """OOD layers, section 1.3: the table of layers in registration order."""
    network = models.build("tv_resnet18", 10)
    kinds = nn.Conv2d | nn.Linear | nn.BatchNorm2d
    hooked = [name for name, module in network.named_modules() if isinstance(module, kinds)]
    found, _ = shapes(network, torch.zeros(2, 3, 32, 32))
    wanted = [("conv1", 16_384), ("bn1", 16_384)]
    for stage, width in ((1, 4096), (2, 2048), (3, 1024), (4, 512)):
        for block in (0, 1):
            names = ["conv1", "bn1", "conv2", "bn2"]
            names += ["downsample.0", "downsample.1"] if stage > 1 and block == 0 else []
            wanted += [(f"layer{stage}.{block}.{name}", width) for name in names]
    wanted.append(("fc", 10))
    assert [(name, math.prod(found[name])) for name in hooked] == wanted and len(hooked) == 41


@pytest.mark.parametrize(
    ("name", "convolutions", "filters", "with_linear"),
    [
        ("lenet", (2, 2, 2), 172, 386),
        ("alexnet", (1, 1, 3), 1152, 9354),
        ("vgg11", (1, 1, 2, 2, 2), 2752, 10954),
        ("vgg13", (2, 2, 2, 2, 2), 2944, 11146),
        ("vgg16", (2, 2, 3, 3, 3), 4224, 12426),
        ("vgg19", (2, 2, 4, 4, 4), 5504, 13706),
        ("vgg19_orig", (2, 2, 4, 4, 4), 5504, 13706),
        ("vgg16bn", (2, 2, 3, 3, 3), 4224, 12426),
    ],
)
def test_convolutions_between_pools_are_the_hyperplane_papers(name, convolutions, filters, with_linear):
    """Hyperplanes, section 2.3: convolutions per stage, filters, and units of all layers with 10 classes."""
    network = on_meta(name)
    stages = [0]
    for module in network.features:
        stages[-1] += isinstance(module, nn.Conv2d)
        if isinstance(module, nn.MaxPool2d):
            stages.append(0)
    assert tuple(stages[:-1]) == convolutions
    convs = [module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d)]
    units = [module.out_features for module in network.modules() if isinstance(module, nn.Linear)]
    assert sum(convs) == filters and sum(convs + units) == with_linear and len(units) == 3


def test_the_fully_connected_control_has_eight_linear_layers():
    for name, norms in (("mlp", 0), ("mlp_bn", 4)):
        network = on_meta(name)
        linear = [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]
        assert linear == [(3072, 4096), *[(4096, 1024), (1024, 4096)] * 3, (4096, 10)]
        assert sum(outward for _, outward in linear) == 19_466
        assert sum(isinstance(m, nn.BatchNorm1d) for m in network.modules()) == norms
    assert on_meta("mlp", channels=1, size=28).hidden1.fc.in_features == 784


def test_feature_layers_of_the_nearest_category_networks_have_the_papers_widths():
    found, _ = shapes(models.build("CNN002", 9, 1, 28), torch.zeros(2, 1, 28, 28))
    assert found["feature_extractor.maxpool2"] == (64, 4, 4) and found["flatten"] == (1024,)
    found, _ = shapes(on_meta("WRN_40_10", 9), torch.zeros(2, 3, 32, 32, device="meta"))
    assert [found[f"block{i}"] for i in (1, 2, 3)] == [(160, 32, 32), (320, 16, 16), (640, 8, 8)]
    assert found["avgpool"] == (640, 1, 1) and "block3.layer.5" in found and "block3.layer.6" not in found
    found, _ = shapes(on_meta("ResNet50", 99), torch.zeros(2, 3, 112, 112, device="meta"))
    assert found["layer4"] == (2048, 4, 4)


def test_preactivation_blocks_halve_maps_with_padding_on_the_right_and_below():
    network = models.build("preact_resnet18", 10)
    found, _ = shapes(network, torch.zeros(2, 3, 32, 32))
    assert [found[f"layer_{i}.1"] for i in range(4)] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    block = network.layer_1[0]
    assert block.conv_2d_1.sides == block.shortcut.sides == (0, 1, 0, 1) and network.layer_0[0].conv_2d_1.sides == (1,) * 4
    assert block.shortcut.kernel_size == (3, 3) and network.layer_1[1].shortcut is None


@pytest.mark.parametrize(
    ("name", "size", "macs", "error"),
    [
        ("resnet18", 32, 0.555e9, 0.01),
        ("resnet18_samesize", 32, 11.4e9, 0.01),
        ("tv_resnet18", 224, 1.81e9, 0.01),
        ("tv_resnet18", 32, 37.02e6, 0.002),
        ("cifar_resnet18_maxpool", 32, 140e6, 0.01),
        ("pytorch_cifar_resnet18", 32, 555e6, 0.01),
        ("vit_tiny_patch4_32", 32, 0.365e9, 0.01),
        ("lenet", 32, 4.34e6, 0.01),
        ("alexnet", 224, 714e6, 0.01),
        ("vgg11", 32, 272e6, 0.01),
        ("vgg16", 32, 433e6, 0.01),
        ("vgg19", 32, 518e6, 0.01),
        ("vgg19", 224, 19.6e9, 0.01),
    ],
)
def test_a_forward_pass_costs_what_the_papers_say(name, size, macs, error):
    network = on_meta(name, size=size).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, size, size, device="meta"))
    assert counter.get_total_flops() / 2 == pytest.approx(macs, rel=error)


def test_keys_are_torchvisions_where_the_checkpoints_are():
    theirs = torchvision.models.resnet18(num_classes=10).state_dict()
    for name in ("resnet18", "cifar_resnet18_maxpool"):
        ours = models.build(name, 10).state_dict()
        assert list(ours) == list(theirs)
        assert [key for key in ours if ours[key].shape != theirs[key].shape] == ["conv1.weight"]


def test_keys_are_pytorch_cifars():
    keys = set(models.build("pytorch_cifar_resnet18", 10).state_dict())
    assert {"linear.weight", "linear.bias", "layer2.0.shortcut.0.weight", "layer2.0.shortcut.1.running_var"} <= keys
    assert not any(key.startswith(("fc", "layer1.0.shortcut", "layer2.1.shortcut")) for key in keys)


def test_both_cifar_resnets_compute_the_same_function():
    torch.manual_seed(0)
    theirs = models.build("pytorch_cifar_resnet18", 10).eval()
    ours = models.build("resnet18", 10).eval()
    renamed = {
        key.replace("shortcut", "downsample").replace("linear", "fc"): value for key, value in theirs.state_dict().items()
    }
    ours.load_state_dict(renamed)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_transformers_at_224_px_are_timms(size):
    with torch.device("meta"):
        theirs = timm.create_model(f"vit_{size}_patch16_224").state_dict()
    ours = on_meta(f"vit_{size}_patch16_224", 1000).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


def test_wide_networks_have_the_keys_of_published_checkpoints():
    keys = set(models.build("liu2020_wrn", 10).state_dict())
    assert {"conv1.weight", "block1.layer.0.convShortcut.weight", "block3.layer.5.bn2.weight", "bn1.weight"} <= keys
