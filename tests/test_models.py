"""The zoo: sizes and shapes the papers state, initialisations, keys of published checkpoints, and what is refused."""

import functools
import math
import subprocess
import sys
import urllib.error

import pytest
import timm
import torch
import torchvision
from torch import fx, nn

from lib import models
from lib.core import trusted_files
from lib.core.errors import UsageError, UserError
from lib.models.resnet import PadShortcut

RESNET_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
VIT_DEPTHS = {"tiny": 12, "small": 12, "medium": 12, "base": 12, "large": 24, "huge": 32, "giant": 40, "gigantic": 48}
VIT_WIDTHS = {"tiny": 192, "small": 384, "medium": 512, "base": 768}
VIT_WIDTHS |= {"large": 1024, "huge": 1280, "giant": 1408, "gigantic": 1664}


def size_of(name: str) -> int:
    return models.SIZES.get(name, (max(32, models.SMALLEST.get(name, 32)),))[0]


@functools.cache
def on_meta(name: str, classes: int = 10, channels: int = 3, size: int | None = None) -> nn.Module:
    with torch.device("meta"):
        return models.build(name, classes, channels, size or size_of(name))


def shapes(network: nn.Module, images: torch.Tensor) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """The output shape of every module without the batch, the network's own by "", and how often each was called."""
    found, calls = {}, {}

    def hook(name):
        def keep(module, inputs, output):
            found[name], calls[name] = tuple(output.shape[1:]), calls.get(name, 0) + 1

        return keep

    handles = [module.register_forward_hook(hook(name)) for name, module in network.named_modules()]
    with torch.no_grad():
        network.eval()(images)
    for handle in handles:
        handle.remove()
    return found, calls


def stages_and_blocks(network: nn.Module) -> list[str]:
    """What the papers cut at: children of the network, and the members of its stages."""
    names = [name for name, _ in network.named_children()]
    parents = [f"layer{i}" for i in (1, 2, 3, 4)] + [f"block{i}.layer" for i in (1, 2, 3)]
    for parent in (*parents, "features", "blocks", "classifier"):
        if parent in dict(network.named_modules()):
            names += [f"{parent}.{name}" for name, _ in network.get_submodule(parent).named_children()]
    return names


# Every type


@functools.cache
def passed(name: str) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """What a network of seven classes does with images of two channels."""
    images = torch.zeros(2, 2, size_of(name), size_of(name), device="meta")
    return shapes(on_meta(name, classes=7, channels=2), images)


@pytest.mark.parametrize("name", models.MODELS)
def test_every_type_maps_images_of_any_channels_to_logits_through_stages_called_once(name):
    found, calls = passed(name)
    assert found[""] == (7,)
    blocks = stages_and_blocks(on_meta(name, classes=7, channels=2))
    assert {block: calls.get(block) for block in blocks if calls.get(block) != 1} == {}


@pytest.mark.parametrize("kind", ["patch4_32", "patch16_224"])
@pytest.mark.parametrize("size", VIT_DEPTHS)
def test_every_block_of_a_transformer_passes_its_tokens(size, kind):
    found, _ = passed(f"vit_{size}_{kind}")
    blocks = {layer: shape for layer, shape in found.items() if layer.startswith("blocks.") and layer.count(".") == 1}
    assert list(blocks) == [f"blocks.{i}" for i in range(VIT_DEPTHS[size])]
    assert set(blocks.values()) == {(65 if kind == "patch4_32" else 197, VIT_WIDTHS[size])}


