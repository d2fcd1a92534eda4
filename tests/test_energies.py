"""The energy of an activation and of every layer: the acceptance checks of the OOD-layers paper."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import models
from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.ood.layer_energies import default_layers, energy, layer_energies

# registration order and D of the 41 layers of torchvision's ResNet-18 on 32 px (section 1.3 of the paper's page)
STAGES = {"layer1": 4096, "layer2": 2048, "layer3": 1024, "layer4": 512}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def split(n: int, channels: int = 3, size: int = 32) -> Split:
    images = torch.randint(0, 256, (n, channels, size, size), generator=generator(), dtype=torch.uint8)
    return Split(name="noise", split="all", images=images, labels=torch.zeros(n, dtype=torch.int64))


def resnet18(seed: int = 0, classes: int = 10) -> Normalized:
    torch.manual_seed(seed)
    return Normalized(models.build("tv_resnet18", classes, 3)).eval()


@pytest.mark.parametrize(
    "d, expected", [(16384, -9.7041), (4096, -8.3178), (2048, -7.6246), (1024, -6.9315), (512, -6.2383), (10, -2.3026)]
)
def test_energy_of_the_zero_vector_is_minus_log_d(d, expected):
    assert energy(torch.zeros(1, d)).item() == pytest.approx(expected, abs=1e-4)


def test_energy_falls_by_what_is_added():
    a = torch.randn(5, 300, generator=generator())
    assert torch.allclose(energy(a + 3.7) + 3.7, energy(a), atol=1e-5)


@pytest.mark.parametrize("scale", [0.01, 1, 30, 1e4])
def test_energy_lies_between_its_bounds_and_equals_logsumexp(scale):
    a = scale * torch.randn(20, 16, 8, 8, generator=generator())
    found, largest = energy(a).squeeze(1), a.flatten(1).amax(1)
    slack = 1e-5 * scale
    assert (found <= -largest + slack).all() and (found >= -largest - math.log(1024) - slack).all()
    assert torch.allclose(found.double(), -a.flatten(1).double().logsumexp(1), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("value", [-200.0, 150.0, -1e30])
def test_energy_is_exact_where_exponentials_overflow_or_vanish(value):
    assert energy(torch.full((3, 8), value))[0].item() == pytest.approx(-value - math.log(8), rel=1e-6)


def test_energy_does_not_depend_on_the_order_of_the_activations():
    a = torch.randn(4, 1000, generator=generator())
    assert torch.allclose(energy(a), energy(a[:, torch.randperm(1000, generator=generator())]), atol=1e-5)


@pytest.mark.parametrize("d, mean, mean_slack, deviation", [(16384, -10.204, 0.002, 0.0102), (512, -6.737, 0.005, 0.058)])
def test_energy_of_gaussian_activations(d, mean, mean_slack, deviation):
    found = energy(torch.randn(2000, d, generator=generator()))
    assert found.mean().item() == pytest.approx(mean, abs=mean_slack)
    assert found.std().item() == pytest.approx(deviation, rel=0.15)


def test_temperature_goes_from_the_maximum_to_the_mean():
    a = torch.randn(5, 16384, generator=generator(), dtype=torch.float64)
    cold, hot = energy(a, (1e-3, 1e4)).T
    assert torch.allclose(cold, -a.amax(1), atol=1e-2)
    assert torch.allclose(hot + 1e4 * math.log(16384), -a.mean(1), atol=1e-3)


def test_the_gradient_of_the_energy_is_minus_softmax():
    a = torch.randn(3, 50, generator=generator(), requires_grad=True)
    for temperature in (0.5, 1.0, 4.0):
        (gradient,) = torch.autograd.grad(energy(a, (temperature,)).sum(), a)
        assert torch.allclose(gradient, -(a / temperature).softmax(1), atol=1e-6)


def test_resnet18_has_the_papers_41_layers_in_the_papers_order():
    names = default_layers(resnet18())
    assert len(names) == 41 and names[:3] == ["conv1", "bn1", "layer1.0.conv1"] and names[-1] == "fc"
    assert names[10:16] == [
        "layer2.0.conv1",
        "layer2.0.bn1",
        "layer2.0.conv2",
        "layer2.0.bn2",
        "layer2.0.downsample.0",
        "layer2.0.downsample.1",
    ]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_fresh_network_has_energy_minus_log_d_on_the_zero_image(seed):
    network = resnet18(seed)
    zeros = Split(
        name="zeros",
        split="all",
        images=torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        labels=torch.zeros(2, dtype=torch.int64),
    )
    names, found, *_ = layer_energies(network, zeros, default_layers(network), Batching(batch_size=2, quiet=True))
    for name, value in zip(names, found[0, :, 0], strict=True):
        d = 16384 if name in ("conv1", "bn1") else STAGES.get(name.partition(".")[0])
        expected = -math.log(d) if d else -torch.logsumexp(network.body.fc.bias, 0).item()
        assert value == pytest.approx(expected, abs=1e-5), name


def test_values_equal_those_of_an_explicit_forward_pass_without_in_place_operations():
    network, images = resnet18(), torch.rand(3, 3, 32, 32)
    body, expected = network.body, {}

    def seen(name, tensor):
        expected[name] = -tensor.flatten(1).logsumexp(1)
        return tensor

    with torch.no_grad():
        x = F.relu(seen("bn1", body.bn1(seen("conv1", body.conv1(images)))))
        x = body.maxpool(x)
        for stage in STAGES:
            for number, block in enumerate(getattr(body, stage)):
                at = f"{stage}.{number}"
                y = F.relu(seen(f"{at}.bn1", block.bn1(seen(f"{at}.conv1", block.conv1(x)))))
                y = seen(f"{at}.bn2", block.bn2(seen(f"{at}.conv2", block.conv2(y))))
                if block.downsample is not None:
                    x = seen(f"{at}.downsample.0", block.downsample[0](x))
                    x = seen(f"{at}.downsample.1", block.downsample[1](x))
                x = F.relu(y + x)
        seen("fc", body.fc(body.avgpool(x).flatten(1)))
        with cutting.record(network, default_layers(network), reduce=energy) as outputs:
            network(images)
    assert list(outputs) and set(outputs) == set(expected)
    for name, value in outputs.items():
        assert torch.allclose(value.squeeze(1), expected[name], atol=1e-5), name


def test_energies_do_not_depend_on_the_batch_size_and_leave_no_hooks():
    network, data = resnet18(), split(33)
    layers = default_layers(network)
    results = [
        layer_energies(network, data, layers, Batching(batch_size=b, quiet=True), (1.0, 10.0)) for b in (1, 7, 32, 256)
    ]
    for names, found, logits, _ in results:
        assert names == layers and found.shape == (33, 41, 2) and found.dtype == np.float32
        assert np.allclose(found, results[0][1], atol=1e-4) and torch.allclose(logits, results[0][2], atol=1e-4)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    again = layer_energies(network, data, layers, Batching(batch_size=32, quiet=True), (1.0, 10.0))[1]
    assert np.array_equal(again, results[2][1])


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.head, self.idle = nn.Conv2d(3, 3, 1), nn.Linear(3, 4), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.shared(self.shared(x)).mean((2, 3)))


def test_a_module_called_twice_has_two_columns_and_an_idle_one_is_refused():
    network = Normalized(Twice())
    names, found, *_ = layer_energies(network, split(5), ["shared", "head"], Batching(batch_size=2, quiet=True))
    assert names == ["shared", "shared@2", "head"] and np.isfinite(found).all()
    with pytest.raises(UserError, match="layer idle does not run"):
        layer_energies(network, split(5), ["idle"], Batching(batch_size=2, quiet=True))
