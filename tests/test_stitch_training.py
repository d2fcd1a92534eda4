"""Task-loss matching goes on where it was stopped, takes what is known, and stands beside its null baselines."""

import os
import signal

import numpy as np
import pytest
import torch
from conftest import script, stopped_script

from lib.core.errors import Interrupted, UserError
from lib.experiments import EXPERIMENTS
from lib.experiments.config.stitch import StitchConfig
from lib.experiments.stitch import stitch
from lib.runs import cli, records
from lib.runs import script as script_
from lib.stitching import grid as stitching_grid
from lib.stitching import train

ONE, TWO = "pool2", "pool3"  # of small_cnn: 32 x 8 x 8, 64 x 4 x 4
GRID = ("auto", "auto", f"{ONE},{TWO}", f"{ONE},{TWO}", "-b", "50", "-lr", "0.01", "-e", "2", "--max-examples", "100")


@pytest.fixture
def inside(siblings, monkeypatch, tmp_path):
    """That working directory, with a results folder of the test's own."""
    monkeypatch.chdir(siblings)
    return tmp_path / "results"


def words(*more, end="b"):
    return ["models/a/model_5.pt", f"models/{end}/model_5.pt", *more, "-d", "digits", "--quiet", "-gpu", "-1"]


def config(*more, results_dir, end="b"):
    return cli.parse(StitchConfig, [*words(*more, end=end), "--results-dir", str(results_dir)])


def same(one, other, origins=True):
    """Whether two results are equal to the last bit."""
    left_out = () if origins else ("taken_from",)
    rows = [
        [{key: value for key, value in row.items() if key not in left_out} for row in found.rows] for found in (one, other)
    ]
    return (
        rows[0] == rows[1]
        and one.arrays.keys() == other.arrays.keys()
        and all(np.array_equal(value, other.arrays[name]) for name, value in one.arrays.items())
    )


def stopping_at(monkeypatch, calls, act):
    """Has the `calls`-th training step act first."""
    made, seen = stitching_grid.task_loss, []

    def task_loss(*arguments, **options):
        loss = made(*arguments, **options)

        def step(*batch):
            seen.append(1)
            if len(seen) == calls:
                act()
            return loss(*batch)

        return step

    monkeypatch.setattr(stitching_grid, "task_loss", task_loss)
    return seen


def test_others_is_one_cycle_through_all_images():
    partner, place, seen = stitching_grid.derangement(50, 3), 0, []
    for _ in range(50):
        seen.append(place)
        place = int(partner[place])
    assert place == 0 and sorted(seen) == list(range(50))
    assert torch.equal(partner, stitching_grid.derangement(50, 3)) and not torch.equal(
        partner, stitching_grid.derangement(50, 4)
    )