def test_transformers_have_the_papers_heads_and_hidden_widths():
    heads = {"tiny": 3, "small": 6, "medium": 8, "base": 12, "large": 16, "huge": 16, "giant": 16, "gigantic": 16}
    for size, width in VIT_WIDTHS.items():
        block = on_meta(f"vit_{size}_patch4_32", classes=7, channels=2).blocks[0]
        assert block.attn.num_heads == heads[size] and block.mlp.fc1.out_features == 4 * width


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "pytorch_cifar_resnet18",
        "preact_resnet18",
        "liu2020_wrn",
        "resnet20",
        "cifar_resnet18_maxpool",
        "lenet",
        "small_cnn",
        "CNN002",
        "mlp_bn",
        "vit_tiny_patch4_32",
        "tv_resnet18",
    ],
)
def test_a_traced_network_keeps_its_blocks_and_its_logits(name):
    torch.manual_seed(0)
    network = models.build(name, 10).eval()
    cuts = stages_and_blocks(network)

    class Blocks(fx.Tracer):
        def is_leaf_module(self, module, qualified_name):
            return not any(cut.startswith(f"{qualified_name}.") for cut in cuts)

    # timm's forward has arguments of its own besides the images; they keep their defaults.
    defaults = {"attn_mask": None, "is_causal": False} if name.startswith("vit") else None
    graph = Blocks().trace(network, concrete_args=defaults)
    called = [node.target for node in graph.nodes if node.op == "call_module"]
    assert len(set(called)) == len(called)
    assert {cut for cut in cuts if "." in cut} <= set(called)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(fx.GraphModule(network, graph)(images), network(images))


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet20",
        "preact_resnet18",
        "liu2020_wrn",
        "small_cnn",
        "lenet",
        "CNN002",
        "vit_tiny_patch4_32",
        "pytorch_cifar_resnet18",
    ],
)
def test_weights_come_from_the_global_torch_generator_alone(name):
    import random

    import numpy as np

    states = random.getstate(), np.random.get_state()[1].tolist()
    torch.manual_seed(3)
    first = models.build(name, 10).state_dict()
    torch.manual_seed(3)
    second = models.build(name, 10).state_dict()
    torch.manual_seed(4)
    other = models.build(name, 10).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert states == (random.getstate(), np.random.get_state()[1].tolist())


# Parameter counts: stitching 3.2 and 5, intermediate layers 4, OOD layers 4, hyperplanes 4, nearest category 3.3

COUNTS = {
    ("resnet18", 10): 11_173_962,
    ("resnet34", 10): 21_282_122,
    ("resnet50", 10): 23_520_842,
    ("resnet101", 10): 42_512_970,
    ("resnet152", 10): 58_156_618,
    ("wide_resnet50_2", 10): 66_847_050,
    ("wide_resnet101_2", 10): 124_850_506,
    ("resnet18_samewidth", 10): 607_050,
    ("resnet18_samesize", 10): 11_173_962,
    ("resnet18_samewidth_samesize", 10): 594_378,
    ("tv_resnet18", 1000): 11_689_512,
    ("tv_resnet34", 1000): 21_797_672,
    ("tv_resnet50", 1000): 25_557_032,
    ("tv_resnet101", 1000): 44_549_160,
    ("tv_resnet152", 1000): 60_192_808,
    ("tv_resnet18", 10): 11_181_642,
    ("tv_resnet18", 100): 11_227_812,
    ("ResNet50", 99): 23_710_883,
    ("cifar_resnet18_maxpool", 10): 11_173_962,
    ("pytorch_cifar_resnet50", 10): 23_520_842,
    ("pytorch_cifar_resnet18", 10): 11_173_962,
    ("resnet20", 10): 269_722,
    ("preact_resnet18", 10): 12_548_426,
    ("preact_resnet34", 10): 22_656_586,
    ("wide_resnet_28_10", 10): 36_479_194,
    ("wide_resnet_34_10", 10): 46_160_474,
    ("liu2020_wrn", 10): 2_243_546,
    ("WRN_40_10", 9): 55_841_113,
    ("WRN_40_10", 19): 55_847_523,
    ("small_cnn", 10): 98_736,
    ("lenet", 10): 130_160,
    ("lenet", 100): 137_810,
    ("lenet", 1000): 214_310,
    ("alexnet", 10): 57_044_810,
    ("alexnet", 100): 57_413_540,
    ("alexnet", 1000): 61_100_840,
    ("vgg11", 10): 128_807_306,
    ("vgg11", 100): 129_176_036,
    ("vgg11", 1000): 132_863_336,
    ("vgg13", 10): 128_991_818,
    ("vgg13", 100): 129_360_548,
    ("vgg13", 1000): 133_047_848,
    ("vgg16", 10): 134_301_514,
    ("vgg16", 100): 134_670_244,
    ("vgg16", 1000): 138_357_544,
    ("vgg19", 10): 139_611_210,
    ("vgg19", 100): 139_979_940,
    ("vgg19", 1000): 143_667_240,
    ("vgg19_orig", 10): 139_611_210,
    ("vgg11bn", 10): 128_812_810,
    ("vgg13bn", 10): 128_997_706,
    ("vgg16bn", 10): 134_309_962,
    ("vgg19bn", 10): 139_622_218,
    ("mlp", 10): 37_809_162,
    ("mlp_bn", 10): 37_841_930,
    ("vit_tiny_patch4_32", 10): 5_362_762,
    ("vit_small_patch4_32", 10): 21_342_346,
    ("vit_medium_patch4_32", 10): 37_893_642,
    ("vit_base_patch4_32", 10): 85_152_010,
    ("vit_tiny_patch16_224", 1000): 5_717_416,
    ("vit_small_patch16_224", 1000): 22_050_664,
    ("vit_medium_patch16_224", 1000): 38_837_736,
    ("vit_base_patch16_224", 1000): 86_567_656,
}


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(("name", "classes"), COUNTS)
def test_parameter_counts_are_the_papers(name, classes):
    assert count(on_meta(name, classes)) == COUNTS[name, classes]


