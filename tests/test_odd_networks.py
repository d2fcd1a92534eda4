"""Networks of one's own that mix the images of a batch, have no module as head, tie their weights, or run layers again."""

import json

import pytest
import torch
from conftest import script
from torch import nn
from torch.nn import functional

from lib.models import cutting

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
