"""Cutting changes nothing and computes nothing twice; recording leaves nothing behind."""

import collections

import pytest
import torch
from torch import fx, nn

from lib import models
from lib.core.errors import UserError
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.ood import early_exit
from lib.ood import rows as ood_rows
from lib.runs import plan

EXTERNAL = (
    "tv:densenet121",
    "tv:convnext_tiny",
    "tv:mobilenet_v3_small",
    "tv:regnet_x_400mf",
    "timm:convnext_atto",
    "timm:vit_tiny_patch16_224",
    "timm:resnet10t",
)
LARGE = 22e6  # parameters; larger networks are tested by hand: pytest -m slow


def parameters(name: str) -> int:
    with torch.device("meta"):
        network = models.build(name, 10, 3, size(name))
    return sum(parameter.numel() for parameter in network.parameters())


def size(name: str) -> int:
    if name in models.SIZES:
        return models.SIZES[name][0]
    return 224 if name == "timm:vit_tiny_patch16_224" else 64 if ":" in name or name == "alexnet" else 32


def zoo() -> list:
    slow = {name for name in models.MODELS if parameters(name) > LARGE}
    return [
        pytest.param(name, marks=pytest.mark.slow if name in slow or size(name) == 224 else ())
        for name in (*models.MODELS, *EXTERNAL)
    ]


def network(name: str) -> Normalized:
    torch.manual_seed(0)
    body = models.build(name, 10, 3, size(name))
    return Normalized(body, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)).eval()


def calls(module: nn.Module, inputs) -> tuple[torch.Tensor, collections.Counter]:
    """The output, and how often each leaf module ran."""
    count = collections.Counter()
    handles = [
        leaf.register_forward_hook(lambda leaf, *_: count.update([id(leaf)]))
        for leaf in module.modules()
        if not list(leaf.children()) and not isinstance(leaf, fx.GraphModule)
    ]
    with torch.no_grad():
        output = module(inputs)
    for handle in handles:
        handle.remove()
    return output, count