@pytest.mark.parametrize(
    "calls, options",
    [(1, ()), (3, ("--stitch-norm", "bn", "-sched", "cosine")), (6, ("--null",)), (13, ("--null", "--sender", "noise"))],
    ids=["first epoch", "second epoch, with a norm", "second part", "noise"],
)
def test_training_that_a_signal_stops_goes_on_bit_for_bit(inside, monkeypatch, calls, options):
    given = config(*GRID, *options, results_dir=inside)
    whole = stitch(given)
    with monkeypatch.context() as patched:
        stopping_at(patched, calls, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        with pytest.raises(Interrupted, match="stopped by SIGUSR1 in epoch .* continues from .*partial") as stopped:
            stitch(given)
    assert stopped.value.status == 75
    seen = stopping_at(monkeypatch, 0, None)
    assert same(stitch(given), whole)
    assert len(seen) == 2 * 2 * (1 + 2 * ("--null" in options) + ("--sender" in options)) - calls  # no step is made twice
    assert not list((inside / "stitch").glob("*"))


def test_training_that_dies_goes_on_behind_its_last_epoch(inside, monkeypatch):
    given = config(*GRID, results_dir=inside)
    whole = stitch(given)

    def die():
        raise MemoryError

    with monkeypatch.context() as patched:
        stopping_at(patched, 4, die)
        with pytest.raises(MemoryError):
            stitch(given)
    state = next((inside / "stitch").glob("*.partial"))
    kept = state.read_bytes()
    seen = stopping_at(monkeypatch, 0, None)
    assert same(stitch(given), whole) and len(seen) == 2
    for broken in (kept[:5000], b""):  # begins anew, says nothing false
        seen.clear()
        state.write_bytes(broken)
        assert same(stitch(given), whole) and len(seen) == 4
    state.write_bytes(kept)  # of other settings: not its own
    seen.clear()
    other = config(*GRID, "-wd", "0.1", "--name", state.stem, results_dir=inside)
    assert not same(stitch(other), whole) and len(seen) == 4


def test_cells_of_a_grid_that_are_done_are_not_trained_again(inside, monkeypatch, capsys):
    whole = stitch(config(*GRID, results_dir=inside))
    pair = (*GRID[:2], ONE, TWO, *GRID[4:])
    first = script_.run(EXPERIMENTS, "stitch", config(*pair, results_dir=inside), ["exec_stitch.py"])
    script_.run(
        EXPERIMENTS, "stitch", config(*pair, "-wd", "0.1", results_dir=inside), ["exec_stitch.py"]
    )  # trained otherwise
    script_.run(EXPERIMENTS, "stitch", config(*pair, end="a", results_dir=inside), ["exec_stitch.py"])  # other networks
    trained = []
    made = train.Part.trained
    monkeypatch.setattr(train.Part, "trained", lambda part: trained.append(made(part)) or trained[-1])
    again = stitch(config(*GRID, results_dir=inside))
    assert same(again, whole, origins=False) and {len(entries) for entries in trained} == {3}
    assert [row["taken_from"] for row in again.rows] == [None, str(first), None, None]
    first.with_suffix(".npz").write_bytes(b"half")  # its weights are lost
    again = stitch(config(*GRID, results_dir=inside))
    assert same(again, whole) and all(row["taken_from"] is None for row in again.rows)


def test_each_stitch_has_its_own_gradient_norm(inside):
    options = ("--grad-clip", "0.01")
    grid = stitch(config(*GRID, *options, results_dir=inside)).rows
    alone = stitch(config(*GRID[:2], ONE, TWO, *GRID[4:], *options, results_dir=inside)).rows[0]
    assert alone == {**grid[1], "stitch": 0}
    free = stitch(config(*GRID[:2], ONE, TWO, *GRID[4:], results_dir=inside)).rows[0]
    assert free["normalized_difference"] != alone["normalized_difference"]


@pytest.mark.slow
def test_the_script_is_stopped_and_killed_and_its_record_is_that_of_an_undisturbed_run(siblings):
    def command(place):
        return [
            *words("auto", "auto", TWO, TWO, "-b", "32", "-e", "12")[:-3],
            "-gpu",
            "-1",
            "--name",
            "it",
            "--results-dir",
            place,
        ]

    done = script("exec_stitch.py", *command("undisturbed"), cwd=siblings)
    assert done.returncode == 0, done.stderr
    whole = records.read(siblings / "undisturbed" / "stitch" / "it.json")["rows"]
    for number, status in ((signal.SIGTERM, 75), (signal.SIGKILL, -9)):
        state = siblings / f"disturbed-{number}" / "stitch" / "it.partial"
        process = stopped_script("exec_stitch.py", *command(f"disturbed-{number}"), cwd=siblings, number=number, once=state)
        assert process.returncode == status and state.exists()
        assert status != 75 or "the same command continues from" in process.stderr
        done = script("exec_stitch.py", *command(f"disturbed-{number}"), cwd=siblings)
        assert done.returncode == 0 and "continuing part 1 of 1" in done.stderr, done.stderr
        assert records.read(state.with_suffix(".json"))["rows"] == whole and not state.exists()


def test_null_rows_stand_beside_the_others_and_score_lower(inside):
    options = ("auto", "auto", TWO, TWO, "-b", "64", "-lr", "0.01")
    for more in (
        ("-e", "2"),
        ("-i", "pinv", "-e", "0", "-pinv-samples", "all"),
        ("-i", "perm", "-e", "0"),
        ("-i", "pinv", "-e", "0", "--solver", "reference", "-pinv-samples", "40"),
    ):
        plain = stitch(config(*options, *more, results_dir=inside)).rows
        rows = stitch(config(*options, *more, "--null", results_dir=inside)).rows
        assert [row["null"] for row in rows] == [None, "untrained", "shuffled"] and rows[0] == plain[0]
        stitched, untrained, shuffled = (row["accuracy"] for row in rows)
        assert untrained <= stitched and shuffled < stitched and ("perm" in more or shuffled < 0.35), more
        if "pinv" in more:
            assert rows[2]["matching_residual"] > rows[1]["matching_residual"] > rows[0]["matching_residual"]
    untouched = stitch(config(*options, "-i", "eye", "-e", "0", "--null", results_dir=inside, end="a")).rows
    assert [row["null"] for row in untouched] == [None, "untrained"] and untouched[0]["agreement"] == 1


def test_null_refuses_soft_targets():
    with pytest.raises(UserError, match="--null: it shuffles labels, from which --soft-targets does not learn"):
        cli.parse(StitchConfig, ["a", "b", "--null", "--soft-targets"])
