"""Networks of one's own that mix the images of a batch, have no module as head, tie their weights, or run layers again."""

import json

import pytest
import torch
from conftest import script
from torch import nn
from torch.nn import functional

from lib import models
from lib.core import trusted_files
from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.reinit import sweep, targets

BRIEF = ("-d", "digits", "--max-examples", 120, "-gpu", -1, "--trust", "own.py")

NETWORK = """
import torch
from torch import nn
from torch.nn import functional


class Unfixed(nn.Module):
    '''A batch normalisation without running statistics.'''

    def __init__(self, classes, channels, image_size):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, 4, 7, 7), nn.BatchNorm2d(4, track_running_stats=False)
        self.fc = nn.Linear(64, classes)

    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).flatten(1))


class Cosine(nn.Module):
    '''Cosines with the classes' vectors, which a function computes.'''

    def __init__(self, classes, channels, image_size):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 4, 5, 5), nn.ReLU(), nn.Conv2d(4, 8, 5))
        self.weight = nn.Parameter(torch.randn(classes, 8))

    def forward(self, x):
        features = functional.normalize(self.body(x).mean((2, 3)), dim=1)
        return functional.linear(features, functional.normalize(self.weight, dim=1))


class Tied(nn.Module):
    '''16 filters, and 16 more in a and again in c.'''

    def __init__(self, classes, channels, image_size):
        super().__init__()
        self.stem, self.a, self.c = nn.Conv2d(channels, 16, 5, 5), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3)
        self.c.weight = self.a.weight
        self.fc = nn.Linear(16, classes)

    def forward(self, x):
        return self.fc(self.c(self.a(self.stem(x).relu()).relu()).relu().mean((2, 3)))


class Two(nn.Module):
    '''Features and logits, of the same shape.'''

    def __init__(self, classes, channels, image_size):
        super().__init__()
        self.features, self.fc = nn.Linear(channels * image_size**2, classes), nn.Linear(classes, classes)

    def forward(self, x):
        features = self.features(x.flatten(1))
        return features, self.fc(features)


class InDict(Two):
    def forward(self, x):
        return {"features": x, "logits": super().forward(x)[1]}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own.py").write_text(NETWORK)
    return tmp_path


def trained(folder, kind: str) -> str:
    """The checkpoint of a network of `own.py`, briefly trained, and what its training said."""
    done = script("exec_train.py", f"own.py:{kind}", "-dir", kind, "-e", 1, "-lr", "3e-3", *BRIEF, cwd=folder)
    assert done.returncode == 0, done.stderr
    return f"models/{kind}/model_1.pt"


def rows(folder, experiment: str) -> list[dict]:
    """Those of the newest record of an experiment."""
    newest = max((folder / "results" / experiment).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(newest.read_text())["rows"]


def warnings_of(run) -> str:
    """What a run that ended well said, on one line."""
    assert run.returncode == 0, run.stderr
    return " ".join(run.stderr.split())


# --- images of a batch that depend on one another


class Standardised(nn.Module):
    """Maps less their mean over the batch, over its deviation."""

    def forward(self, maps):
        return functional.batch_norm(maps, None, None, training=True)


def behind(norm: nn.Module) -> tuple[list[str], list[str]]:
    """The layers that mix images in a network with this normalisation, and those of `answers_mix`."""
    torch.manual_seed(0)
    head = (nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(512, 10))
    network, images = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), norm, *head), torch.zeros(1, 1, 8, 8)
    return [layer.name for layer in cutting.layers(network, images) if layer.mixes], cutting.answers_mix(network, images)


def test_a_normalisation_by_the_batch_mixes_images_and_so_does_all_that_finishes_after_it():
    assert behind(nn.BatchNorm2d(8, track_running_stats=False)) == (["1", "2", "3", "4", "5"],) * 2
    assert behind(nn.BatchNorm2d(8)) == behind(nn.InstanceNorm2d(8)) == ([], [])


def test_a_normalisation_by_the_batch_that_is_no_module_shows_in_the_numbers():
    found, answers = behind(Standardised())
    assert "5" in found and answers == found


def test_every_script_that_measures_a_network_whose_answers_depend_on_the_batch_says_so(folder):
    network = trained(folder, "Unfixed")
    depends = "depends on the other images of"
    assert f"layer bn and 1 more: what they put out for an image {depends} its batch" in warnings_of(
        script("exec_ood_layers.py", network, "-ood", "patches", *BRIEF, cwd=folder)
    )
    for experiment in ("exec_eval.py", "exec_reinit.py"):
        words = ("--rand", 9) if experiment == "exec_reinit.py" else ()
        said = warnings_of(script(experiment, network, *words, *BRIEF, cwd=folder))
        assert f"its answer to an image {depends} the batch, from layer bn on" in said and "-b changes" in said
    together = [row.get("accuracy") for row in rows(folder, "reinit")]
    alone = script("exec_reinit.py", network, "--rand", 9, "--stack", 1, "--overwrite", *BRIEF, cwd=folder)
    warnings_of(alone)
    assert together == [row.get("accuracy") for row in rows(folder, "reinit")]


# --- what a network puts out


def test_a_script_says_once_which_of_several_outputs_are_the_logits(folder):
    for kind, line in {
        "InDict": 'type own.py:InDict puts out a dict of 2: its logits are "logits"',
        "Two": "type own.py:Two puts out a tuple of 2: its logits are the first of them, while number 1 and number 2 have "
        "the shape of logits; return the logits alone",
    }.items():
        said = warnings_of(script("exec_train.py", f"own.py:{kind}", "-dir", kind, "-e", 1, *BRIEF, cwd=folder))
        assert said.count("its logits are") == 1 and line in said, said
        assert ("shape of logits" in said) == (kind == "Two")


@pytest.mark.parametrize(("taken", "said"), [("()", "()"), ("(classes)", "(classes)"), ("(*, classes)", "(*, classes)")])
def test_a_function_of_other_arguments_is_told_which_it_must_take(tmp_path, taken, said):
    (tmp_path / "mine.py").write_text(f"def other{taken}:\n    return None\n")
    trusted_files.trust(tmp_path / "mine.py")
    with pytest.raises(UserError) as refused:
        models.build(f"{tmp_path}/mine.py:other", 10, 1, 8)
    assert str(refused.value).endswith(f"other{said} must be a function of (classes, channels, image_size)")


# --- networks without a module as head


class Functional(nn.Module):
    """Filters, and a head that a function computes."""

    def __init__(self):
        super().__init__()
        self.conv, self.weight = nn.Conv2d(1, 6, 3), nn.Parameter(torch.randn(10, 6))

    def forward(self, images):
        return functional.linear(self.conv(images).mean((2, 3)), self.weight)


class Distances(nn.Module):
    """A head of a kind of its own."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(10, 6))

    def forward(self, features):
        return -torch.cdist(features, self.centres)


