"""Layers that put out the same are one representation, wherever layers are chosen, compared or drawn."""

import json

import pytest
import torch
from conftest import copied, script
from torch import nn

from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.probing import selection
from lib.probing.stacked_probes import initial
from lib.representations.aliases import SAME, Partition, distinct, same, settle
from lib.representations.passes import flatten


def groups(vectors: dict[str, torch.Tensor], **settings) -> list[list[str]]:
    partition = Partition(vectors)
    partition.add(vectors, **settings)
    return partition.groups


def test_vectors_are_the_same_up_to_a_millionth_of_the_largest_number_in_every_image():
    one = torch.randn(50, 8)
    one[0, 0] = 10
    near, far = one.clone(), one.clone()
    near[7, 3] += 0.9 * SAME * 10
    far[7, 3] += 1.2 * SAME * 10
    assert same(one, near) and not same(one, far) and not same(one, one[:, :4])
    assert groups({"a": one, "b": near, "c": far, "d": -one}) == [["a", "b"], ["c"], ["d"]]


def test_a_single_image_of_a_later_batch_tells_two_layers_apart():
    one = torch.randn(90, 5)
    other = one.clone()
    other[88, 2] += 0.01
    partition = Partition(["a", "b", "c"])
    for begin in range(0, 90, 30):
        rows = {"a": one, "b": other, "c": one}
        partition.add({name: rows[name][begin : begin + 30] for name in partition.undecided})
    assert partition.groups == [["a", "c"], ["b"]]


def test_numbers_kept_in_half_precision_are_compared_to_their_last_bit():
    one = torch.rand(20, 6) + 0.5
    stored = one.half().float()
    assert not same(one, stored) and same(one, stored, torch.finfo(torch.float16).eps)
    assert not same(one, stored * 1.01, torch.finfo(torch.float16).eps)


ORDER = ["layer2.1", "layer2", "layer3.0", "layer3.2.relu", "layer3.2", "layer3", "avgpool", "flatten"]


@pytest.mark.parametrize(
    "named, kept, counted",
    [
        ((), ["layer2", "layer3.0", "layer3"], 3),
        (("flatten",), ["layer2", "layer3.0", "flatten"], 3),
        (("avgpool", "flatten", "layer2.1"), ["layer2.1", "layer3.0", "avgpool", "flatten"], 3),
    ],
)
def test_the_outermost_module_of_the_earliest_layer_is_kept_beside_what_was_named(named, kept, counted):
    a, b, c = torch.randn(3, 4, 2)
    values = dict(zip(ORDER, [a, a, b, c, c, c, c, c], strict=True))
    partition = Partition(ORDER)
    partition.add(values)
    once = settle(partition, ORDER, lambda name: name, named)
    assert once.kept == kept and once.counted == counted
    assert set(once.aliases[kept[-1]]) == set(ORDER[3:]) - {kept[-1]}
    assert once.aliases["layer3.0"] == () and once.words("layer3.0") is None


def test_copies_do_not_count_as_searched():
    table = [[0.1, 0.2], [0.3, 0.4], [0.3, 0.4]]
    assert selection.choose("oracle", table, table, 3).searched == 6
    assert selection.choose("oracle", table, table, 3, copies=1).searched == 4


