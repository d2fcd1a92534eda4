"""Streaming is the naive loop over layers and sources, to the bit, and leaves the network as it was."""

import pytest
import torch
from torch import nn

from lib import models
from lib.core.errors import Interrupted, UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.reinit import batchnorm, criticality, fold_pool, sweep, targets
from lib.reinit import rows as reinit_rows
from lib.reinit.stages import cut_stages, walk
from lib.reinit.sweep import Checkpointing

CASES = [
    ("lenet", False),
    ("vgg", True),
    ("resnet20", False),
    ("resnet20", True),
    ("preact_resnet18", False),
    ("vit_tiny_patch4_32", False),
    ("tv:densenet121", False),
    pytest.param("vgg11bn", True, marks=pytest.mark.slow),
    pytest.param("mlp_bn", True, marks=pytest.mark.slow),
]


def network(name: str, seed: int = 0, classes: int = 7) -> Normalized:
    torch.manual_seed(seed)
    body = Small(classes) if name == "vgg" else models.build(name, classes, 3, 32)
    for module in body.modules():  # statistics that matter
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return Normalized(body, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)).eval()


class Small(nn.Module):
    """A VGG in miniature: normalised, and with the pool that copies one position to four."""

    def __init__(self, classes: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(4),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(8),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(48, 16), nn.ReLU(True), nn.Linear(16, classes))

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def split(n: int, classes: int = 7) -> Split:
    labels = torch.randint(0, classes, (n,), generator=torch.Generator().manual_seed(1))
    return Split("noise", "test", images(n), labels, classes=tuple(map(str, range(classes))))


def cells_of(units, sources) -> list:
    return [[{key: source.body.state_dict()[key] for key in unit.keys} for source in sources] for unit in units]


def naive(whole: Normalized, cell: dict, batch: torch.Tensor) -> torch.Tensor:
    """Load, run all of it, restore: the obvious way."""
    before = {key: value.clone() for key, value in whole.body.state_dict().items()}
    whole.body.load_state_dict(before | cell)
    with torch.no_grad():
        logits = whole(batch)
    whole.body.load_state_dict(before)
    return logits