def found_roles(*parts: nn.Module) -> dict[str, str]:
    return {layer.name: layer.role for layer in cutting.layers(nn.Sequential(*parts), torch.zeros(1, 1, 8, 8))}


def test_the_head_is_what_puts_out_a_number_per_class_and_no_other_module():
    assert {layer.name: layer.role for layer in cutting.layers(Functional(), torch.zeros(1, 1, 8, 8))} == {
        "conv": "convolution"
    }
    assert found_roles(Functional(), nn.Identity()) == {"0.conv": "convolution", "0": "head", "1": "head"}
    features = nn.Sequential(nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert found_roles(features, Distances())["1"] == "head" and found_roles(features, Distances())["0.0"] == "convolution"
    convolutions = found_roles(nn.Conv2d(1, 6, 3), nn.Conv2d(6, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert convolutions == {"0": "convolution", **dict.fromkeys(("1", "2", "3"), "head")}


def test_scripts_say_what_stands_for_the_head_of_a_network_that_has_none(folder):
    network = trained(folder, "Cosine")
    listed = script("exec_probe.py", network, "--list-layers", "--trust", "own.py", cwd=folder)
    assert "head" not in listed.stdout and "body.2" in listed.stdout, listed.stderr
    headless = "no module of the network puts out its logits, as where a function multiplies by the last weights"
    measured = script("exec_ood_layers.py", network, "-ood", "patches", *BRIEF, cwd=folder)
    against = f"{headless}: vs_final, gain_bound and p are against body.2, the deepest layer that is read"
    assert against in warnings_of(measured)
    refused = script("exec_ood_layers.py", network, "-ood", "patches", "--baselines", "all", *BRIEF, cwd=folder)
    assert refused.returncode == 1 and f"--baselines: {headless}; they need a linear layer that does" in refused.stderr
    probed = script("exec_probe.py", network, "-l", "all", "-e", 1, *BRIEF, cwd=folder)
    assert f"{headless}: there are no rows of its own head, and every layer is probed" in warnings_of(probed)
    probes = [row for row in rows(folder, "probe") if row["probe"] == "probe"]
    assert any("body.2" in (row["layer"], row.get("aliases")) for row in probes)
    assert not [row for row in rows(folder, "probe") if row["probe"] == "head"]


# --- weights that several layers share


class Tied(nn.Module):
    """a, b and c, where a and c share their filters and b is a cut between them."""

    def __init__(self, classes: int = 10, channels: int = 1, image_size: int = 28):
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 5, 3)
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.c.weight = self.a.weight
        self.fc = nn.Linear(256, classes)

    def forward(self, images):
        for layer in (self.stem, self.a, self.b, self.c):
            images = layer(images).relu()
        return self.fc(images.flatten(1))


@torch.no_grad()
def reset(network: nn.Module, layer: str, stacked: int) -> list[int]:
    """How many images are right for each of four draws of a layer's weights, as a sweep has it."""
    whole, images = Normalized(network, (0.5,), (0.3,)).eval(), torch.zeros(2, 1, 28, 28)
    units = targets.find(whole, images, [layer], False)
    draws = torch.Generator().manual_seed(1)
    weight = network.get_parameter(f"{layer}.weight")
    cells = [[{f"{layer}.weight": torch.randn(weight.shape, generator=draws)} for _ in range(4)]]
    batching = Batching(device=torch.device("cpu"), batch_size=32, quiet=True)
    return sweep.run(whole, noise(), units, cells, batching, stacked=stacked).cells[0, :, 0].tolist()


def noise() -> Split:
    images = torch.randint(0, 256, (96, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(96) % 10
    return Split("noise", "test", images, labels, classes=tuple("0123456789"))


@torch.no_grad()
def reset_by_hand(network: nn.Module, layer: str) -> list[int]:
    """The same with the weights written into the network."""
    whole, draws, right = Normalized(network, (0.5,), (0.3,)).eval(), torch.Generator().manual_seed(1), []
    weight = network.get_parameter(f"{layer}.weight")
    for _ in range(4):
        weight.copy_(torch.randn(weight.shape, generator=draws))
        split = noise()
        right.append(int((whole(split.images / 255).argmax(1) == split.labels).sum()))
    return right


class Again(Tied):
    """a runs behind b, too."""

    def __init__(self):
        super().__init__()
        self.c = self.a


@pytest.mark.parametrize(("kind", "layer"), [(Tied, "a"), (Tied, "c"), (Again, "a")])
@pytest.mark.parametrize("stacked", [1, 4])
def test_a_reset_layer_is_reset_wherever_its_weights_are(kind, layer, stacked):
    torch.manual_seed(0)
    made = kind()
    assert reset(made, layer, stacked) == reset_by_hand(made, layer)


def test_filters_that_two_layers_share_are_counted_once_and_both_layers_say_so(folder):
    network = trained(folder, "Tied")
    warnings_of(script("exec_projections.py", network, "--paper-json", "--trust", "own.py", cwd=folder))
    found = {row["layer"]: row for row in rows(folder, "projections")}
    assert {name: row["aliases"] for name, row in found.items()} == {"stem": None, "a": "c", "c": "a", "net": None}
    assert found["net"]["filters"] == found["net"]["counted"] == 32
    assert found["a"]["p_holm"] == found["c"]["p_holm"] <= 2 * found["a"]["p_value"]
    said = warnings_of(script("exec_reinit.py", network, "--rand", 2, *BRIEF, cwd=folder))
    assert "layer a shares weights with c: resetting one resets the other" in said