def test_first_weights_depend_on_seed_and_dimension_alone():
    assert torch.equal(initial(7, 3, [5], 1).weights, initial(7, 3, [5, 6], 2).weights[:1, :1])
    assert not torch.equal(initial(7, 3, [5], 1).weights, initial(7, 3, [6], 1).weights)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A folder with `models/r`: a small residual network after an epoch on the built-in digits."""
    words = ("resnet20", "-d", "digits", "-dir", "r", "-e", 1, "-lr", "3e-3", "--image-size", 16, "--max-examples", 300)
    return copied(tmp_path_factory, "resnet20-digits", words)


def rows(folder, name: str, *words) -> list[dict]:
    done = script(f"exec_{name}.py", *words, "--max-examples", "150", "-gpu", "-1", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / done.stdout.strip().splitlines()[-1]).read_text())["rows"]


PROBE = ("probe", "models/r/model_1.pt", "-ood", "digits-c/fog-3", "--reduce", "gap", "-e", "3", "-lr", "1e-2")


def test_no_two_layers_of_a_residual_network_have_the_same_class_means(resnet):
    found = rows(resnet, *PROBE, "-l", "cuts")
    means = [row for row in found if row["probe"] == "class-means"]
    layers = [row["layer"] for row in means]
    assert layers[-1] == "layer3" and "avgpool" not in layers and "layer3.2" not in layers
    assert means[-1]["aliases"].split() == ["layer3.2", "avgpool", "flatten"]
    probes = [row for row in found if row["probe"] == "probe" and row["selected_by"] == "oracle"]
    assert [row["layer"] for row in probes] == layers and probes[0]["candidates"] == len(layers)
    assert len({(row["accuracy"], row["dim"], row["correct"]) for row in means[-4:]}) > 1
    gain = next(row for row in found if row["probe"] == "gain" and row["selected_by"] == "last-but-one")
    assert gain["layer"] == layers[-2] == "layer3.1"


def test_copies_that_are_named_one_by_one_stay_and_have_the_same_probes(resnet):
    found = rows(resnet, *PROBE, "-l", "layer2", "layer3", "avgpool", "flatten", "--name", "named")
    probes = [row for row in found if row["probe"] == "probe" and row["selected_by"] == "oracle"]
    assert [row["layer"] for row in probes] == ["layer2", "layer3", "avgpool", "flatten"]
    assert len({row["accuracy"] for row in probes[1:]}) == 1 and probes[1]["aliases"] == "avgpool flatten"
    assert all(row["candidates"] == 2 for row in probes)


def test_streamed_features_tell_the_same_layers_apart(resnet):
    kept = rows(resnet, *PROBE, "-l", "cuts")
    streamed = rows(resnet, *PROBE, "-l", "cuts", "--cache-limit", "0", "--name", "streamed")
    assert [(row["layer"], row["aliases"]) for row in kept] == [(row["layer"], row["aliases"]) for row in streamed]


def test_similarity_and_stitches_have_every_representation_once(resnet):
    network = "models/r/model_1.pt"
    similar = rows(resnet, "similarity", network, network, "auto", "auto", "cuts", "-n", "40")
    layers = list(dict.fromkeys(row["layer1"] for row in similar))
    assert len(similar) == len(layers) ** 2
    assert all(row["cka"] < 1 - 1e-9 for row in similar if row["layer1"] != row["layer2"])
    assert next(row for row in similar if row["layer2"] == "layer3")["aliases2"] == "layer3.2"
    stitched = rows(
        resnet, "stitch", network, network, "auto", "auto", "layer3*", "layer3*", "-i", "pinv", "-e", "0", "-d", "digits"
    )
    assert {row["front_layer"] for row in stitched} == {"layer3.0", "layer3.1", "layer3"}
    assert {row["end_aliases"] for row in stitched if row["end_layer"] == "layer3"} == {"layer3.2"}


class Bound(nn.Module):
    """Changes bright images alone."""

    def forward(self, x):
        return x.clamp(max=0.9)


def test_a_layer_that_changes_one_image_is_a_layer_of_its_own():
    images = torch.randint(200, (300, 1, 4, 4), dtype=torch.uint8)
    split = Split(name="noise", split="all", images=images, labels=torch.zeros(300, dtype=torch.int64))
    network = nn.Sequential(nn.Flatten(), nn.Dropout(), Bound(), nn.Linear(16, 2))

    def kept() -> list[str]:
        return distinct(network, split, ["0", "1", "2", "3"], Batching(batch_size=64, quiet=True), flatten).kept

    assert kept() == ["0", "3"]
    images[171, 0, 2, 2] = 255
    assert kept() == ["0", "2", "3"]


def test_layers_with_the_same_energies_are_one_candidate(resnet):
    network = ("ood_layers", "models/r/model_1.pt", "-d", "digits", "-ood", "patches", "--choose", "jigsaw")
    found = rows(resnet, *network, "-l", "cuts", "--name", "cuts")
    energies = [row for row in found if row["score"] == "energy"]
    layers = [row["layer"] for row in energies]
    assert {"layer3", "avgpool"} <= set(layers) and not {"layer3.2", "flatten"} & set(layers)
    aliases = {row["layer"]: row["aliases"] for row in energies}
    assert aliases["layer3"] == "layer3.2" and aliases["avgpool"] == "flatten" and aliases["conv1"] is None
    assert len({row["auroc"] for row in energies}) == len(energies)
    named = rows(resnet, *network, "-l", "layer3.2", "layer3", "fc", "--name", "named")
    assert {row["layer"] for row in named if row["score"] == "energy"} == {"layer3.2", "layer3", "fc"}
