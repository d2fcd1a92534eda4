"""Senders that stitch well without meaning the same, and matching at a later layer of the end network."""

import pytest
import torch
from conftest import script

from lib import datasets
from lib.datasets.split import fit
from lib.experiments.config.stitch import StitchConfig
from lib.experiments.stitch import stitch
from lib.models import checkpoints
from lib.runs import cli, records
from lib.stitching import grid as stitching_grid
from lib.stitching.grid import ClusteredNoise, Donors, GridStitch, Sender, Stitches
from lib.stitching.layer import Stitch

ONE, TWO = "pool2", "pool3"  # of small_cnn: 32 x 8 x 8, 64 x 4 x 4
CUTS = [ONE, TWO, "flatten"]
SHAPES = {ONE: (32, 8, 8), TWO: (64, 4, 4)}
PLAIN = (
    "auto",
    "auto",
    ONE,
    TWO,
    "-d",
    "digits",
    "-b",
    "32",
    "-lr",
    "0.01",
    "-e",
    "3",
    "--quiet",
    "-gpu",
    "-1",
    "--max-examples",
    "400",
)


@pytest.fixture(scope="module")
def folder(siblings):
    """Two siblings, and in models/p a network that was trained to tell two colour photographs apart."""
    done = script(
        "exec_train.py",
        "small_cnn",
        "-d",
        "patches",
        "-dir",
        "p",
        "-e",
        "1",
        "-gpu",
        "-1",
        "--max-examples",
        "300",
        cwd=siblings,
    )
    assert done.returncode == 0, done.stderr
    return siblings


@pytest.fixture
def inside(folder, monkeypatch, tmp_path):
    """That working directory, with a results folder of the test's own."""
    monkeypatch.chdir(folder)
    return tmp_path / "results"


def config(*more, results_dir):
    words = ["models/a/model_5.pt", "models/b/model_5.pt", *PLAIN, *more, "--results-dir", str(results_dir)]
    return cli.parse(StitchConfig, words)


def donors(layers=(ONE, TWO)) -> Donors:
    networks = [checkpoints.load(f"models/{name}/model_5.pt").network for name in "ab"]
    return Donors(*networks, list(layers), list(layers))


