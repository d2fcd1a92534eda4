"""Flags, names of data and layers as the papers' code spells them: one meaning here, or a sentence that names ours."""

import dataclasses
import json

import pytest
import torch
from conftest import script
from torch import nn

from lib import datasets, models
from lib.core.errors import UsageError
from lib.datasets import augment, names
from lib.experiments import EXPERIMENTS
from lib.experiments.config.eval import EvalConfig
from lib.experiments.config.probe import ProbeConfig
from lib.experiments.config.projections import ProjectionsConfig
from lib.experiments.config.stitch import StitchConfig
from lib.experiments.config.train import TrainConfig
from lib.models import cutting
from lib.models.residual_blocks import name_sums
from lib.runs import cli, published_flags

IN_FOLDER = ("-dir", "a")


@pytest.mark.parametrize(
    "configuration, theirs, ours",
    [
        (
            TrainConfig,
            "--arch lenet --dataset mnist --lr .1 --weight_decay 0 --batch_size 32 -j 3 --data-path d --models-path m "
            "-dir a --seed 1",
            "lenet -d mnist -lr .1 -wd 0 -b 32 -workers 3 -data d --models-dir m -dir a -s 1",
        ),
        (TrainConfig, "lenet -dir a --save-frequency 2 --reduce-lr-epochs 3 4", "lenet -dir a -sf 2 -rlre 3 4"),
        (TrainConfig, "--model CNN002 --random_seed 7 --learning_rate=.01 -dir a", "CNN002 -s 7 -lr .01 -dir a"),
        (TrainConfig, "-a tv_resnet18 --wd 1e-4 -dir a --augmentation", "tv_resnet18 -wd 1e-4 -dir a --augmentation auto"),
        (
            EXPERIMENTS["ood_layers"].configuration,
            "m.pt lenet --in_dataset cifar10 --out_datasets svhn mnist --data_dir d --output_dir r --batch_size 32",
            "m.pt lenet -d cifar10 -ood svhn mnist -data d --results-dir r -b 32",
        ),
        (EXPERIMENTS["stitch_ood"].configuration, "r --id_dataset mnist", "r -idd mnist"),
        (
            ProjectionsConfig,
            "--arch lenet --load-from a.pt --dataset mnist --results r",
            "a.pt lenet -d mnist --results-dir r",
        ),
        (ProjectionsConfig, "--arch lenet --dataset mnist --pretrained", "lenet -d mnist --pretrained"),
        (
            EXPERIMENTS["reinit"].configuration,
            "--arch vgg11 --dataset mnist --load-from a.pt --rand --results r -j 2",
            "a.pt vgg11 -d mnist --rand --results-dir r -workers 2",
        ),
        (EvalConfig, "a.pt tv_resnet18 -d cifar10_large", "a.pt tv_resnet18 -d cifar10 --image-size 224"),
        (
            TrainConfig,
            "tv_resnet18 -d cifar100_large -dir a",
            "tv_resnet18 -d cifar100 --upscale --augmentation rotate-flip -dir a",
        ),
    ],
)
def test_a_papers_spelling_states_the_same_setting_as_ours(configuration, theirs, ours):
    one, other = (cli.parse(configuration, words.split()) for words in (theirs, ours))
    same = dataclasses.asdict(one) | {"upscale": False, "image_size": 224} if "_large" in theirs else dataclasses.asdict(one)
    assert same == dataclasses.asdict(other) | ({"upscale": False, "image_size": 224} if "_large" in theirs else {})