def test_one_channel_networks_have_the_papers_counts():
    assert count(models.build("lenet", 10, 1, 28)) == 130_052
    assert count(models.build("CNN002", 9, 1, 28)) == 312_001


@pytest.mark.parametrize("name", ["resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2"])
def test_wide_and_grouped_resnets_differ_from_torchvisions_by_the_stem_alone(name):
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, num_classes=10)
    theirs, ours = theirs.state_dict(), on_meta(name).state_dict()
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if ours[key].shape != theirs[key].shape] == ["conv1.weight"]


# Initialisations: stitching 5, hyperplanes 2.4 and 4, nearest category 3.3


def test_residual_convolutions_are_drawn_kaiming_fan_out():
    torch.manual_seed(0)
    for name in ("resnet18", "preact_resnet18", "liu2020_wrn", "resnet20"):
        for module in models.build(name, 10).modules():
            if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
                fan_out = module.out_channels * math.prod(module.kernel_size)
                assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
            elif isinstance(module, nn.BatchNorm2d):
                assert (module.weight == 1).all() and (module.bias == 0).all()


def test_projections_on_the_ones_vector_have_the_null_models_variance():
    """Hyperplanes, section 2.4: variance of the sum of a filter's weights at initialisation, within 5 sqrt(2/N)."""
    torch.manual_seed(0)
    small, deep, mlp = models.build("lenet", 10), models.build("vgg11bn", 10), models.build("mlp", 10)
    torch_default = models.build("alexnet", 10, 3, 64)
    cases = [
        (small.features[10], 4 * 16 / (16 + 64)),
        (small.classifier[0], 4 * 576 / (576 + 120)),
        (deep.features[0], 2 * 3 / 64),
        (deep.features[4], 1),
        (deep.classifier[0], 2.509),
        (deep.classifier[3], 0.410),
        (torch_default.features[3], 1 / 3),
        (torch_default.classifier[1], 1 / 3),
        (mlp.hidden1.fc, 1.5),
        (mlp.hidden2.fc1, 8),
        (mlp.hidden2.fc2, 0.5),
    ]
    for layer, variance in cases:
        sums = layer.weight.detach().flatten(1).double().sum(1)
        assert sums.square().mean().item() == pytest.approx(variance, rel=5 * (2 / len(sums)) ** 0.5)
    for layer in (small.features[10], deep.features[0], deep.classifier[0], mlp.hidden2.fc1):
        assert (layer.bias == 0).all()


def test_the_original_vgg_draws_everything_with_deviation_one_hundredth():
    torch.manual_seed(0)
    network = models.build("vgg19_orig", 2)
    for layer in (network.features[0], network.features[34], network.classifier[3]):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1) and (layer.bias == 0).all()


def test_a_first_convolution_for_one_channel_is_drawn_kaiming_fan_out():
    torch.manual_seed(0)
    conv = models.build("tv_resnet18", 10, 1).conv1
    assert (conv.in_channels, conv.kernel_size, conv.stride, conv.bias) == (1, (7, 7), (2, 2), None)
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.1)
    conv = models.build("alexnet", 10, 1, 64).features[0]
    assert (conv.in_channels, conv.kernel_size, conv.stride) == (1, (11, 11), (4, 4)) and (conv.bias == 0).all()


def test_a_fresh_cnn002_answers_with_equal_logits():
    network = models.build("CNN002", 9, 1, 28)
    assert (network(torch.rand(4, 1, 28, 28)) == 0).all()
    assert network.feature_extractor.conv2.weight.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)


def test_the_padded_shortcut_subsamples_between_channels_of_zeros():
    x = torch.rand(2, 4, 6, 6)
    out = PadShortcut(4)(x)
    assert out.shape == (2, 8, 3, 3) and torch.equal(out[:, 2:6], x[:, :, ::2, ::2])
    assert out[:, :2].abs().max() == out[:, 6:].abs().max() == 0


# What is refused


def test_the_registry_is_known_without_torch():
    code = "import sys, lib.models as m; m.check('resnet18'); m.check('timm:x'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_sizes_and_weights_are_of_known_types():
    assert models.SIZES.keys() | models.SMALLEST.keys() | models.WEIGHTS.keys() <= models.MODELS.keys()


