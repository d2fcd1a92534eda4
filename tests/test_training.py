"""Training: schedules, resuming bit for bit, stopping in order, refusing what cannot be continued."""

import json
import signal

import pytest
import torch
from conftest import script, stopped_script

from lib.core import locks
from lib.training import optimizers

SHORT = "lenet -d digits -dir a -e 4 -lr 3e-3 -b 64 -sched cosine --max-examples 600".split()


def rates(name, *, epochs=70, **options):
    rate = optimizers.schedule(name, learning_rate=1.0, epochs=epochs, **options)
    return lambda *times: [rate(time) for time in times]


def test_milestones_take_effect_once_that_many_epochs_are_done():
    # epochs 1, 41, 51, 61 and 70 of the nearest-category paper's recipe (its page, check 16), first and last step
    found = rates("none", milestones=(40, 50, 60))(0, 39.99, 40, 50, 60, 69.99)
    assert found == pytest.approx([1, 1, 0.1, 0.01, 0.001, 0.001])


def test_schedules_begin_peak_and_end_where_they_should():
    assert rates("cosine")(0, 35, 70) == pytest.approx([1, 0.5, 0])
    assert rates("cosine", warmup=10)(0, 5, 10, 40, 70) == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert rates("onecycle")(0, 10.5, 21, 45.5, 70) == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert rates("step", lr_step=30, lr_decay=0.1)(29.9, 30, 60) == pytest.approx([1, 0.1, 0.01])