@pytest.mark.parametrize(
    "configuration, words, said",
    [
        (TrainConfig, "lenet -dir a --cuda", "--cuda has no effect: a GPU is used where there is one"),
        (TrainConfig, "lenet -dir a --log t.log", "--log has no effect: progress goes to stderr"),
        (TrainConfig, "lenet -dir a --tb-logdir t", "--tb-logdir has no effect"),
        (TrainConfig, "lenet -dir a --shuffle", "--shuffle has no effect: training images have a new random order"),
        (TrainConfig, "lenet -dir a --override", "--override has no effect"),
        (TrainConfig, "lenet -dir a --verbose", "--verbose has no effect"),
        (TrainConfig, "ce-vtor2-CNN002 -dir a --eps 1 --norm 2", "--eps has no effect: ce-vtor2-CNN002 has no attack"),
        (StitchConfig, "a.pt b.pt --verbose", "--verbose has no effect"),
        (
            EXPERIMENTS["reinit"].configuration,
            "a.pt --rand --plots p",
            "--plots has no effect: figures lie beside the record",
        ),
        (EXPERIMENTS["stitch_ood"].configuration, "r -ed e", "-ed has no effect: energies are in the record"),
    ],
)
def test_a_spelling_without_effect_says_so_in_one_line(configuration, words, said, capsys):
    config = cli.parse(configuration, words.split())
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(said)]
    assert len(lines) == 1
    cli.parse(configuration, [*words.split(), "--quiet"])
    assert capsys.readouterr().err == ""
    assert getattr(config, "eps", None) is None


def test_every_script_takes_verbose_and_one_gives_it_a_meaning():
    for name in EXPERIMENTS:
        configuration = EXPERIMENTS[name].configuration
        owned = "verbose" in {field.name for field in dataclasses.fields(configuration)}
        assert owned == (configuration is ProbeConfig)
        assert "--verbose" in cli._parser(configuration, "", "")._option_string_actions


@pytest.mark.parametrize(
    "configuration, words, message",
    [
        (TrainConfig, "lenet -dir a --evaluate", "--evaluate: exec_eval.py CHECKPOINT TYPE -d DATA"),
        (TrainConfig, "lenet -dir a --evaluate-train", "-d DATA:train"),
        (TrainConfig, "lenet -dir a --world-size 2", "torchrun --nproc-per-node"),
        (TrainConfig, "--experiment oos_repr", "exec_ncg.py"),
        (TrainConfig, "lenet -dir a --load-from a.pt", "--resume-from"),
        (TrainConfig, "lenet -dir a --arch vgg11", "--arch vgg11: lenet is given already, as MODEL_TYPE"),
        (TrainConfig, "lenet -dir a --lr 1 -lr 2", "--lr 1.0: 2.0 is given already, as -lr"),
        (StitchConfig, "a.pt b.pt --arch lenet", "--arch: there are several networks"),
        (EXPERIMENTS["ood_detector"].configuration, "a.pt auto l -m m --out_datasets d", "-ftoodd"),
        (EvalConfig, "a.pt --evaluat", "did you mean"),
        (EvalConfig, "a.pt -d cifar10_large --image-size 64", "its images have 224 px, not 64"),
        (TrainConfig, "lenet -dir a --start-epoch 3", "--start-epoch 3 is about --resume-from"),
        (TrainConfig, "lenet -dir a --resume-from a.tar --start-epoch 3 -e 3", "leaves no epoch"),
    ],
)
def test_a_spelling_with_no_or_several_meanings_is_refused_by_naming_ours(configuration, words, message):
    with pytest.raises(UsageError) as caught:
        cli.parse(configuration, words.split())
    assert message in str(caught.value)


def test_a_papers_spelling_never_hides_one_of_the_scripts_own():
    for experiment in EXPERIMENTS.values():
        own = {name for field in dataclasses.fields(experiment.configuration) for name in cli.spellings(field)}
        actions = cli._parser(experiment.configuration, "", "")._option_string_actions
        for spelling in own & (published_flags.MEANING.keys() | published_flags.WITHOUT_EFFECT.keys()):
            assert actions[spelling].dest in {field.name for field in dataclasses.fields(experiment.configuration)}