def images(n: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    split = datasets.load("digits", "data", "test")
    return split.images[:n].float() / 255, split.labels[:n]


# --- senders


def test_noise_that_knows_the_class_is_stitched_to_more_than_the_end_networks_own_accuracy(inside):
    plain = stitch(config("--null", results_dir=inside)).rows
    senders = ("--sender", "noise", "models/p/model_1.pt")
    rows = stitch(config("--null", *senders, results_dir=inside)).rows
    names = [None, "untrained", "shuffled", "clustered noise", "sender models/p/model_1.pt"]
    assert [row["null"] for row in rows] == names and rows[:3] == plain
    noise, other = rows[3:]
    assert noise["accuracy"] > noise["end_accuracy"] and noise["normalized_difference"] > 0.5
    assert 0.15 < other["accuracy"] < other["end_accuracy"]


def test_noise_has_a_centre_for_every_class_and_is_the_same_for_the_same_images(inside):
    made = ClusteredNoise(donors(), SHAPES, seed=3)
    batch, labels = images()
    first, again = made.sources(batch, labels), made.sources(batch.clone(), labels)
    assert all(torch.equal(first[layer], again[layer]) and first[layer].shape[1:] == SHAPES[layer] for layer in SHAPES)
    other = made.sources(1 - batch, labels)
    for layer, shape in SHAPES.items():
        for number in range(20):
            same = labels == labels[number]
            distances = (first[layer][number] - other[layer]).flatten(1).square().mean(1)
            assert distances[same].max() < 0.7 < 1.9 < distances[~same].min()  # 2 x 0.25, and 2 more between centres
        assert first[layer].std().item() == pytest.approx((1 + 0.25) ** 0.5, rel=0.1), shape
    with pytest.raises(ValueError, match="by label"):
        made.sources(batch)


def test_a_sender_sees_the_images_in_the_channels_that_it_takes(inside):
    other = checkpoints.load("models/p/model_1.pt").network.eval()
    batch, labels = images()
    found = Sender(other, 3, donors()).sources(batch, labels)
    assert torch.equal(found[TWO], stitching_grid.activations_of(other, [TWO], fit(batch, 3))[TWO])


def test_a_record_no_longer_holds_when_a_sender_has_changed(inside):
    given = config("--null", "--sender", "models/p/model_1.pt", results_dir=inside)
    assert "models/p/model_1.pt" in records.fingerprints(given) and "models/p/model_1.pt" in given.networks
    assert config("--null", "--sender", "noise", results_dir=inside).networks.keys() == {
        "models/a/model_5.pt",
        "models/b/model_5.pt",
    }


# --- matching at a later layer


def test_the_loss_at_a_later_layer_is_what_hooks_would_measure(inside):
    networks = donors()
    entries = [GridStitch(ONE, ONE, Stitch("auto", SHAPES[ONE], SHAPES[ONE]))]
    entries += [GridStitch(ONE, TWO, Stitch("auto", SHAPES[ONE], SHAPES[TWO]))]
    batch, labels = images()
    loss = stitching_grid.latent_loss(
        networks, entries, "flatten", stitching_grid.between(networks, "flatten", CUTS), l1=0.1
    )
    value, _ = loss(Stitches(entries), batch, labels, None)
    shuffled, _ = loss(Stitches(entries), batch, labels.flip(0), None)
    body, expected = dict(networks.end.body.named_modules()), 0.0
    seen: list[torch.Tensor] = []
    watching = body["flatten"].register_forward_hook(lambda module, given, output: seen.append(output.detach().clone()))
    networks.end(batch)
    for entry in entries:
        stitched = entry.stitch(networks.sources(batch)[entry.front])
        replacing = body[entry.end].register_forward_hook(lambda module, given, output, stitched=stitched: stitched)
        networks.end(batch)
        replacing.remove()
        expected += ((seen[-1] - seen[0]).square().sum() / seen[0].square().sum()).item()
        expected += 0.1 * (entry.stitch.weight.abs().sum() + entry.stitch.bias.abs().sum()).item()
    watching.remove()
    assert value.item() == pytest.approx(expected, rel=1e-5) and shuffled.item() == value.item()


def latent_difference(result, layer: str) -> float:
    """How far a stitch of these rows is from the end network at a later layer, on the test images."""
    networks, made = donors(), Stitch("auto", SHAPES[ONE], SHAPES[TWO])
    made.load_state_dict({name: torch.from_numpy(result.arrays[f"0.{name}"]) for name in made.state_dict()})
    batch, _ = images(200)
    between = stitching_grid.between(networks, layer, CUTS)[TWO]
    with torch.no_grad():
        wanted = stitching_grid.activations_of(networks.end, [layer], batch)[layer]
        found = between(made(networks.sources(batch)[ONE]))
    return ((found - wanted).square().sum() / wanted.square().sum()).item()


def test_matching_at_the_penultimate_layer_comes_nearer_there_than_the_task_loss(inside):
    latent = stitch(config("--match-at", "flatten", results_dir=inside))
    task = stitch(config(results_dir=inside))
    assert latent.rows[0]["match_at"] == "flatten" and "match_at" not in task.rows[0]
    assert latent_difference(latent, "flatten") < 0.7 * latent_difference(task, "flatten")
    assert latent.rows[0]["accuracy"] > 0.2


def test_no_stitch_of_another_loss_is_taken_from_a_record(inside, folder):
    words = [word for word in PLAIN if word != "--quiet"] + ["--results-dir", str(inside)]
    for more, taken in (((), False), (("--match-at", "flatten"), False), (("--match-at", "flatten", "-dir", "w"), True)):
        done = script("exec_stitch.py", "models/a/model_5.pt", "models/b/model_5.pt", *words, *more, cwd=folder)
        assert done.returncode == 0 and ("stitches are in other records" in done.stderr) == taken, done.stderr


def test_with_match_at_nothing_is_shuffled(inside):
    rows = stitch(config("--match-at", "avgpool", "--null", "--sender", "noise", results_dir=inside)).rows
    assert [row["null"] for row in rows] == [None, "untrained", "clustered noise"]


@pytest.mark.parametrize(
    "words, told",
    [
        (("--sender", "noise"), "--sender noise: it is for --null"),
        (("--match-at", "flatten", "-e", "0"), "-e 0 trains none"),
        (("--match-at", "flatten", "--soft-targets"), "one target at a time"),
        (("--match-at", "pool1"), "--match-at pool1: it does not lie behind END_LAYER pool3"),
        (("--match-at", TWO), f"--match-at {TWO}: it does not lie behind"),
        (("--match-at", "nowhere"), "--match-at nowhere: it is no cut of the end network"),
        (("--null", "--sender", "models/q/model_1.pt"), "models/q/model_1.pt"),
        (("--null", "--sender", "other.pt"), "--sender other.pt: the front network puts out (32, 8, 8) at pool2"),
    ],
)
def test_a_mistake_is_one_sentence(inside, folder, words, told):
    if not (folder / "other.pt").exists():
        described = checkpoints.load("models/p/model_1.pt").description
        lenet = checkpoints.fresh(described.__class__(**{**vars(described), "architecture": "lenet"}), 0, "init")
        checkpoints.save(folder / "other.pt", lenet, described.__class__(**{**vars(described), "architecture": "lenet"}))
    words = [*PLAIN, *words, "--results-dir", str(inside)]
    done = script("exec_stitch.py", "models/a/model_5.pt", "models/b/model_5.pt", *words, cwd=folder)
    assert done.returncode in (1, 2) and told in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "unexpected" not in done.stderr