@pytest.mark.parametrize("name", zoo())
def test_cutting_at_each_cut_changes_no_bit_and_computes_nothing_twice(name):
    whole = network(name)
    images = torch.rand(2, 3, size(name), size(name))
    expected, all_calls = calls(whole, images)
    possible = cutting.cuts(whole)
    assert possible and expected.shape == (2, 10)
    for layer in possible[:: max(1, len(possible) // 12)]:
        front, back = cutting.cut(whole, layer)
        representation, front_calls = calls(front, images)
        kept = representation.clone()
        logits, back_calls = calls(back, representation)
        assert torch.equal(logits, expected), layer
        assert torch.equal(representation, kept), f"{layer}: the back changed what it was given"
        assert front_calls + back_calls == all_calls, layer


def test_a_front_puts_out_what_the_layer_puts_out():
    whole = network("resnet20")
    images = torch.rand(2, 3, 32, 32)
    for layer in ("conv1", "layer2.0", "layer3", "avgpool"):
        with cutting.record(whole, [layer]) as outputs, torch.no_grad():
            whole(images)
        assert torch.equal(cutting.cut(whole, layer)[0](images), outputs[layer]), layer


def test_a_bypassed_layer_is_refused_with_the_nearest_cuts():
    with pytest.raises(UserError, match=r"layer layer2\.1\.conv1: a connection bypasses it.*layer2\.0, layer2\.1"):
        cutting.cut(network("resnet20"), "layer2.1.conv1")


def test_an_unknown_layer_is_refused_with_near_names():
    with pytest.raises(UserError, match=r"layer layer2\.9: the network has no such layer; did you mean layer2"):
        cutting.cut(network("resnet20"), "layer2.9")


class Odd(nn.Module):
    """Runs one module twice, another never, a third in place, and takes an argument with a default."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.unused = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm, self.last = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x, scale=2):
        x = self.first(x.flatten(1)[:, :4]) * scale
        x = self.again(self.again(x))
        x = self.norm(x)
        x.relu_()
        if scale is not None:
            x = x + scale
        return self.last(x)


def test_a_users_own_network_is_cut_with_its_defaults_and_in_place_statements():
    odd, images = Odd().eval(), torch.rand(5, 1, 2, 2)
    assert cutting.cuts(odd) == ["first", "norm", "last"]
    for layer in cutting.cuts(odd):
        front, back = cutting.cut(odd, layer)
        representation = front(images)
        kept = representation.clone()
        assert torch.equal(back(representation), odd(images)) and torch.equal(representation, kept), layer
    with pytest.raises(UserError, match="layer again: runs 2 times"):
        cutting.cut(odd, "again")
    with pytest.raises(UserError, match="layer unused: does not run"):
        cutting.cut(odd, "unused")


def test_both_parts_share_the_parameters_of_the_network():
    whole = network("lenet")
    front, back = cutting.cut(whole, "features.5")
    ids = {id(parameter) for parameter in whole.parameters()}
    parts = [id(parameter) for part in (front, back) for parameter in part.parameters()]
    assert set(parts) == ids and len(parts) == len(ids)


def test_record_reduces_before_later_in_place_operations_change_the_tensor():
    whole, images = network("tv_resnet18"), torch.rand(2, 3, 64, 64)
    block = whole.body.layer1[0]
    with cutting.record(whole, ["maxpool", "layer1.0.bn1"]) as outputs, torch.no_grad():
        whole(images)
    with torch.no_grad():
        expected = block.bn1(block.conv1(outputs["maxpool"]))
    assert expected.min() < 0 and torch.equal(outputs["layer1.0.bn1"], expected)


def test_record_keys_repeated_calls_by_index():
    odd, images = Odd().eval(), torch.rand(5, 1, 2, 2)
    with cutting.record(odd, ["again"]) as outputs, torch.no_grad():
        odd(images)
        odd(images)
    assert list(outputs) == ["again", "again@2"]
    assert torch.equal(outputs["again@2"], odd.again(outputs["again"]))


def test_hooks_are_gone_after_an_exception():
    whole = network("lenet")
    with pytest.raises(RuntimeError), cutting.record(whole, ["features.0", "classifier.6"]):
        whole(torch.rand(1, 7, 32, 32))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in whole.modules())


def test_layers_are_listed_in_execution_order_with_shapes_and_costs():
    listed = {layer.name: layer for layer in cutting.layers(network("tv_resnet18"), torch.zeros(1, 3, 32, 32))}
    assert listed["layer2.0"].shape == (128, 4, 4) and listed["layer2.0"].cut
    assert listed["layer2.0.downsample.0"].index > listed["layer2.0.bn2"].index and not listed["layer2.0.bn2"].cut
    spent = cutting.macs_before(list(listed.values()))
    total = sum(layer.macs for layer in listed.values() if layer.kind in ("Conv2d", "Linear"))
    assert round(total / 1e6, 2) == 37.02  # the OOD-layers paper's network on 32 px (section 1.3)
    assert round(100 * spent["conv1"], 1) == 6.5 and round(100 * spent["layer2.1.conv1"], 1) == 48.3
    assert spent["fc"] == 1
    assert "37.0 M MAC an image" in plan.about(network("tv_resnet18").body, "tv_resnet18", list(listed.values()))


class Padded(nn.Conv2d):
    """A convolution with a module inside, as EfficientNets for other frameworks' weights have them."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.padding_first = nn.ZeroPad2d(1)

    def forward(self, images):
        return super().forward(self.padding_first(images))


def test_what_a_module_does_beside_those_inside_it_is_counted_once():
    whole = Normalized(nn.Sequential(nn.Sequential(Padded(3, 4, 3), nn.ReLU()), nn.Flatten(), nn.Linear(256, 2)), (0,), (1,))
    listed = cutting.layers(whole, torch.zeros(1, 3, 8, 8))
    macs = {layer.name: (layer.macs, layer.own_macs) for layer in listed}
    assert macs["0.0"] == (64 * 108, 64 * 108) and macs["0.0.padding_first"] == (0, 0) and macs["0"] == (64 * 108, 0)
    spent = cutting.macs_before(listed)
    assert spent["0.0"] == spent["0"] == 64 * 108 / (64 * 108 + 512) and spent["0.0.padding_first"] == 0 and spent["2"] == 1


class Repeated(nn.Module):
    """stem, a, b, and a again, on smaller maps."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, stride=2)
        self.fc = nn.Linear(4, 2)

    def forward(self, images):
        return self.fc(self.a(self.b(self.a(self.stem(images)))).mean((2, 3)))


def test_each_run_of_a_layer_has_its_own_place_shape_and_share_of_the_work():
    listed = cutting.layers(Repeated(), torch.zeros(1, 3, 8, 8))
    done = {"stem": 768, "a": 1792, "b": 2048, "a@2": 2304, "fc": 2312}
    assert cutting.macs_before(listed) == pytest.approx({key: macs / 2312 for key, macs in done.items()})
    of_run = {key: next(layer for layer in listed if layer.name == key.partition("@")[0]).run(key) for key in done}
    assert sorted(of_run, key=lambda key: of_run[key].index) == list(done)
    assert of_run["a"].shape == (4, 8, 8) and of_run["a@2"].shape == (4, 4, 4)
    a = listed[1]
    assert (a.shape, a.calls, a.macs) == ((4, 8, 8), 2, 1024 + 256)


def test_rows_of_a_layer_that_runs_again_are_of_its_runs_and_early_exits_spend_what_is_done_by_then():
    whole = Normalized(Repeated(), (0,), (1,))
    listed = cutting.layers(whole, torch.zeros(1, 3, 8, 8))
    facts = ood_rows.facts(whole, listed, ["stem", "a", "a@2", "b", "fc"])
    assert [told["execution_index"] for told in facts.values()] == [0, 1, 3, 2, 4]
    assert [told["dim"] for told in facts.values()] == [256, 256, 64, 64, 2]
    assert [round(told["mac_fraction"], 3) for told in facts.values()] == [0.332, 0.775, 0.997, 0.886, 1]
    assert early_exit.default_exits(listed) == ["stem", "b", "fc"]  # `a` is no cut


def test_listing_leaves_modes_and_statistics_as_they_were():
    whole = network("resnet20").train()
    whole.body.layer1.eval()
    before = {key: value.clone() for key, value in whole.state_dict().items()}
    cutting.layers(whole, torch.rand(2, 3, 32, 32))
    assert whole.body.layer2.training and not whole.body.layer1.training
    assert all(torch.equal(value, before[key]) for key, value in whole.state_dict().items())


def test_layers_are_selected_by_name_glob_and_group():
    known = ["conv1", "layer1.0", "layer1.0.conv1", "fc"]
    groups = {"all": known, "cuts": ["conv1", "layer1.0", "fc"]}
    assert cutting.select(known, ("fc", "layer1.*"), groups) == ["layer1.0", "layer1.0.conv1", "fc"]
    assert cutting.select(known, ("cuts",), groups) == ["conv1", "layer1.0", "fc"]
    with pytest.raises(UserError, match="--layers layer9: no layer is called so"):
        cutting.select(known, ("layer9",), groups)


def test_a_record_may_reduce_every_layer_in_its_own_way():
    whole = network("resnet20")
    reduce = {"conv1": lambda output: output.sum(), "fc": lambda output: output.shape}
    with torch.no_grad(), cutting.record(whole, ["conv1", "fc"], reduce) as outputs:
        whole(torch.rand(2, 3, 32, 32))
    assert outputs["conv1"].ndim == 0 and outputs["fc"] == (2, 10)