def test_no_type_lists_the_types_with_an_example_and_an_unknown_data_set_the_known_ones(tmp_path):
    done = script("exec_train.py", cwd=tmp_path)
    assert done.returncode == 2 and "python exec_train.py resnet20 -d digits -dir digits-a -e 5" in done.stderr
    assert all(name in done.stderr for name in models.MODELS)
    done = script("exec_train.py", "lenet", "-dir", "a", "-d", "zzz", cwd=tmp_path)
    assert done.returncode == 2 and all(name in done.stderr for name in datasets.DATASETS)
    assert cli.parse(TrainConfig, ["lenet", *IN_FOLDER]).dataset == "cifar10"


def test_names_of_enlarged_and_kept_data_are_those_of_the_data():
    assert str(names.parse("cifar10_large:test")) == "cifar10:test" and names.loaded_size("cifar10_large") == 224
    assert str(names.parse("imagenet_mem")) == "imagenet" and names.loaded_size("cifar10") is None


def test_enlarged_cifar_is_turned_by_at_most_15_degrees_and_mirrored():
    images = torch.zeros(64, 1, 33, 33)
    images[:, :, 16, 20:30] = 1  # a bar to the right of the centre
    turned = augment.rotate_flip(images, torch.Generator().manual_seed(0))
    rows, columns = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(33.0) - 16, indexing="ij")
    weight = turned[:, 0].flatten(1)
    centre = torch.stack([(weight * grid.flatten()).sum(1) / weight.sum(1) for grid in (rows, columns)])
    angles = torch.atan2(centre[0], centre[1].abs()).rad2deg().abs()
    assert 8 < angles.max() <= 15.1 and 16 <= int((centre[1] < 0).sum()) <= 48
    assert torch.allclose(centre.norm(dim=0), torch.tensor(8.5), atol=0.2)


@pytest.mark.parametrize("kind, block", [("resnet20", "layer2.0"), ("resnet18", "layer4.1"), ("resnet50", "layer1.0")])
def test_the_sum_inside_a_block_is_a_layer_once_it_is_named(kind, block):
    torch.manual_seed(0)
    network = models.build(kind, 10).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before, listed, keys = network(images), cutting.cuts(network), list(network.state_dict())
        name_sums(network, [f"{block}.add"])
        assert torch.equal(network(images), before) and list(network.state_dict()) == keys
        assert set(cutting.cuts(network)) - set(listed) == {f"{block}.add"}
        front, back = cutting.cut(network, f"{block}.add")
        with cutting.record(network, [block]) as outputs:
            assert torch.equal(back(front(images)), before)
            network(images)
        assert (front(images) < 0).any() and torch.equal(front(images).relu(), outputs[block])


def test_stitching_happens_at_the_sum_inside_a_block(tmp_path):
    for seed, name in enumerate("ab"):
        words = ("resnet20", "-d", "digits", "-dir", name, "-e", 1, "--image-size", 16, "--max-examples", 64, "-s", seed)
        assert script("exec_train.py", *words, "--quiet", cwd=tmp_path).returncode == 0
    grid = ("models/a/model_1.pt", "models/b/model_1.pt", "auto", "auto", "layer1.0.add,layer1.0", "layer1.0.add")
    done = script(
        "exec_stitch.py",
        *grid,
        "-d",
        "digits",
        "-i",
        "pinv",
        "-e",
        0,
        "-pinv-samples",
        "all",
        "--max-examples",
        64,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / done.stdout.strip().splitlines()[-1]).read_text())["rows"]
    assert [(row["front_layer"], row["end_layer"]) for row in rows] == [
        ("layer1.0.add", "layer1.0.add"),
        ("layer1.0", "layer1.0.add"),
    ]
    done = script("exec_eval.py", "models/a/model_1.pt", "--list-layers", cwd=tmp_path)
    assert "layer1.0.relu" in done.stdout and ".add" not in done.stdout


