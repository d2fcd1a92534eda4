"""Detectors of representations: the classifiers, their fine-tuning, and runs that can be stopped, shared and found again."""

import contextlib
import json
import math
import os
import shlex
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import background
import pytest
import torch
import torch.nn.functional as F

from lib import datasets, models
from lib.core.errors import Interrupted, UsageError, UserError
from lib.datasets import augment
from lib.datasets.batching import Batching
from lib.experiments import EXPERIMENTS
from lib.experiments.config.ood_detector import OodDetectorConfig
from lib.experiments.config.train import TrainConfig
from lib.experiments.ood_detector import ood_detector
from lib.models import checkpoints
from lib.runs import cli, script
from lib.stitching import detector as stitching_detector
from lib.stitching import detector_files, records
from lib.stitching.detector_setup import ft_rate

LAYERS = ("pool1", "pool2")  # 16 x 8 x 8 and 32 x 4 x 4
SETTINGS = (
    "-m",
    "repr_cls_resnet20",
    "-d",
    "digits",
    "-ftoodd",
    "patches",
    "-e",
    "1",
    "-fe",
    "2",
    "-b",
    "16",
    "--max-examples",
    "48",
    "-gpu",
    "-1",
    "--quiet",
)


@pytest.fixture(scope="module")
def folder(pair, tmp_path_factory):
    """A working directory with small networks models/a and models/b, and the detectors of two layers of models/a."""
    place = tmp_path_factory.mktemp("detectors")
    shutil.copytree(pair, place, dirs_exist_ok=True)
    with contextlib.chdir(place):
        run("-dir", "whole")
    return place


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture
def alone(pair, tmp_path, monkeypatch):
    """A working directory of one's own with models/a and models/b."""
    shutil.copytree(pair, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configuration(*words, layers=LAYERS) -> OodDetectorConfig:
    return cli.parse(OodDetectorConfig, ["models/a/model_1.pt", "auto", *layers, *SETTINGS, *words])


def run(*words, layers=LAYERS):
    return ood_detector(configuration(*words, layers=layers))


def weights(path) -> dict:
    return torch.load(path, weights_only=True)


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


# The classifiers

COUNTS = {
    ("repr_cls_resnet18", 64): 11_209_098,
    ("repr_cls_resnet18", 128): 11_245_962,
    ("repr_cls_resnet18", 256): 11_319_690,
    ("repr_cls_resnet18", 512): 11_467_146,
    ("repr_cls_vit_tiny", 192): 5_340_682,
    ("repr_cls_vit_tiny", 384): 5_414_602,
}


@pytest.mark.parametrize("name, width", COUNTS)
def test_classifiers_have_the_published_numbers_of_parameters(name, width):
    with torch.device("meta"):
        network = models.build(name, 10, width, 32)
    assert sum(parameter.numel() for parameter in network.parameters()) == COUNTS[name, width]


@pytest.mark.parametrize("name", models.REPRESENTATIONS)
@pytest.mark.parametrize("image_size, shapes", [(32, ((5, 8, 8), (17, 5))), (224, ((5, 14, 14), (16, 5)))])
def test_every_classifier_answers_representations_of_images_of_any_size(name, image_size, shapes):
    with torch.device("meta"):
        network = models.build(name, 7, 5, image_size)
        shape = shapes[0] if models.takes(name) == "maps" else shapes[1]
        assert network(torch.zeros(2, *shape)).shape == (2, 7)
    if models.takes(name) == "maps":
        assert network.enlarge.side == min(image_size, 64)


def test_tokens_are_answered_from_the_class_token_where_there_is_one():
    network = models.build("repr_cls_vit_tiny", 3, 4)
    network.blocks = torch.nn.Identity()  # then tokens do not mix
    tokens = torch.randn(2, 17, 4)
    through = network.norm(network.embed(tokens))
    assert torch.allclose(network(tokens), network.head(through[:, 0]), atol=1e-6)
    assert torch.allclose(network(tokens[:, 1:]), network.head(through[:, 1:].mean(1)), atol=1e-6)


def test_a_classifier_of_representations_is_no_network_for_images(inside):
    with pytest.raises(UsageError, match="repr_cls_resnet20 takes what a layer puts out.*exec_ood_detector.py"):
        cli.parse(TrainConfig, ["repr_cls_resnet20", "-dir", "x"])


# Fine-tuning


def test_the_terms_have_their_known_values():
    zeros = torch.zeros(4, 10)
    assert stitching_detector.energy_term(zeros, zeros).item() == pytest.approx(51.5173, abs=1e-3)
    inside, outside = (zeros - math.log(10) - energy for energy in (-5, -10))
    assert stitching_detector.energy_term(inside, outside).item() == pytest.approx(0.1 * (20**2 + 3**2), rel=1e-5)
    assert stitching_detector.uniform_term(zeros, zeros + 3).item() == pytest.approx(0.5 * math.log(10), abs=1e-6)


def test_the_loss_of_several_layers_is_that_of_each(inside):
    """Against the formula written out, gradients included."""
    source = checkpoints.load("models/a/model_1.pt").network
    classifiers = stitching_detector.Classifiers([models.build("repr_cls_resnet20", 10, width, 16) for width in (16, 32)])
    outliers = stitching_detector.Outliers(
        split=datasets.load("patches", "data", "train"), augment=augment.none, seed=0, batch_size=6
    )
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(6, 1, 16, 16, generator=generator), torch.arange(6)
    state = {}
    loss = stitching_detector.ClassifierLoss(source, list(LAYERS), state, outliers, stitching_detector.energy_term)
    value, logits = loss(classifiers, images, labels, lambda name: generator)
    value.backward()
    ours = [parameter.grad.clone() for parameter in classifiers.parameters()]
    classifiers.zero_grad()
    both, slow = torch.cat([images, outliers.batch(0, images, generator)]), 0
    for layer, classifier in zip(LAYERS, classifiers.body, strict=True):
        names = [name for name, _ in source.body.named_children()]
        front = source.body[: names.index(layer) + 1]
        found = classifier(front((both - source.mean) / source.std).detach())
        energies = -found.logsumexp(1)
        slow = (
            slow
            + F.cross_entropy(found[:6], labels)
            + 0.1 * (F.relu(energies[:6] + 25).square().mean() + F.relu(-7 - energies[6:]).square().mean())
        )
    slow.backward()
    assert value.item() == pytest.approx(slow.item(), rel=1e-5) and torch.equal(logits, found[:6].detach())
    for one, parameter in zip(ours, classifiers.parameters(), strict=True):
        assert torch.allclose(one, parameter.grad, rtol=1e-3, atol=1e-4)
    measured = stitching_detector.finish_epoch(state)
    assert sum(row["loss"] for row in measured) == pytest.approx(slow.item(), rel=1e-5)
    assert measured[1]["energy_out"] == pytest.approx(energies[6:].mean().item(), rel=1e-4) and state["step"] == 1


def test_every_outlier_comes_once_before_any_comes_again():
    split = datasets.load("patches", "data", "train").spread(10)
    split.images[:] = torch.arange(10, dtype=torch.uint8)[:, None, None, None]
    outliers = stitching_detector.Outliers(split=split, augment=augment.none, seed=3, batch_size=4)
    like = torch.zeros(4, *split.images.shape[1:])
    stream = torch.cat([outliers.batch(step, like, None)[:, 0, 0, 0] for step in range(5)]).mul(255).round().int().tolist()
    assert sorted(stream[:10]) == sorted(stream[10:]) == list(range(10)) and stream[:10] != stream[10:]
    assert len(outliers.batch(0, like[:3], None)) == 3


def test_the_learning_rate_falls_after_half_the_epochs_or_as_published_after_as_many_batches():
    def rates(schedule, epochs=10, steps=7):
        rate = ft_rate(SimpleNamespace(ft_sched=schedule, ft_epochs=epochs, epochs=100, learning_rate=1.0), steps)
        return [rate(100 + epoch + step / steps) for epoch in range(epochs) for step in range(steps)]

    assert rates("per-epoch") == pytest.approx([1.0] * 35 + [0.1] * 35)
    assert rates("per-batch") == pytest.approx([1.0] * 5 + [0.1] * 65)
    assert rates("per-epoch", epochs=1) == pytest.approx([1.0] * 7)


# Runs


def test_detectors_are_checkpoints_that_know_what_they_detect(inside):
    rows = json.loads(json.dumps(run("-dir", "whole").rows))  # continued from its end
    assert [(row["phase"], row["epoch"], row["layer"]) for row in rows] == [
        (phase, epoch, layer) for phase, epoch in (("classify", 1), ("fine-tune", 1), ("fine-tune", 2)) for layer in LAYERS
    ]
    assert all((row["detector"] is not None) == ((row["epoch"], row["phase"]) == (2, "fine-tune")) for row in rows)
    for layer, row in zip(LAYERS, rows[-2:], strict=True):
        loaded = checkpoints.load(row["detector"])
        assert equal(weights(row["detector"]), weights(f"models/whole/{layer}/ft_model_2.pt"))
        assert loaded.description.channels == {"pool1": 16, "pool2": 32}[layer]
        assert loaded.description.image_size == 16 and loaded.description.dataset == "digits"
        assert loaded.description.metrics["val_accuracy"] == row["val_accuracy"]
    found = detector_files.find(configuration("-dir", "x"), ("repr_cls_ood_detectors",))
    assert [(detector.layer, detector.source_path) for detector in found] == [
        (layer, "models/a/model_1.pt") for layer in LAYERS
    ]
    words = shlex.split(records.command(EXPERIMENTS, "ood_detector", found[0].settings))[2:]
    again = cli.parse(OodDetectorConfig, words)
    assert again.layer == (found[0].layer,) and detector_files.path_of(again, found[0].layer) == found[0].path


def test_trained_together_or_alone_a_layer_has_the_same_detector(alone, folder):
    row = run("-dir", "single", layers=LAYERS[1:]).rows[-1]
    assert equal(weights(row["detector"]), weights(folder / "models" / "whole" / LAYERS[1] / "ft_model_2.pt"))
    assert (folder / row["detector"]).exists()  # under the same name
    before = checkpoints.load("models/a/model_1.pt").description  # which also compares its hash
    assert before.architecture == "small_cnn"


@pytest.mark.parametrize("step", [2, 5])
def test_a_run_that_is_stopped_in_either_phase_continues_bit_for_bit(alone, folder, monkeypatch, step):
    made, calls = stitching_detector.ClassifierLoss, []

    def stopping(*arguments):
        inner = made(*arguments)

        def loss(*rest):
            calls.append(1)
            if len(calls) == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return inner(*rest)

        loss.state = inner.state
        return loss

    monkeypatch.setattr(stitching_detector, "ClassifierLoss", stopping)
    with pytest.raises(Interrupted, match=f"SIGTERM in epoch {1 + step // 4}, step .*the same command continues"):
        run("-dir", "whole")
    rows = run("-dir", "whole").rows
    assert len(calls) == 3 + 2 * 6
    for layer in LAYERS:
        assert equal(weights(f"models/whole/{layer}/ft_model_2.pt"), weights(folder / f"models/whole/{layer}/ft_model_2.pt"))
    with contextlib.chdir(folder):
        expected = run("-dir", "whole").rows
    for row, other in zip(rows, expected, strict=True):
        assert {key: value for key, value in row.items() if "seconds" not in key and key != "images_per_second"} == {
            key: value for key, value in other.items() if "seconds" not in key and key != "images_per_second"
        }


def test_two_processes_write_into_one_folder_and_a_lost_detector_is_made_again(alone, capsys):
    """From the last state of the finished run, without training."""
    commands = [["models/a/model_1.pt", "auto", layer, *SETTINGS, "-fe", "1", "-dir", layer] for layer in LAYERS]
    both = [
        background.start(["exec_ood_detector.py", *words], alone, f"log-{number}") for number, words in enumerate(commands)
    ]
    for process in both:
        process.join(240)
    assert [process.exitcode for process in both] == [0, 0], [(alone / f"log-{n}").read_text() for n in range(2)]
    made = sorted((alone / "models" / "repr_cls_ood_detectors").glob("*.pt"))
    assert [path.name.rpartition("-")[0] for path in made] == list(LAYERS)
    assert not list(made[0].parent.glob(".*"))
    before = weights(made[0])
    made[0].unlink()
    config = cli.parse(OodDetectorConfig, [word for word in commands[0] if word != "--quiet"])
    for expected in ("no longer holds", "already there"):
        script.run(EXPERIMENTS, "ood_detector", config, ["exec_ood_detector.py", *commands[0]])
        said = capsys.readouterr().err
        assert expected in said and "epoch 1/1" not in said and equal(weights(made[0]), before)


def test_without_fine_tuning_the_classifier_is_the_detector(alone):
    result = run("-fe", "0", "-dir", "plain", layers=LAYERS[1:])
    assert [row["phase"] for row in result.rows] == ["classify"] and result.rows[0]["outliers"] is None
    assert equal(weights(result.rows[0]["detector"]), weights("models/plain/pool2/model_1.pt"))


def test_a_trained_detector_tells_noise_from_representations_and_loud_noise_by_its_low_energy(alone):
    from lib.metrics import ood_detection
    from lib.ood.layer_energies import energy
    from lib.stitching.detector_energies import native_energies
    from lib.stitching.grid import activations_of

    row = run("-dir", "long", "-e", "2", "--max-examples", "160", "-sf", "1", layers=LAYERS[:1]).rows[-1]
    assert {path.name for path in (alone / "models/long/pool1").glob("*.pt")} == {
        f"{name}_{epoch}.pt" for name in ("model", "ft_model") for epoch in (1, 2)
    }
    detector, source = checkpoints.load(row["detector"]).network.body, checkpoints.load("models/a/model_1.pt").network
    test_split = datasets.load("digits", "data", "test")
    native = native_energies(
        source,
        {"pool1": detector},
        test_split,
        Batching(device=torch.device("cpu"), batch_size=64, channels=1, size=16, quiet=True),
    )["pool1"]
    images, _, _ = next(test_split.batches(200, size=16))
    own = activations_of(source, ["pool1"], images)["pool1"].detach()
    draws = torch.randn(own.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alike, loud = (
            energy(detector(noise))[:, 0].numpy()
            for noise in (draws * own.std((0, 2, 3), keepdim=True) + own.mean((0, 2, 3), keepdim=True), 5 * draws)
        )
    assert ood_detection.auroc(native, alike) > 0.95 and row["energy_out"] > row["energy_in"] + 3
    deviations = [ood_detection.deviation(energies, native) for energies in (native, loud)]
    assert ood_detection.auroc(native, loud) < 0.05 and ood_detection.auroc(*deviations) > 0.95


@pytest.mark.parametrize(
    "words, status, fragments",
    [
        ((), 2, ("SOURCE_PATH SOURCE_TYPE LAYER",)),
        (("models/a/model_1.pt", "auto"), 2, ("SOURCE_PATH SOURCE_TYPE LAYER",)),
        (("models/a/model_1.pt", "auto", "pool1", "-m", "repr_cls_resnet21"), 2, ("-m repr_cls_resnet21", "resnet20")),
        (("models/a/model_1.pt", "auto", "pool1", "-m", ""), 2, ("-m is required",)),
        (("models/a/model_1.pt", "auto", "pool1", "-dir", ""), 2, ("-dir is required",)),
        (("models/a/model_1.pt", "auto", "pool1", "-dir", "/tmp/x"), 2, ("-dir /tmp/x", "under models/")),
        (("models/a/model_1.pt", "auto", "pool1", "-ftoodd", ""), 2, ("-ftoodd is required", "-fe 0")),
        (("models/a/model_1.pt", "auto", "pool1", "-b", "3"), 2, ("-b 3", "half of a batch")),
        (("models/a/model_1.pt", "auto", "pool1", "-m-in", "-5"), 2, ("-m-in -5.0", "-m-out -7.0")),
        (("models/a/model_1.pt", "auto", "pool1", "-score", "msp"), 2, ("-score msp", "energy")),
        (("models/a/model_1.pt", "auto", "pool1", "-d", "digits:test"), 2, ("-d digits:test", "without a split")),
        (("models/a/model_1.pt", "resnet20", "pool1"), 1, ("is a small_cnn, not a resnet20",)),
        (("models/a/model_9.pt", "auto", "pool1"), 1, ("no such checkpoint",)),
        (("models/a/model_1.pt", "auto", "feature.3"), 1, ("LAYER feature.3", "pool1")),
        (("models/a/model_1.pt", "auto", "flatten"), 1, ("LAYER flatten", "vector")),
        (
            ("models/a/model_1.pt", "auto", "pool1", "-m", "repr_cls_vit_tiny"),
            1,
            ("-m repr_cls_vit_tiny: it takes tokens", "maps, 16x8x8", "repr_cls_resnet18"),
        ),
        (("models/a/model_1.pt", "auto", "pool1", "-d", "digits-wo3"), 1, ("9 classes, the network 10",)),
        (("models/a/model_1.pt", "auto", "pool1", "-ftidd", "digits-wo3"), 1, ("-ftidd digits-wo3", "10 classes")),
        (("models/a/model_1.pt", "auto", "pool1", "-ftoodd", "digits"), 1, ("-ftoodd digits", "must not be data")),
        (("models/a/model_1.pt", "auto", "pool1", "-ftoodd", "nothing"), 2, ("nothing: no such data set",)),
        (("models/a/model_1.pt", "auto", "pool1", "-dir", "a"), 1, ("-dir a", "holds another run")),
    ],
)
def test_bad_input_is_one_sentence_before_any_training(inside, words, status, fragments):
    given = [*words[:3], *SETTINGS, "-dir", "bad", *words[3:]]
    with pytest.raises(UserError) as refused:
        config = cli.parse(OodDetectorConfig, given)
        if config.answer() is None:
            ood_detector(config)
    message = str(refused.value)
    assert refused.value.status == status and all(fragment in message for fragment in fragments), message
    assert "\n" not in message and not list((Path("models/bad")).glob("*/*"))
