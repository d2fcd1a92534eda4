"""Features of layers: one pass, nothing computed beyond the deepest layer."""

import pytest
import torch

from lib import models
from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.models.reducers import reducer
from lib.representations.features import Tap, collect, reducers_of
from lib.representations.passes import features, flatten, represent

average = reducer("gap")
BATCHES_OF_5 = Batching(batch_size=5, quiet=True)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Normalized(models.build("resnet20", 10), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).eval()


@pytest.fixture(scope="module")
def data():
    images = torch.randint(0, 256, (13, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return Split(name="noise", split="all", images=images, labels=torch.arange(13))


@pytest.mark.parametrize("layer", ["conv1", "layer2.1", "layer3"])
@pytest.mark.parametrize("reduce", [flatten, average])
def test_features_are_what_the_front_of_a_cut_puts_out(network, data, layer, reduce):
    with torch.no_grad():
        expected = reduce(cutting.cut(network, layer)[0](data.images.float() / 255))
    found = features(network, data, layer, BATCHES_OF_5, reduce)
    assert torch.allclose(found, expected, atol=1e-6) and found.shape == expected.shape


def test_nothing_behind_the_deepest_layer_runs(network, data):
    ran = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, module in network.body.named_modules()
    ]
    found = list(represent(network, data, ["layer2.0", "conv1"], Batching(batch_size=13, quiet=True), average))
    for handle in handles:
        handle.remove()
    assert list(found[0]) == ["layer2.0", "conv1"] and ran[-1].startswith("layer2.0") and "layer2.1" not in ran
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_an_unknown_layer_is_refused(network, data):
    with pytest.raises(UserError, match="no such layer"):
        features(network, data, "layer9", BATCHES_OF_5)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused_by_layer_and_image(number):
    class Breaks(torch.nn.Module):
        """Puts out a number in the place of the first feature of white images."""

        def forward(self, images):
            return torch.where(images.flatten(1).mean(1, keepdim=True) == 1, number, images.flatten(1))

    images = torch.zeros(7, 1, 2, 2, dtype=torch.uint8)
    images[5] = 255
    split = Split(
        "made up", "test", images, torch.zeros(7, dtype=torch.int64), indices=torch.arange(10, 17), variant="fog-3"
    )
    network = Normalized(torch.nn.Sequential(torch.nn.Identity(), Breaks(), torch.nn.Flatten()))
    assert collect(network, split, reducers_of([Tap("0", "flatten")]), BATCHES_OF_5).images_seen == 7
    with pytest.raises(UserError, match="^layer 1 puts out NaN or infinite numbers for image 15 of made up:test/fog-3, so"):
        collect(network, split, reducers_of([Tap("0", "flatten"), Tap("1", "flatten")]), BATCHES_OF_5)


def test_large_numbers_that_are_finite_are_no_reason_to_refuse():
    images = torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)
    split = Split("made up", "test", images, torch.zeros(2, dtype=torch.int64))
    scale = torch.nn.Conv2d(1, 1, 1, bias=False)
    scale.weight.data.fill_(3e38)
    network = Normalized(torch.nn.Sequential(scale))
    found = collect(network, split, reducers_of([Tap("0", "flatten")]), BATCHES_OF_5).features[Tap("0", "flatten")]
    assert found.rows().isfinite().all()
