"""The options of training: each does what it says, to the images it says, and evaluation agrees."""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, script

from lib import models
from lib.core.distributed import ALONE, Processes
from lib.core.errors import UsageError, UserError
from lib.datasets import load
from lib.datasets.batching import Batching
from lib.experiments.config.eval import EvalConfig
from lib.experiments.config.train import TrainConfig
from lib.experiments.eval import eval as evaluate
from lib.experiments.train import train
from lib.models import checkpoints
from lib.models.normalized import Normalized
from lib.runs import cli
from lib.training import epoch_plan, loop, run_state, setup
from lib.training.ema import ExponentialMovingAverage

FEW = {
    "model_type": "lenet",
    "dataset": "digits",
    "directory": "a",
    "epochs": 1,
    "max_examples": 120,
    "quiet": True,
    "learning_rate": 3e-3,
    "gpu": -1,
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(**options) -> list[dict]:
    """The rows of a short training."""
    return train(TrainConfig.stated(FEW | options)).rows


def sidecar(name: str = "model_1.json") -> dict:
    return json.loads(Path(f"models/a/{name}").read_text())


def state(name: str) -> dict:
    return torch.load(f"models/a/{name}", weights_only=True)


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def images_of(**options):
    """(train, val) as the options make them, and as they are without."""
    plain = {key: value for key, value in options.items() if key in ("split", "split_seed", "stratified", "seed")}
    everything = FEW | {"max_examples": None}
    return (setup.splits(TrainConfig.stated(everything | options)), setup.splits(TrainConfig.stated(everything | plain)))


# the images


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("split", [0.0, 0.2])
def test_label_noise_is_for_training_labels_only(noise, split):
    """Check 20: the share of wrong labels; validation and test labels stay."""
    (train_split, val_split), (clean, clean_val) = images_of(noise=noise, split=split)
    wrong = (train_split.labels != clean.labels).double().mean().item()
    assert abs(wrong - noise) <= 4 * math.sqrt(noise * (1 - noise) / len(clean))
    assert torch.equal(val_split.labels, clean_val.labels) and torch.equal(train_split.images, clean.images)
    assert len(val_split) == (int(1442 * split) if split else 355)


def test_wrong_labels_belong_to_images_and_follow_their_own_seed():
    first = images_of(noise=0.5)[0][0].labels
    assert torch.equal(first, images_of(noise=0.5, noise_seed=0)[0][0].labels)
    assert torch.equal(images_of(noise=0.5, seed=4, noise_seed=0)[0][0].labels, first)
    assert not torch.equal(images_of(noise=0.5, noise_seed=1)[0][0].labels, first)
    part = images_of(noise=0.5, split=0.3)[0][0]
    whole = images_of(noise=0.5)[0][0]
    at = torch.searchsorted(whole.indices, part.indices)
    assert torch.equal(whole.labels[at], part.labels)  # whichever images are left, theirs are the same


def test_negative_noise_is_pixel_shuffle_as_in_the_papers_command():
    spelled, negative = TrainConfig.stated(FEW | {"pixel_shuffle": True}), TrainConfig.stated(FEW | {"noise": -1.0})
    assert spelled == negative
    (train_split, val_split), (clean, clean_val) = images_of(pixel_shuffle=True)
    assert not torch.equal(train_split.images, clean.images) and torch.equal(val_split.images, clean_val.images)
    assert torch.equal(train_split.images.flatten(1).sort().values, clean.images.flatten(1).sort().values)


def test_a_stratified_split_takes_the_same_share_of_every_class():
    (train_split, val_split), _ = images_of(split=0.3, stratified=True, split_seed=5)
    share = torch.bincount(val_split.labels) / (torch.bincount(train_split.labels) + torch.bincount(val_split.labels))
    assert share.sub(0.3).abs().max() < 1 / 140
    again, other = (images_of(split=0.3, split_seed=seed)[0][1].indices for seed in (5, 6))
    assert not torch.equal(again, other)
    assert torch.equal(again, images_of(split=0.3, split_seed=5, seed=9)[0][1].indices)


def test_a_network_of_a_class_subset_is_evaluated_on_those_classes(here):
    rows = run(subsample_classes=3, class_sample_seed=1, max_examples=None, batch_size=32)
    described = sidecar()
    chosen = load("digits-k3s1", ROOT / "data", "test")
    assert described["dataset"] == "digits-k3s1" and tuple(described["classes"]) == chosen.classes
    assert rows[0]["n_val"] == len(chosen) < 355
    found = evaluate(EvalConfig(model_path="models/a/model_1.pt", quiet=True, gpu=-1)).rows
    assert found[0]["data"] == "digits-k3s1" and found[0]["accuracy"] == rows[0]["val_accuracy"]
    assert found[0]["top5"] is None  # check 26: there are three classes
    assert {row["subset"] for row in found[1:]} == {f"class:{name}" for name in chosen.classes}
    with pytest.raises(UserError, match="it has 10 classes, the network 3"):
        evaluate(EvalConfig(model_path="models/a/model_1.pt", dataset=("digits",), quiet=True, gpu=-1))


@pytest.mark.parametrize("options, side, padding", [({"upscale": True}, 224, 0), ({"upscale_padding": True}, 112, 56)])
def test_upscaled_images_are_normalised_as_the_network_sees_them_and_evaluated_alike(here, options, side, padding):
    rows = run(max_examples=8, batch_size=4, **options)
    described = sidecar()
    assert (described["image_size"], described["padding"]) == (side, padding)
    loaded = checkpoints.load("models/a/model_1.pt")
    seen = []
    loaded.network.body.features[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    split = load("digits", ROOT / "data", "train").subset((torch.arange(8, dtype=torch.float64) * (1442 / 8)).long())
    loop.predict(loaded.network, split, Batching(batch_size=8, channels=1, size=side, quiet=True))
    assert seen[0].shape == (8, 1, 224, 224)
    assert seen[0].mean().item() == pytest.approx(0, abs=1e-3) and seen[0].std().item() == pytest.approx(1, abs=1e-3)
    if padding:
        assert (seen[0][:, :, :56] == seen[0][0, 0, 0, 0]).all()
    found = evaluate(EvalConfig(model_path="models/a/model_1.pt", quiet=True, gpu=-1, max_examples=8)).rows
    assert found[0]["loss"] == pytest.approx(rows[0]["val_loss"], rel=1e-5)


def test_unnormalised_pixels_go_in_as_they_are(here):
    run(unnormalize=True)
    assert sidecar()["mean"] == [] and sidecar()["std"] == []
    image = torch.rand(1, 1, 32, 32)
    assert torch.equal(Normalized(torch.nn.Identity())(image), image)


def test_epochs_of_fresh_images_use_every_image_once_before_any_comes_again():
    n, images = 25, 10
    stretch = torch.cat([epoch_plan.epoch_order(n, epoch, 3, images) for epoch in range(1, 6)])
    assert all(len(epoch_plan.epoch_order(n, epoch, 3, images)) == images for epoch in range(1, 6))
    assert sorted(stretch[:25].tolist()) == sorted(stretch[25:].tolist()) == list(range(25))
    assert not torch.equal(stretch[:25], stretch[25:])
    assert torch.equal(epoch_plan.epoch_order(n, 2, 3), epoch_plan.epoch_order(n, 2, 3, n))


def test_a_planned_epoch_has_every_image_in_one_row_of_one_process_and_continues_from_any_step():
    order = epoch_plan.epoch_order(23, 1, 0)
    whole = epoch_plan.plan(order, 5)
    assert whole.steps == 5 and [len(batch) for batch in whole.batches] == [5, 5, 5, 5, 3]
    assert torch.equal(whole.rows, order) and whole.rows_per_batch == 5
    later = epoch_plan.plan(order, 5, first=3)
    assert later.steps == 5 and all(map(torch.equal, later.batches, whole.batches[3:]))
    assert torch.equal(torch.cat([epoch_plan.plan(order, 5, smallest=4).rows, order[20:]]), order)
    assert epoch_plan.plan(order[:3], 5, smallest=4).steps == 1  # the only batch is never left out
    shared = [epoch_plan.plan(order[:21], 5, processes=Processes(rank, 2)) for rank in (0, 1)]
    assert [plan.rows_per_batch for plan in shared] == [3, 2]
    for step, batch in enumerate(whole.batches[:4]):
        rows = [plan.rows.split(plan.rows_per_batch)[step] for plan in shared]
        assert sorted(torch.cat(rows).tolist()) == sorted(batch.tolist())
    assert shared[1].rows[-1] == order[20]  # of the last image the second process has no row: it goes along without weight


def test_cifar5m_is_trained_on_part_by_part(here):
    """Fresh images in every epoch, from archives that stay on disk."""
    folder = here / "data" / "cifar5m"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for part in range(6):
        np.savez(
            folder / f"part{part}.npz", X=draw.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8), Y=draw.integers(0, 10, 50)
        )
    rows = run(
        dataset="cifar5m",
        model_type="small_cnn",
        split=0.1,
        epoch_images=90,
        epochs=3,
        max_examples=None,
        batch_size=30,
        workers=0,
    )
    assert [row["n_val"] for row in rows] == [30] * 3
    config = TrainConfig.stated(FEW | {"dataset": "cifar5m", "model_type": "small_cnn", "max_examples": None})
    split = load("cifar5m", "data", "train")
    network, description = setup.start(config, split)
    recipe = setup.recipe(config, split, network, description, torch.device("cpu"), loop.ALONE)
    assert recipe.epoch_images == 300 and recipe.augmentation == "none"  # 50,000 where there are as many


# the weights


def test_a_run_can_start_from_a_checkpoint_and_keeps_it_as_init(here):
    run(epochs=2, snapshot_every=1)
    start = state("model_2.pt")
    rows = run(directory="b", resume_from="a/model_2.pt", seed=1, max_examples=50)
    assert equal(torch.load("models/b/init.pt", weights_only=True), start)
    assert len(rows) == 1 and not equal(torch.load("models/b/model_1.pt", weights_only=True), start)
    there, here_ = (json.loads(Path(f"models/{name}.json").read_text()) for name in ("a/model_2", "b/init"))
    assert here_["mean"] == there["mean"] and here_["epoch"] == 0  # weights come with their normalisation


def test_a_checkpoint_of_another_architecture_or_class_count_is_no_start(here):
    run()
    with pytest.raises(UserError, match="models/a/model_1.pt is a lenet, not a small_cnn"):
        run(directory="b", model_type="small_cnn", resume_from="a/model_1.pt")
    with pytest.raises(UserError, match="is no lenet: of its tensors 2 of another shape"):
        run(directory="c", dataset="digits-wo3", resume_from="a/model_1.pt")
    with pytest.raises(UserError, match="no such checkpoint; models/a has best.pt"):
        run(directory="d", resume_from="models/a/model_7.pt")


def test_published_weights_come_with_their_normalisation(here, monkeypatch):
    from torchvision import models as torchvision_models

    monkeypatch.setenv("TORCH_HOME", str(here / "hub"))
    theirs = torchvision_models.resnet18().state_dict()
    place = here / "hub" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    url = torchvision_models.ResNet18_Weights.DEFAULT.url
    torch.save(theirs, place / url.rpartition("/")[2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(model_type="tv_resnet18", dataset="patches", pretrained=True, max_examples=16, batch_size=8)
    described, initial = sidecar("init.json"), state("init.pt")
    assert described["mean"] == [0.485, 0.456, 0.406] and described["std"] == [0.229, 0.224, 0.225]
    assert torch.equal(initial["layer1.0.conv1.weight"], theirs["layer1.0.conv1.weight"]) and len(initial["fc.weight"]) == 2


def test_averaged_weights_are_validated_and_saved(here):
    rows = run(ema=0.9, epochs=2, snapshot_every=1)
    trained, kept = torch.load("models/a/resume.pt", weights_only=True)["network"], state("model_2.pt")
    assert not equal(trained, kept)
    found = evaluate(EvalConfig(model_path="models/a/model_2.pt", quiet=True, gpu=-1, max_examples=120)).rows[0]
    assert found["accuracy"] == rows[1]["val_accuracy"]


def test_the_average_is_that_of_the_formula():
    network = torch.nn.Linear(1, 1, bias=False)
    values, decays = [0.5, -1.0, 2.0], [min(0.4, (1 + t) / (10 + t)) for t in (1, 2, 3)]
    with torch.no_grad():
        network.weight.fill_(3.0)
    average, expected = ExponentialMovingAverage(network, 0.4), 3.0
    for value, decay in zip(values, decays, strict=True):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update(network)
        expected = decay * expected + (1 - decay) * value
    assert average.network.weight.item() == pytest.approx(expected)


def test_an_averaged_run_that_was_stopped_continues_to_the_same_weights(here, monkeypatch):
    run(ema=0.9, epochs=3)
    whole = state("model_3.pt")
    stop_after(monkeypatch, steps=3)
    with pytest.raises(UserError, match="the same command continues"):
        run(directory="b", ema=0.9, epochs=3)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    run(directory="b", ema=0.9, epochs=3)
    assert equal(torch.load("models/b/model_3.pt", weights_only=True), whole)


def test_without_batch_normalisation_weights_lie_channels_last_on_the_cpu_and_train_alike(here):
    first, last = run(directory="first", channels_last=False), run(directory="last")
    assert [run_state.begun_channels_last(Path("models") / name) for name in ("first", "last")] == [False, True]
    assert last[0]["train_loss"] == pytest.approx(first[0]["train_loss"], rel=1e-4)
    assert run_state.begun_channels_last(Path("models/none")) is None


@pytest.mark.parametrize(
    "kind, device, precision, last",
    [
        ("lenet", "cpu", "fp32", True),
        ("resnet20", "cpu", "fp32", False),
        ("resnet20", "cpu", "bf16", True),
        ("lenet", "cuda", "fp32", False),
        ("lenet", "cuda", "bf16", True),
    ],
)
def test_the_order_of_channels_is_the_faster_exact_one_where_no_flag_and_no_begun_run_says_it(kind, device, precision, last):
    network = models.build(kind, 10)
    split, where = load("digits", "data", "train"), torch.device(device)

    def order(begun=None, **options):
        config = TrainConfig.stated(FEW | options | {"precision": precision})
        description = checkpoints.Description(architecture="lenet", classes=split.classes, channels=1, image_size=28)
        return setup.recipe(config, split, network, description, where, ALONE, begun_channels_last=begun).channels_last

    assert order() is last and order(begun=not last) is not last
    assert order(begun=not last, channels_last=last) is last


def test_batch_statistics_of_many_pixels_are_exact(here):
    """Channels last PyTorch's would be off by some 1e-3 on the CPU."""
    run(model_type="small_cnn", dataset="patches", augmentation="none", max_examples=None, batch_size=4096)
    images = load("patches", "data", "train").images_in_memory.double() / 255
    per_channel = images.transpose(0, 1).flatten(1)
    expected = per_channel.var(1) / per_channel.var(1, correction=0)  # of normalised images, whose first module it is
    found = state("model_1.pt")["bn.running_var"].double()
    assert (found - 0.9) / 0.1 == pytest.approx(expected, abs=1e-5)


def test_a_run_that_began_channels_first_goes_on_so_to_the_same_weights(here, monkeypatch):
    """As runs of earlier versions did, in float32 on the CPU."""
    for name, options in (("first", {"channels_last": False}), ("last", {})):
        run(directory=name, epochs=3, **options)
    first, last = (torch.load(f"models/{name}/model_3.pt", weights_only=True) for name in ("first", "last"))
    stop_after(monkeypatch, steps=3)
    monkeypatch.setattr(run_state, "begun_channels_last", lambda directory: False)
    with pytest.raises(UserError, match="the same command continues"):
        run(directory="b", epochs=3)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    run(directory="b", epochs=3)
    went_on = torch.load("models/b/model_3.pt", weights_only=True)
    assert equal(went_on, first) and not equal(went_on, last)


def stop_after(monkeypatch, steps: int) -> None:
    """The run is asked to stop once so many steps are done."""
    from lib.core.distributed import Processes

    done = []

    def asked(processes, flag):
        done.append(flag)
        return len(done) >= steps

    monkeypatch.setattr(Processes, "any", asked)


# the course of a run


def test_snapshots_have_the_cadence_of_the_paper(here):
    """Check 18: epochs 20, every 5, all until 3. Files are called by finished epochs, one more than the paper's."""
    run(epochs=20, snapshot_every=5, snapshot_all_until=3, max_examples=20, batch_size=20)
    saved = sorted(int(path.stem.removeprefix("model_")) for path in (here / "models" / "a").glob("model_*.pt"))
    assert [epoch - 1 for epoch in saved] == [0, 1, 2, 4, 9, 14, 19]
    assert (here / "models" / "a" / "init.pt").exists()
    epochs = {path.stem: json.loads(path.read_text())["epoch"] for path in (here / "models" / "a").glob("*_*.json")}
    assert epochs == {f"model_{epoch}": epoch for epoch in saved} and sidecar("init.json")["epoch"] == 0  # check 19


def test_a_plateau_ends_the_run_and_keeps_its_last_epoch(here):
    config = TrainConfig.stated(FEW | {"epochs": 30, "learning_rate": 1e-9, "kill_plateaus": True, "max_examples": 20})
    rows = train(config).rows
    assert [row["epoch"] for row in rows] == [1, 2] and rows[0]["val_accuracy"] == rows[1]["val_accuracy"]
    assert (here / "models" / "a" / "model_2.pt").exists() and all(path.exists() for path in config.outputs())
    assert train(config).rows == rows  # asked again without its record, it goes no further
    assert len(run(directory="b", epochs=3, learning_rate=1e-9, max_examples=20)) == 3


def test_training_accuracy_is_that_of_the_saved_network_on_the_plain_training_images(here):
    rows = run(train_acc=True, epochs=3, snapshot_every=2, noise=0.3)
    assert [row["train_eval_accuracy"] is None for row in rows] == [True, False, False]
    split, _ = setup.splits(TrainConfig.stated(FEW | {"noise": 0.3}))
    logits = loop.predict(
        checkpoints.load("models/a/model_2.pt").network, split, Batching(batch_size=64, size=32, quiet=True)
    )
    assert (logits.argmax(1) == split.labels).double().mean().item() == rows[1]["train_eval_accuracy"]


def test_the_penalty_is_the_loss_whose_gradient_is_the_weight_decay(here):
    """Check 27."""
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    loss = 0.5 * 0.01 * sum(weight.square().sum() for weight in network.parameters())
    loss.backward()
    assert loop.penalty(network, 0.01) == pytest.approx(loss.item(), rel=1e-6)
    assert all(torch.allclose(weight.grad, 0.01 * weight) for weight in network.parameters())
    assert run(weight_decay=0.1)[0]["penalty"] > 0


# what is refused


@pytest.mark.parametrize(
    "options, words",
    [
        ({"noise": 1.5}, "--noise 1.5"),
        ({"split": 1.5}, "--split 1.5"),
        ({"ema": 1.0}, "--ema 1.0"),
        ({"stratified": True}, "--stratified and --split-seed are about --split"),
        ({"class_sample_seed": 1}, "--class-sample-seed is about --subsample-classes"),
        ({"upscale": True, "upscale_padding": True}, "exclude one another"),
        ({"upscale": True, "image_size": 64}, "exclude one another"),
        ({"pretrained": True, "resume_from": "a/b.pt"}, "exclude one another"),
        ({"subsample_classes": 2, "dataset": "folder=x"}, "under data/"),
        ({"epoch_images": 0}, "--epoch-images 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        TrainConfig.stated(FEW | options)


@pytest.mark.parametrize(
    "options, fragment",
    [
        ({"subsample_classes": 11}, "digits-k11: 11 classes cannot be kept; there are 10"),
        ({"resume_from": "nothing.pt"}, "nothing.pt: no such checkpoint"),
        ({"pretrained": True}, "no weights are published for lenet"),
        ({"split": 0.0001}, "leaves one side of the split empty"),
    ],
)
def test_options_that_cannot_be_met_are_refused_before_any_work(here, options, fragment):
    with pytest.raises(UserError, match=fragment):
        run(**options)
    assert not list((here / "models").rglob("*.pt"))


def test_noise_above_one_is_one_sentence(tmp_path):
    done = script("exec_train.py", "lenet", "-d", "digits", "-dir", "a", "--noise", "1.5", cwd=tmp_path)
    assert done.returncode == 2 and "--noise 1.5" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_the_same_options_on_the_command_line(tmp_path):
    done = script(
        "exec_train.py",
        "lenet",
        "-d",
        "digits",
        "-dir",
        "a",
        "-e",
        "2",
        "--split",
        "0.2",
        "--stratified",
        "--split-seed",
        "3",
        "--noise",
        "0.4",
        "--noise-seed",
        "2",
        "--subsample-classes",
        "4",
        "--ema",
        "0.99",
        "--train-acc",
        "--kill-plateaus",
        "--snapshot-every",
        "1",
        "--epoch-images",
        "100",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / done.stdout.strip().splitlines()[-1]).read_text())
    assert record["rows"][0]["selected_on"] == "digits-k4:val accuracy" and record["rows"][0]["processes"] == 1
    assert cli.identity(TrainConfig.stated(dict(model_type="lenet", directory="a")))["noise"] == 0.0


def test_the_imagenet_recipe_trains_on_folders_of_photographs(here):
    """The documented command at the size of a thumbnail; every image is decoded, cropped and mirrored as it is needed."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for name in ("n01440764", "n01443537", "n01484850"):
            folder = here / "data" / "imagenet" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                picture = Image.fromarray(draw.integers(0, 256, (90, 80 + number, 3), dtype=np.uint8))
                picture.save(folder / f"{number}.JPEG")
    recipe = {
        "model_type": "tv_resnet18",
        "dataset": "imagenet",
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 1e-4,
        "batch_size": 6,
        "schedule": "step",
        "lr_step": 1,
        "workers": 0,
        "max_examples": None,
    }
    rows = run(**recipe, image_size=64, epochs=2)
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.1, 0.01]) and rows[0]["n_val"] == 6
    rows = run(**recipe, image_size=64, directory="b", subsample_classes=2, class_sample_seed=0)
    assert rows[0]["n_val"] == 4 and rows[0]["selected_on"] == "imagenet-k2s0:val accuracy"