def snapshot(path, optimizer=torch.optim.SGD, epoch=2, **settings):
    """A .tar of the hyperplane paper's code for a lenet of digits, after a step of the optimiser; its network."""
    torch.manual_seed(1)
    network = models.build("lenet", 10, 1, 32)
    optimiser = optimizer(network.parameters(), lr=0.05, **settings)
    nn.functional.cross_entropy(network(torch.rand(8, 1, 32, 32)), torch.arange(8)).backward()
    optimiser.step()
    content = {"model_state_dict": network.state_dict(), "optimizer_state_dict": optimiser.state_dict()}
    torch.save({"epoch": epoch, "top1_acc": 10.0, "top5_acc": 50.0, **content, "scheduler_state_dict": {}}, path)
    return network


CONTINUED = (
    "lenet",
    "-d",
    "digits",
    "-dir",
    "a",
    "-lr",
    "1e-3",
    "--max-examples",
    128,
    "-o",
    "sgd",
    "--resume-from",
    "l_2.tar",
)


def epochs(folder, *words):
    done = script("exec_train.py", *CONTINUED, *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / done.stdout.strip().splitlines()[-1]).read_text())["rows"], done.stderr


def test_a_tar_snapshot_goes_on_in_its_epoch_with_its_optimiser_and_our_settings(tmp_path):
    snapshot(tmp_path / "l_2.tar", momentum=0.9, weight_decay=0.3)
    rows, said = epochs(tmp_path, "-e", 5, "-rlre", 4, "--override", "-wd", 0)
    assert [row["epoch"] for row in rows] == [4, 5] and "continuing l_2.tar in epoch 4" in said
    assert [row["learning_rate"] for row in rows] == pytest.approx([1e-3, 1e-4])
    assert json.loads((tmp_path / "models/a/init.json").read_text())["epoch"] == 3
    alone, _ = epochs(tmp_path, "-e", 5, "-wd", 0, "-rlre", 4, "--start-epoch", 3, "-dir", "b")
    assert [row["epoch"] for row in alone] == [4, 5] and alone[0]["train_loss"] == rows[0]["train_loss"]
    (tmp_path / "l_2.pt").write_bytes((tmp_path / "l_2.tar").read_bytes())
    fresh, _ = epochs(tmp_path, "-e", 5, "-wd", 0, "--start-epoch", 3, "-dir", "d", "--resume-from", "l_2.pt")
    assert [row["epoch"] for row in fresh] == [4, 5] and fresh[0]["train_loss"] != rows[0]["train_loss"]
    weights, _ = epochs(tmp_path, "-e", 1, "-wd", 0, "--start-epoch", 0, "-dir", "c")
    assert [row["epoch"] for row in weights] == [1] and weights[0]["train_loss"] != rows[0]["train_loss"]


@pytest.mark.parametrize(
    "made, words, message",
    [
        ({"optimizer": torch.optim.Adam}, ("-e", 5), "the state of its optimiser is not of -o sgd"),
        ({}, ("-e", 3), "its 3 epochs are done, and -e 3 is not more"),
    ],
)
def test_a_tar_snapshot_that_cannot_go_on_is_refused(tmp_path, made, words, message):
    snapshot(tmp_path / "l_2.tar", **made)
    done = script("exec_train.py", *CONTINUED, *words, cwd=tmp_path)
    assert done.returncode == 1 and message in done.stderr


def test_the_regularisation_loss_is_the_decay_times_the_norms_of_what_training_starts_from(tmp_path):
    network = snapshot(tmp_path / "l_2.tar")
    done = script("exec_train.py", *CONTINUED, "-wd", "1e-2", "--eval-regularization-loss", cwd=tmp_path)
    expected = 1e-2 * sum(float(parameter.detach().norm()) for parameter in network.parameters())
    assert done.returncode == 0 and float(done.stdout.split(":")[0]) == pytest.approx(expected, rel=1e-4)
    assert not (tmp_path / "models").exists()
