"""What is recorded of a layer has a row per image, whatever the layer puts out; what has none is refused by name."""

import pytest
import torch
from torch import nn

from lib.core.errors import UserError
from lib.models import cutting

IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Odd(nn.Module):
    """Tokens that stand before the images, windows in both orders, maps of windows, tuples, sums."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 2, 2)
        self.enc = nn.TransformerEncoderLayer(8, 2, 16)
        self.window, self.other_window, self.map_window = nn.Linear(8, 8), nn.Linear(8, 8), nn.Conv2d(8, 8, 1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mixed = nn.MultiheadAttention(8, 2)
        self.whole, self.summed = nn.Identity(), nn.Identity()
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        maps = self.embed(x)  # (b, 8, 4, 4)
        tokens = self.enc(maps.flatten(2).permute(2, 0, 1)).transpose(0, 1)  # (b, 16, 8)
        b = len(tokens)
        self.window(tokens.reshape(b * 4, 4, 8))
        self.other_window(tokens.reshape(b, 4, 4, 8).transpose(0, 1).reshape(4 * b, 4, 8))
        self.map_window(maps.reshape(b, 8, 4, 2, 2).transpose(1, 2).reshape(b * 4, 8, 2, 2))
        attended, _ = self.attention(tokens, tokens, tokens)
        mixing, _ = self.mixed(tokens, tokens, tokens)
        self.whole(torch.zeros(3, 8))
        self.summed(tokens.sum())
        return self.head(attended.mean(1))


@pytest.fixture(scope="module")
def odd() -> Odd:
    torch.manual_seed(0)
    return Odd().eval()


def recorded(network: nn.Module, layer: str, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), cutting.record(network, [layer]) as outputs:
        network(images)
    return outputs[layer]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("enc", (16, 8)),
        ("enc.linear1", (16, 16)),
        ("window", (16, 8)),
        ("other_window", (16, 8)),
        ("map_window", (8, 8, 2)),
        ("attention", (16, 8)),
        ("head", (4,)),
    ],
)
def test_what_is_recorded_of_an_image_does_not_depend_on_its_batch(odd, layer, shape):
    whole = recorded(odd, layer, IMAGES)
    assert whole.shape == (5, *shape)
    for number in range(5):
        torch.testing.assert_close(whole[number], recorded(odd, layer, IMAGES[number : number + 1])[0])


def test_windows_in_either_order_are_folded_into_their_image(odd):
    """Both linear layers see the same tokens of an image, in the same order once they are folded."""
    before = {name: [] for name in ("window", "other_window")}
    hooks = [
        getattr(odd, name).register_forward_pre_hook(lambda module, given, name=name: before[name].append(given[0]))
        for name in before
    ]
    with torch.no_grad(), cutting.record(odd, list(before), inputs=True) as inputs:
        odd(IMAGES)
    for hook in hooks:
        hook.remove()
    assert torch.equal(inputs["window"], inputs["other_window"])
    assert not torch.equal(before["window"][-1], before["other_window"][-1])


def test_layers_whose_output_is_of_no_image_are_refused_by_name_or_left_out_with_a_warning(odd):
    listed = cutting.layers(odd, IMAGES[:1])
    untapped = {layer.name: layer.untapped for layer in listed if layer.untapped}
    assert list(untapped) == ["whole", "summed"] and "3x8 for 2 images and 3x8 for 3" in untapped["whole"]
    with pytest.raises(UserError, match="-l whole: it puts out 3x8 for 2 images"):
        cutting.tapped(listed, ("whole",), "-l")
    with pytest.warns(UserWarning, match="-l: left out whole and 1 more"):
        assert "whole" not in cutting.tapped(listed, ("all",), "-l")
    with pytest.raises(UserError, match="layer summed: "):
        recorded(odd, "summed", IMAGES)


def test_layers_that_mix_the_images_of_a_batch_are_said_to(odd):
    listed = cutting.layers(odd, IMAGES[:1])
    assert [layer.name for layer in listed if layer.mixes] == ["mixed"]
    with pytest.warns(UserWarning, match="layer mixed: what they put out for an image depends on the other images"):
        cutting.tapped(listed, ("mixed",), "-l")


def test_looking_for_the_axis_leaves_no_trace_and_does_not_disturb_a_record_under_way(odd):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    network = Odd().train()
    torch.manual_seed(3)
    seen = []
    with cutting.record(network, ["head"], reduce=lambda output: seen.append(len(output))), torch.no_grad():
        network.eval()(IMAGES)
    assert seen == [5] and torch.equal(torch.rand(1), expected)
    assert not any(module._forward_hooks for module in network.modules())


def test_macs_are_those_of_one_image_wherever_its_axis_is(odd):
    macs = {layer.name: layer.macs for layer in cutting.layers(odd, IMAGES[:1])}
    assert macs["window"] == macs["other_window"] == 16 * 8 * 8 and macs["enc.linear1"] == 16 * 8 * 16
    assert macs["attention"] == 4 * 16 * 8 * 8


class Pair(nn.Linear):
    """Puts out a tuple."""

    def forward(self, input):
        return super().forward(input), input


class Traps(nn.Module):
    """In-place operations behind a tap, a module called twice, a tuple, a view that is written to."""

    def __init__(self):
        super().__init__()
        self.first, self.relu, self.again = nn.Linear(12, 12), nn.ReLU(inplace=True), nn.Linear(12, 12)
        self.pair, self.view, self.last = Pair(4, 4), nn.Flatten(), nn.Linear(12, 3)

    def forward(self, x):
        x = self.relu(self.first(x.flatten(1)[:, :12]))
        x = self.again(self.again(x))
        x.mul_(2)
        x, _ = self.pair(x.unflatten(1, (3, 4)))
        flat = self.view(x)
        x[:, 0] = 7
        return self.last(flat)


def test_traps_are_recorded_as_a_run_operation_by_operation_has_them():
    torch.manual_seed(0)
    net = Traps().eval()
    with torch.no_grad(), cutting.record(net, ["first", "relu", "again", "pair", "view", "last"]) as outputs:
        net(IMAGES)
    with torch.no_grad():
        first = net.first(IMAGES.flatten(1)[:, :12])
        relu = first.clamp(min=0)
        again = net.again(relu)
        twice = net.again(again)
        pair = net.pair((twice * 2).unflatten(1, (3, 4)))[0]
        changed = pair.clone()
        changed[:, 0] = 7
        wanted = dict(
            first=first, relu=relu, again=again, pair=pair, view=pair.flatten(1), last=net.last(changed.flatten(1))
        )
        wanted["again@2"] = twice
    assert outputs.keys() == wanted.keys()
    for name, output in outputs.items():
        assert torch.equal(output, wanted[name]), name


class ChannelsLast(nn.Module):
    """Maps whose channels stand behind them, as in Swin and inside ConvNeXt."""

    def __init__(self):
        super().__init__()
        self.embed, self.last, self.head = nn.Conv2d(3, 6, 2, 2), nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.last(self.embed(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_maps_with_their_channels_behind_them_are_recorded_with_channels_first_and_are_no_cuts():
    torch.manual_seed(0)
    network = ChannelsLast().eval()
    with torch.no_grad():
        maps = network.last(network.embed(IMAGES).permute(0, 2, 3, 1))
    assert torch.equal(recorded(network, "last", IMAGES), maps.permute(0, 3, 1, 2))
    listed = {layer.name: layer for layer in cutting.layers(network, IMAGES)}
    assert listed["last"].shape == (6, 4, 4) and not listed["last"].cut and listed["embed"].cut
    assert "channels behind them" in listed["last"].uncut
    with pytest.raises(UserError, match="channels behind them"):
        cutting.cut(network, "last", IMAGES)
    assert torch.equal(recorded(network, "embed", IMAGES), network.embed(IMAGES))