def test_an_unknown_type_is_answered_with_near_matches():
    with pytest.raises(UsageError, match="resnet18") as error:
        models.check("resnet81")
    assert "timm:<timm name>" in str(error.value)
    with pytest.raises(UsageError, match="no such classifier.*resnet18"):
        models.build("tv:resnet81", 10)
    with pytest.raises(UsageError, match="no such model.*convnext_atto"):
        models.build("timm:convnext_ato", 10)
    with pytest.raises(UsageError, match="no such weights.*a1_in1k"):
        models.build("timm:resnet18.b1_in1k", 10)


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 224), ("resnet18", 28), ("vgg11", 28), ("alexnet", 32), ("vit_tiny_patch4_32", 64)]
)
def test_sizes_an_architecture_cannot_take_are_refused(name, size):
    with pytest.raises(UserError, match=f"{name} takes .* not {size} x {size}"):
        models.build(name, 10, 3, size)


@pytest.mark.parametrize("name", ["resnet18", "pytorch_cifar_resnet18"])
def test_images_of_another_size_are_refused_by_the_network_too(name):
    network = models.build(name, 10).eval()
    for size in (28, 64, 224):
        with pytest.raises(UserError, match=f"takes 32 x 32 images, not {size} x {size}"):
            network(torch.zeros(1, 3, size, size))


@pytest.mark.parametrize(
    "name", ["tv_resnet18", "ResNet50", "cifar_resnet18_maxpool", "resnet20", "liu2020_wrn", "preact_resnet18"]
)
def test_other_types_take_any_size(name):
    for size in (32, 64, 112):
        assert on_meta(name, size=size).eval()(torch.zeros(1, 3, size, size, device="meta")).shape == (1, 10)


@pytest.mark.parametrize("name", [*models.SMALLEST])
def test_the_smallest_size_is_the_smallest_that_works(name):
    least = models.SMALLEST[name]
    images = torch.zeros(2, 3, least, least, device="meta")
    assert on_meta(name, size=least).eval()(images).shape == (2, 10)


def test_too_few_classes_or_channels_are_refused():
    with pytest.raises(UserError, match="1 classes: a classifier needs at least 2"):
        models.build("resnet18", 1)
    with pytest.raises(UserError, match="0 channels"):
        models.build("resnet18", 10, 0)


# Other people's networks


def test_torchvision_and_timm_networks_are_built_by_name():
    assert count(models.build("tv:squeezenet1_1", 7, 1, 64)) > 0
    assert models.build("tv:vit_b_16", 7, 3, 32).encoder.pos_embedding.shape == (1, 5, 768)
    network = models.build("timm:test_vit", 7, 1, 32)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7) and network.training
    assert models.build("timm:test_resnet.r160_in1k", 7, 2, 48)(torch.zeros(2, 2, 48, 48)).shape == (2, 7)


def test_networks_with_auxiliary_heads_answer_with_logits_in_training_too():
    network = models.build("tv:googlenet", 7, 3, 64).train()
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 7)


def test_a_size_another_librarys_network_cannot_take_is_a_sentence():
    with pytest.raises(UserError, match="tv:vit_b_16 cannot take 3 x 40 x 40 images"):
        models.build("tv:vit_b_16", 10, 3, 40)


NETWORK = """
from dataclasses import dataclass
from torch import nn

@dataclass
class Shape:
    width: int = 4

def network(classes, channels, image_size):
    w = Shape().width
    return nn.Sequential(nn.Conv2d(channels, w, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(w, classes))

def wrong_head(classes, channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes + 1))

def broken(classes, channels, image_size):
    raise RuntimeError("no such luck")

def number(classes, channels, image_size):
    return 3

def big(classes, channels, image_size):
    return nn.Sequential(nn.Conv2d(channels, 2, 99), nn.Flatten(), nn.LazyLinear(classes))
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(NETWORK)
    trusted_files.trust(tmp_path / "own.py", tmp_path / "typo.py")
    return str(tmp_path / "own.py")


def test_a_network_of_ones_own_is_built_from_its_file(own):
    network = models.build(f"{own}:network", 5, 1, 12)
    assert network(torch.zeros(3, 1, 12, 12)).shape == (3, 5) and network.training


def test_mistakes_in_a_network_of_ones_own_are_sentences(own, tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        models.check(f"{tmp_path}/nowhere.py:network")
    with pytest.raises(UsageError, match="say which of its functions"):
        models.check(own)
    with pytest.raises(UsageError, match="no function netwrok; did you mean network"):
        models.build(f"{own}:netwrok", 5)
    with pytest.raises(UserError, match=r"broken\(5, 3, 32\) failed: RuntimeError: no such luck \(line 17\)"):
        models.build(f"{own}:broken", 5)
    with pytest.raises(UserError, match="returned a int, not an nn.Module"):
        models.build(f"{own}:number", 5)
    with pytest.raises(UserError, match=r"shape \(2, 6\), not with logits of shape \(2, 5\)"):
        models.build(f"{own}:wrong_head", 5)
    with pytest.raises(UserError, match="cannot take 3 x 32 x 32 images"):
        models.build(f"{own}:big", 5)
    (tmp_path / "typo.py").write_text("x = 1\ndef network(:\n")
    with pytest.raises(UserError, match=r"SyntaxError: .*\(line 2\)"):
        models.build(f"{tmp_path}/typo.py:network", 5)


# Published weights, without a network


@pytest.fixture
def published(monkeypatch):
    """torchvision's download, replaced by the weights of a network drawn here."""
    torch.manual_seed(7)
    state = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **options: state)
    return state