def some_layers(whole: Normalized) -> list[str]:
    """First, last and a few between: convolutions and linear maps, some inside blocks."""
    run = {layer.name for layer in cutting.layers(whole, torch.zeros(1, 3, 32, 32))}
    names = [
        name for name, module in whole.body.named_modules() if isinstance(module, nn.Conv2d | nn.Linear) and name in run
    ]
    return sorted({names[0], names[1], names[len(names) // 2], names[-2], names[-1]}, key=names.index)


def answers(whole, units, cells, batch, stacked=1) -> list[list[torch.Tensor]]:
    """Logits of every cell by streaming, for one batch of images in [0, 1]."""
    found = [[None] * len(cells[0]) for _ in units]
    parts, _ = cut_stages(whole, units, stacked > 1)
    with torch.no_grad():
        for stage, (activations,) in walk(parts, [batch]):
            for place in stage.units:
                for first in range(0, len(cells[place]), stacked):
                    logits = stage.answers(place, activations, cells[place][first : first + stacked])
                    found[place][first : first + stacked] = logits
    return found


@pytest.mark.parametrize("name, with_norms", CASES)
def test_streamed_logits_are_those_of_full_forwards_to_the_bit(name, with_norms):  # check 15
    whole, sources = network(name), [network(name, seed) for seed in (1, 2)]
    batch = images(3).float() / 255
    units = targets.find(whole, batch, some_layers(whole), with_norms)
    cells = cells_of(units, sources)
    streamed = answers(whole, units, cells, batch)
    stacked = answers(whole, units, cells, batch, stacked=2)
    for place, row in enumerate(cells):
        for source, cell in enumerate(row):
            expected = naive(whole, cell, batch)
            assert torch.equal(streamed[place][source], expected), units[place].layer
            assert torch.allclose(stacked[place][source], expected, rtol=1e-4, atol=1e-5), units[place].layer
            assert not torch.equal(expected, whole(batch))


@pytest.mark.parametrize("name", ("lenet", "resnet20"))
def test_a_sweep_counts_what_the_naive_loop_counts_and_changes_nothing(name):  # checks 14 and 15
    whole, sources, data = network(name), [network(name, seed) for seed in (1, 2)], split(50)
    batches = [(batch, labels) for batch, labels, _ in data.batches(16)]
    units = targets.find(whole, batches[0][0], some_layers(whole), False)
    cells = cells_of(units, sources)
    cells[0][1] = None
    before = {key: value.clone() for key, value in whole.state_dict().items()}
    modes = [module.training for module in whole.modules()]
    counts = sweep.run(whole, data, units, cells, Batching(batch_size=16, quiet=True))
    assert all(torch.equal(value, before[key]) for key, value in whole.state_dict().items())
    assert [module.training for module in whole.modules()] == modes

    def count(cell):
        logits = [(naive(whole, cell or {}, batch), labels) for batch, labels in batches]
        top1 = sum(int((answer.argmax(1) == labels).sum()) for answer, labels in logits)
        return [top1, sum(int((answer.topk(5).indices == labels[:, None]).sum()) for answer, labels in logits)]

    assert counts.images == 50 and counts.intact.tolist() == count(None)
    assert counts.cells.tolist() == [[count(cell) for cell in row] for row in cells]
    assert counts.cells[0, 1].tolist() == counts.intact.tolist()


def test_a_unit_runs_its_block_and_what_follows_and_nothing_before():
    whole = network("resnet20")
    batch = images(2).float() / 255
    layers = ["conv1", "layer2.1.conv1", "layer2.1.conv2", "fc"]
    units = {unit.layer: unit for unit in targets.find(whole, batch, layers, False)}
    assert units["conv1"].start is None
    assert units["layer2.1.conv1"].start == units["layer2.1.conv2"].start == "layer2.0"
    assert units["layer2.1.conv2"].end == "layer2.1"
    calls = []
    handles = [
        whole.body.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
        for name in ("conv1", "layer2.0", "layer2.1.conv1", "layer3.0", "fc")
    ]
    unit = [units["layer2.1.conv2"]]
    counts = sweep.run(
        whole, split(4), unit, cells_of(unit, [network("resnet20", 1)] * 2), Batching(batch_size=4, quiet=True)
    )
    for handle in handles:
        handle.remove()
    assert counts.images == 4
    found = {name: calls.count(name) for name in set(calls)}
    assert found == {"conv1": 1, "layer2.0": 1, "layer2.1.conv1": 3, "layer3.0": 3, "fc": 3}


def test_normalisations_go_along_only_if_asked_for():
    whole = network("vgg11bn")
    batch = torch.zeros(2, 3, 32, 32)
    (plain,) = targets.find(whole, batch, ["features.4"], False)
    (both,) = targets.find(whole, batch, ["features.4"], True)
    assert plain.keys == ("features.4.weight", "features.4.bias")
    assert set(both.keys) == {
        f"features.{key}" for key in ("4.weight", "4.bias", "5.weight", "5.bias", "5.running_mean", "5.running_var")
    }
    (block,) = targets.find(network("resnet20"), batch, ["layer1.0"], False)
    assert block.keys == ("layer1.0.conv1.weight", "layer1.0.conv2.weight")
    (norm,) = targets.find(network("resnet20"), batch, ["layer1.0.bn1"], False)
    assert norm.keys == ("layer1.0.bn1.weight", "layer1.0.bn1.bias")
    with pytest.raises(UserError, match="--layers features.1: ReLU owns no weights"):
        targets.find(network("lenet"), batch, ["features.1"], False)


def test_an_interrupted_sweep_continues_where_it_was(monkeypatch):
    whole, data = network("lenet"), split(40)
    units = targets.find(whole, torch.zeros(1, 3, 32, 32), ["features.0", "classifier.6"], False)
    cells = cells_of(units, [network("lenet", 1)])
    expected = sweep.run(whole, data, units, cells, Batching(batch_size=10, quiet=True))
    kept, seen, right = [], [], sweep._right

    def interrupting(logits, labels):
        seen.append(len(labels))
        if len(seen) == 8:  # in the third batch, three answers each
            raise Interrupted("stopped")
        return right(logits, labels)

    monkeypatch.setattr(sweep, "_right", interrupting)
    with pytest.raises(Interrupted):
        sweep.run(
            whole,
            data,
            units,
            cells,
            Batching(batch_size=10, quiet=True),
            checkpointing=Checkpointing(save=kept.append),
        )
    assert kept[-1].images == 20
    seen.clear()
    monkeypatch.setattr(sweep, "_right", lambda *both: seen.append(1) or right(*both))
    counts = sweep.run(whole, data, units, cells, Batching(batch_size=10, quiet=True), checkpointing=Checkpointing(kept[-1]))
    assert len(seen) == 6 and counts.images == 40
    assert torch.equal(counts.cells, expected.cells) and torch.equal(counts.intact, expected.intact)


def test_logits_that_are_no_numbers_are_not_forgotten_by_the_run_that_continues(monkeypatch):
    whole, other, kept = network("lenet"), network("lenet", 1), []
    data = split(40)
    units = targets.find(whole, torch.zeros(1, 3, 32, 32), ["features.0"], False)
    cells = cells_of(units, [other])
    cells[0][0] = {key: value * 1e38 for key, value in cells[0][0].items()}
    monkeypatch.setattr(sweep.saved_state, "SAVE_EVERY", 0)
    for _ in range(2):  # what the first leaves, the second would go on with
        checkpointing = Checkpointing(kept[-1] if kept else None, save=kept.append)
        with pytest.raises(UserError, match="NaN or infinite"):
            sweep.run(whole, data, units, cells, Batching(batch_size=10, quiet=True), checkpointing=checkpointing)
    assert not kept


def test_recalibrated_statistics_are_those_of_the_batches_with_the_cell_in_place():
    whole, source = network("resnet20"), network("resnet20", 1)
    batches = [images(6, seed).float() / 255 for seed in (0, 1)]
    units = targets.find(whole, batches[0], ["conv1", "layer2.1.conv2"], False)
    cells = cells_of(units, [source])
    before = {key: value.clone() for key, value in whole.state_dict().items()}
    found = batchnorm.recalibrated(whole, batches, units, cells)
    assert all(torch.equal(value, before[key]) for key, value in whole.state_dict().items())
    assert not any(module.training for module in whole.modules())
    # conv1: by hand, for the first normalisation and, through the network itself, for the last
    outputs = [
        nn.functional.conv2d((batch - whole.mean) / whole.std, source.body.conv1.weight, padding=1) for batch in batches
    ]
    means = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    variances = torch.stack([output.var((0, 2, 3)) for output in outputs]).mean(0)
    assert torch.allclose(found[0][0]["bn1.running_mean"], means, atol=1e-5)
    assert torch.allclose(found[0][0]["bn1.running_var"], variances, rtol=1e-4)
    other = network("resnet20")
    other.body.load_state_dict(other.body.state_dict() | cells[0][0])
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
            module.train()
    for batch in batches:
        other(batch)
    expected = other.body.state_dict()
    assert all(torch.allclose(found[0][0][key], expected[key], atol=1e-5) for key in expected if "running" in key)
    # what lies before the layer's block keeps its statistics, what follows does not
    assert not any(key.startswith(("bn1", "layer1", "layer2.0")) for key in found[1][0])
    assert "layer2.1.bn2.running_mean" in found[1][0] and "layer3.2.bn1.running_var" in found[1][0]
    assert torch.equal(answers(whole, units, found, batches[0])[1][0], naive(whole, found[1][0], batches[0]))


def test_folding_a_pool_that_copies_changes_logits_by_rounding_only():  # check 15, the last part
    whole, sources = network("vgg"), [network("vgg", 1)]
    batch = images(4).float() / 255
    folded, linear, positions = fold_pool.fold(whole, batch)
    assert (linear, positions) == ("classifier.0", 4) and folded.body.classifier[0].in_features == 12
    assert whole.body.classifier[0].in_features == 48 and folded.body.features[0].weight is whole.body.features[0].weight
    assert torch.allclose(folded(batch), whole(batch), rtol=1e-5, atol=1e-6)
    units = targets.find(whole, batch, ["features.0", "features.3", "classifier.0", "classifier.2"], False)
    cells = cells_of(units, sources)
    fitting = [
        [
            {
                key: fold_pool.folded_weight(value, 4) if key == "classifier.0.weight" else value
                for key, value in cell.items()
            }
            for cell in row
        ]
        for row in cells
    ]
    for plain, short in zip(answers(whole, units, cells, batch), answers(folded, units, fitting, batch), strict=True):
        assert torch.allclose(plain[0], short[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="--fold-pool: the network has no average pool"):
        fold_pool.fold(network("resnet20"), batch)


class Linear(nn.Module):
    """Logits are 4 weights times the images' means: a loss whose valley is known."""

    def __init__(self, scale: float):
        super().__init__()
        self.flatten, self.first, self.second = nn.Flatten(), nn.Linear(12, 2, bias=False), nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.first.weight.fill_(0)
            self.first.weight[0, :6], self.first.weight[1, 6:] = scale, scale
            self.second.weight.copy_(torch.eye(2))

    def forward(self, x):
        return self.second(self.first(self.flatten(x)))


def test_criticality_is_zero_for_a_layer_that_can_be_put_back_and_positive_for_one_that_cannot():
    whole = Normalized(Linear(1.0)).eval()
    batch = torch.zeros(8, 3, 2, 2)
    batch[:4].flatten(1)[:, :6], batch[4:].flatten(1)[:, 6:] = 1, 1
    labels = torch.tensor([0] * 4 + [1] * 4)
    units = targets.find(whole, batch, ["first", "second"], False)
    own = whole.body.state_dict()
    start = [{"first.weight": -own["first.weight"]}, {"second.weight": 1.01 * own["second.weight"]}]
    found = criticality.measure(whole, [(batch, labels)], units, start, tolerance=0.1, draws=2, seed=0)
    assert found[1] == 0 and found[0] > 0
    looser = criticality.measure(whole, [(batch, labels)], units, start, tolerance=50.0, draws=2, seed=0)
    assert looser == [0, 0]
    again = criticality.measure(whole, [(batch, labels)], units, start, tolerance=0.1, draws=2, seed=0)
    assert again == found


def test_a_network_that_cannot_be_traced_is_run_as_a_whole():
    class Untraceable(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 7)

        def forward(self, x):
            x = self.conv(x).mean((2, 3))
            return self.fc(x) if x.sum() > 0 else self.fc(-x)

    torch.manual_seed(0)
    whole, source = Normalized(Untraceable()).eval(), Normalized(Untraceable()).eval()
    batch = images(3).float() / 255
    units = targets.find(whole, batch, ["conv", "fc"], False)
    assert [unit.start for unit in units] == [None, None]
    cells = cells_of(units, [source])
    for row, cell in zip(answers(whole, units, cells, batch), cells, strict=True):
        assert torch.equal(row[0], naive(whole, cell[0], batch))


@pytest.mark.parametrize("layers, least", [(4, 2 / 24), (5, 2 / 120)])
def test_a_correlation_over_layers_states_the_least_p_and_has_none_that_cannot_be_small(layers, least):
    predictors = dict.fromkeys(reinit_rows.PREDICTORS)
    place = torch.randperm(layers, generator=torch.Generator().manual_seed(1)).tolist()
    rows = [
        {**predictors, "source": "0", "index": index, "relative_drop": float(index), "bias": float(place[index])}
        for index in range(layers)
    ]
    (row,) = reinit_rows.analysis({}, rows, 0)
    assert row["predictor"] == "bias" and row["layers"] == layers and row["p_least"] == pytest.approx(least)
    assert (row["p_value"] is None) == (layers == 4) and row["partial"] is None  # the drop is the depth