def weights(folder, name="model_4.pt"):
    return torch.load(folder / "models" / "a" / name, weights_only=True)


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = script("exec_train.py", *SHORT, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_continues_to_the_same_weights(tmp_path, uninterrupted, number):
    once = tmp_path / "models" / "a" / ("resume.pt" if number == signal.SIGKILL else "best.pt")
    stopped = stopped_script("exec_train.py", *SHORT, cwd=tmp_path, number=number, once=once)
    assert not (tmp_path / "models" / "a" / "model_4.pt").exists()
    if number != signal.SIGKILL:
        assert stopped.returncode == 75 and "the same command continues" in stopped.stderr
    continued = script("exec_train.py", *SHORT, cwd=tmp_path)
    assert continued.returncode == 0 and "continuing models/a in epoch" in continued.stderr, continued.stderr
    assert equal(weights(tmp_path), weights(uninterrupted))
    record, expected = (
        json.loads(next((folder / "results" / "train").glob("*.json")).read_text()) for folder in (tmp_path, uninterrupted)
    )
    for row, other in zip(record["rows"], expected["rows"], strict=True):
        for key in ("epoch", "train_loss", "train_accuracy", "val_accuracy", "best"):
            assert row[key] == other[key]


def test_a_stop_between_two_steps_continues_bit_for_bit(tmp_path):
    """Every step of a run stopped after each of its batches equals the uninterrupted run's, dropout and crops included."""
    from types import SimpleNamespace

    from lib import models
    from lib.datasets import load
    from lib.datasets.batching import Batching
    from lib.models.normalized import Normalized
    from lib.training import loop
    from lib.training.losses import cross_entropy
    from lib.training.optimizers import optimizer, schedule

    split = load("digits", tmp_path, "train").subset(torch.arange(300))
    recipe = loop.Recipe(
        loss=cross_entropy(SimpleNamespace(label_smoothing=0.0)),
        learning_rate=schedule("onecycle", learning_rate=0.1, epochs=2),
        seed=3,
        batching=Batching(batch_size=64, channels=1, size=32, quiet=True),
        augmentation="crop",
    )

    def fresh():
        torch.manual_seed(0)
        network = Normalized(models.build("lenet", 10, 1))
        return network, optimizer("sgd", network.parameters(), learning_rate=0.1, weight_decay=1e-3)

    network, optimiser = fresh()
    position = loop.Position()
    assert loop.train_epoch(network, split, optimiser, recipe, position, loop.Stopping())
    other, other_optimiser = fresh()
    stopping, again = loop.Stopping(), loop.Position()
    stopping.by = "SIGTERM"
    steps = 0
    while not loop.train_epoch(other, split, other_optimiser, recipe, again, stopping):
        steps += 1
        torch.rand(7)  # other uses of the global generator change nothing
        state, optimiser_state = other.body.state_dict(), other_optimiser.state_dict()
        other, other_optimiser = fresh()
        other.body.load_state_dict(state)
        other_optimiser.load_state_dict(optimiser_state)
    assert steps == 4 and equal(network.state_dict(), other.state_dict())
    assert (position.loss, position.correct, position.images) == (again.loss, again.correct, again.images)


def test_the_same_seed_twice_gives_the_same_weights_and_another_seed_others(tmp_path, uninterrupted):
    for seed, expected in (("0", True), ("1", False)):
        folder = tmp_path / seed
        folder.mkdir()
        assert script("exec_train.py", *SHORT, "-s", seed, cwd=folder).returncode == 0
        assert equal(weights(folder), weights(uninterrupted)) is expected


def test_the_folder_holds_what_was_asked_for(trained):
    assert sorted(path.name for path in (trained / "models" / "a").glob("*.pt")) == [
        "best.pt",
        "init.pt",
        "model_1.pt",
        "model_2.pt",
        "resume.pt",
    ]
    described = json.loads((trained / "models" / "a" / "best.json").read_text())
    assert described["metrics"]["selected_on"] == "digits:test accuracy" and described["architecture"] == "lenet"
    assert list((trained / "models" / "a" / "tensorboard").iterdir())


def test_other_hyperparameters_in_the_same_folder_are_refused_by_name(trained):
    done = script("exec_train.py", "lenet", "-d", "digits", "-dir", "a", "-e", 2, "-lr", "1e-3", "-sf", 1, cwd=trained)
    assert done.returncode == 1
    assert "learning_rate 0.003 there, 0.001 here" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_validation_loss_that_is_no_number_is_a_sentence(tmp_path):
    words = (
        "small_cnn",
        "-d",
        "digits",
        "-dir",
        "v",
        "-e",
        "2",
        "-lr",
        "10",
        "-o",
        "sgd",
        "--max-examples",
        "200",
        "-gpu",
        "-1",
    )
    done = script("exec_train.py", *words, cwd=tmp_path)
    assert done.returncode == 1 and "the validation loss became nan in epoch 1; a lower -lr" in done.stderr, done.stderr


def test_a_nan_loss_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    done = script(
        "exec_train.py",
        "lenet",
        "-d",
        "digits",
        "-dir",
        "a",
        "-e",
        "3",
        "-o",
        "sgd",
        "-lr",
        "1e12",
        "-sf",
        "1",
        "--augmentation",
        "none",
        "--max-examples",
        300,
        cwd=tmp_path,
    )
    assert done.returncode == 1 and "the loss became" in done.stderr and "in epoch 1" in done.stderr
    assert [path.name for path in (tmp_path / "models" / "a").glob("*.pt")] == ["init.pt"]
    assert not list((tmp_path / "results").rglob("*.json"))


def test_a_validation_split_selects_and_the_test_set_stays_untouched(tmp_path):
    done = script("exec_train.py", "lenet", "-d", "digits", "-dir", "a", "-e", "1", "--split", "0.1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    row = json.loads(next((tmp_path / "results" / "train").glob("*.json")).read_text())["rows"][0]
    assert row["selected_on"] == "digits:val accuracy" and row["n_val"] == 144


@pytest.mark.slow
def test_a_compiled_network_trains_like_the_plain_one(tmp_path):
    short = ("lenet", "-d", "digits", "-e", "1", "-lr", "3e-3", "--max-examples", "256")
    for name, extra in (("plain", ()), ("compiled", ("--compile",))):
        assert script("exec_train.py", *short, "-dir", name, *extra, cwd=tmp_path).returncode == 0
    plain, compiled = (
        json.loads((tmp_path / "models" / name / "model_1.json").read_text())["metrics"] for name in ("plain", "compiled")
    )
    # dropout draws differ once it is compiled
    assert compiled["train_loss"] == pytest.approx(plain["train_loss"], rel=0.05)


def test_two_runs_in_one_folder_do_not_meet(tmp_path):

    with locks.locked(tmp_path / "models" / "a" / ".lock", "busy"):
        done = script("exec_train.py", *SHORT, cwd=tmp_path)
    assert done.returncode == 1 and "another process is training in models/a" in done.stderr


@pytest.mark.parametrize(
    "words, status, fragment",
    [
        (("lenett", "-dir", "a"), 2, "did you mean lenet"),
        (("lenet", "-dir", "a", "-d", "digts"), 2, "did you mean digits"),
        (("lenet", "-dir", "a", "-d", "cifar10"), 1, "exec_data.py prepare cifar10"),
        (("lenet", "-dir", "../a", "-d", "digits"), 2, "a folder under models/"),
        (("lenet", "-d", "digits"), 2, "-dir is required"),
        (("lenet", "-dir", "a", "-d", "digits", "-gpu", "0"), 1, "there is no GPU here"),
        (("lenet", "-dir", "a", "-d", "digits", "-o", "sdg"), 2, "did you mean sgd"),
        (("lenet", "-dir", "a", "-d", "digits:test"), 2, "without a split"),
        (("lenet", "-dir", "a", "-d", "digits", "--nesterov"), 2, "-o sgd"),
    ],
)
def test_bad_input_ends_in_one_sentence_before_any_work(tmp_path, words, status, fragment):
    if "-gpu" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = script("exec_train.py", *words, cwd=tmp_path)
    assert done.returncode == status and fragment in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "models" / "a" / "init.pt").exists()