def test_published_weights_are_loaded_with_their_normalisation(published):
    network, *normalisation = models.build_pretrained("tv_resnet18", 1000, 3, 224)
    assert all(torch.equal(value, published[key]) for key, value in network.state_dict().items())
    assert normalisation == [(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)]


def test_a_head_for_other_classes_is_new_and_said_to_be(published):
    with pytest.warns(UserWarning, match="are for 1000 classes: the head for 10 is new"):
        network = models.build_pretrained("tv:resnet18", 10, 3, 32).network
    assert network.fc.out_features == 10
    assert torch.equal(network.layer4[1].conv2.weight, published["layer4.1.conv2.weight"])


def test_timms_weights_are_adapted_to_channels_and_classes(monkeypatch):
    state = timm.create_model("test_vit").state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *args, **options: dict(state))
    with pytest.warns(UserWarning, match="the head for 10 is new"):
        network, *normalisation = models.build_pretrained("timm:test_vit", 10, 1, 160)
    assert torch.equal(network.blocks[0].mlp.fc1.weight, state["blocks.0.mlp.fc1.weight"])
    torch.testing.assert_close(network.patch_embed.proj.weight, state["patch_embed.proj.weight"].sum(1, keepdim=True))
    assert normalisation == [(0.5,), (0.5,)]


def test_googlenet_is_normalised_as_its_weights_were(monkeypatch):
    """Loaded by torchvision it turns ImageNet's normalisation into another inside; ours takes that one from outside."""
    state = torchvision.models.googlenet(init_weights=False).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **options: state)
    ours, *normalisation = models.build_pretrained("tv:googlenet", 1000, 3, 64)
    theirs = torchvision.models.googlenet(weights="DEFAULT").eval()
    images = torch.rand(2, 3, 64, 64)
    imagenet = torchvision.transforms.functional.normalize(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    outside = torchvision.transforms.functional.normalize(images, *normalisation)
    torch.testing.assert_close(ours.eval()(outside), theirs(imagenet), rtol=1e-4, atol=1e-5)


def test_published_weights_that_do_not_fit_are_refused(published):
    with pytest.raises(UserError, match="do not fit a network for 1-channel images"):
        models.build_pretrained("tv_resnet18", 1000, 1, 224)


@pytest.mark.parametrize("name", ["resnet18", "lenet", "vgg19_orig", "vit_tiny_patch4_32", "vit_huge_patch16_224"])
def test_types_without_published_weights_say_so(name):
    with pytest.raises(UserError, match=f"no weights are published for {name}"):
        models.build_pretrained(name, 1000, 3, size_of(name))


def test_weights_that_cannot_be_downloaded_are_one_sentence(monkeypatch):
    def offline(*args, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(UserError, match="weights of tv:resnet18 could not be downloaded .*no route to host.*; fetch"):
        models.build_pretrained("tv_resnet18", 1000, 3, 224)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(UserError, match="weights of timm:test_vit could not be downloaded .*no route to host"):
        models.build_pretrained("timm:test_vit", 1000, 3, 160)


def test_a_timm_model_without_weights_says_so():
    with_weights = {name.partition(".")[0] for name in timm.list_models(pretrained=True)}
    name = next(name for name in timm.list_models("resnet*") if name not in with_weights)
    with pytest.raises(UserError, match=f"timm publishes no weights for {name}"):
        models.build_pretrained(f"timm:{name}", 10, 3, 64)


def test_every_source_of_published_weights_exists():
    timm_names = {name.partition(".")[0] for name in timm.list_models(pretrained=True)}
    for source in models.WEIGHTS.values():
        library, _, name = source.partition(":")
        assert name in (torchvision.models.list_models() if library == "tv" else timm_names)
