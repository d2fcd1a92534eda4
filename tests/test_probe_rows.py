"""exec_probe.py's further rows: every column, how far a shift displaces features, and the probe as a checkpoint."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import copied, script
from test_probe_script import probe, rows

from lib import datasets
from lib.core.errors import UserError
from lib.datasets.subsets import validation_split
from lib.experiments.config.probe import ProbeConfig
from lib.experiments.probe import _unseen
from lib.experiments.probe import probe as experiment
from lib.models import checkpoints
from lib.probing.roles import divide_inner
from lib.runs import cli
from lib.runs.records import Result


def test_every_row_has_every_column(grouped):
    record = probe(
        grouped,
        "models/bg/model_6.pt",
        "-ood",
        "digits-bg",
        "-l",
        "relu4",
        "avgpool",
        "-e",
        "1",
        "--reduce",
        "gap",
        "--sensitivity",
        "--name",
        "columns",
    )
    asked = (
        "layer reduce dim rank data variant group split protocol solver lr l1 l2 seed epoch selected_by n correct accuracy"
    ).split()
    assert {row["probe"] for row in record["rows"]} == {"head", "class-means", "probe", "gain", "sensitivity"}
    assert all(set(asked) <= set(row) for row in record["rows"])
    chosen = next(row for row in rows(record, probe="probe") if row["chosen"] and row["group"] == "all")
    assert all(chosen[key] is not None for key in asked if key not in ("rank",)) and chosen["variant"] == ""


def test_displacement_is_reported_by_layer_and_group_beside_its_null(grouped):
    record = probe(
        grouped,
        "models/bg/model_6.pt",
        "-ood",
        "digits-bg",
        "-l",
        "pool2",
        "avgpool",
        "--reduce",
        "gap",
        "-e",
        "2",
        "--sensitivity",
        "--name",
        "moved",
    )
    found = rows(record, probe="sensitivity")
    assert len(found) == 8 and len({row["group"] for row in found}) == 4
    for row in found:
        assert row["s_null_low"] <= row["s_null_high"] and 0 <= row["row_space"] <= 1 and 0 <= row["tvd_null"] <= 1
    assert (grouped / "results" / "probe" / "moved-sensitivity.png").exists()
    inside = probe(grouped, "models/bg/model_6.pt", "-l", "avgpool", "-e", "1", "--sensitivity", "-d", "digits-bg")
    assert len(rows(inside, probe="sensitivity")) == 4


def test_a_copy_of_the_test_images_is_displaced_no_more_than_sampling_allows(trained):
    record = probe(
        trained,
        "models/a/model_2.pt",
        "-ood",
        "digits:test",
        "-l",
        "features.4",
        "features.14",
        "--reduce",
        "gap",
        "-e",
        "1",
        "--select",
        "none",
        "--sensitivity",
    )
    for row in rows(record, probe="sensitivity"):
        assert row["energy_distance_null_low"] - 0.01 <= row["energy_distance"] <= row["energy_distance_null_high"] + 0.01
        assert row["s_null_low"] - 0.02 <= row["s"] <= row["s_null_high"] + 0.02
        # the digits are divided class by class, more evenly than by chance
        assert -0.06 < row["tvd"] - row["tvd_null"] < 0.03 and -0.06 < row["tvd_debiased"] < 0.03


def test_an_exported_probe_is_a_checkpoint_that_answers_like_the_probe_and_ends_at_its_layer(trained):
    words = (
        "models/a/model_2.pt",
        "-l",
        "features.4",
        "features.9",
        "--reduce",
        "grid:2",
        "-e",
        "15",
        "-lr",
        "1e-2",
        "--standardise",
        "--cache-type",
        "fp32",
        "--select",
        "id-val",
        "--export",
        "models/cut",
    )
    record = probe(trained, *words)
    chosen = next(row for row in rows(record, probe="probe") if row["chosen"])
    done = script("exec_eval.py", "models/cut/probe.pt", "-d", "digits", "--name", "exported", cwd=trained)
    assert done.returncode == 0, done.stderr
    found = json.loads((trained / "results" / "eval" / "exported.json").read_text())["rows"][0]
    assert found["accuracy"] == chosen["accuracy"] > 0.5 and found["n"] == chosen["n"]
    again = probe(trained, "models/cut/probe.pt", "-l", "cuts", "--reduce", "gap", "-e", "1", "--name", "probed-again")
    layers = {row["layer"] for row in rows(again, probe="probe")}
    last = chosen["layer"].split(".")[1]
    assert f"features.{last}" in layers and not any(layer == f"features.{int(last) + 1}" for layer in layers)
    with pytest.raises(UserError, match="random:4 has parameters of its own"):
        probe(trained, "models/a/model_2.pt", "-l", "features.4", "--reduce", "random:4", "--export", "x")


def test_rows_say_how_many_images_learnt_chose_and_tested_and_who_chose(grouped):
    words = ("models/bg/model_6.pt", "-ood", "digits-bg", "-l", "pool2", "avgpool", "--reduce", "gap", "-e", "1")
    record = probe(grouped, *words, "-s", "0", "1", "--select", "oracle", "none", "ood-val", "last-but-one", "id-val")
    gains = {row["selected_by"]: row for row in rows(record, probe="gain")}
    assert list(gains) == ["ood-val", "last-but-one", "id-val", "oracle"]  # honest rules first
    train, val, test = (len(datasets.load("digits-bg", "data", split)) for split in ("train", "val", "test"))
    learnt = train - round(0.1 * train)
    assert {row["n"] for row in gains.values()} == {test} and {row["n_learnt"] for row in gains.values()} == {learnt}
    assert {row["over"] for row in gains.values()} == {"seeds and images"} and {
        row["n_seeds"] for row in gains.values()
    } == {2}
    assert {rule: (row["n_validated"], row["choice"]) for rule, row in gains.items()} == {
        "ood-val": (val // 2, "by each seed, on OOD images"),  # one setting: only the layer is chosen
        "last-but-one": (None, "layer fixed beforehand"),
        "id-val": (train - learnt, "by each seed, on in-distribution images that the network has learnt from"),
        "oracle": (test, "upper bound, chosen on the test images"),
    }
    once = probe(grouped, *words, "-lr", "1e-3", "1e-2", "--select", "ood-val", "last-but-one", "none")
    first, second = rows(once, probe="gain")
    assert first["choice"] == "once, on OOD images; not repeated in the interval" and first["n_validated"] == 2 * (val // 2)
    assert second["choice"] == "layer fixed beforehand, settings on in-distribution images that the network has learnt from"
    assert first["over"] == "images" and first["n_seeds"] == 1 and first["n"] == test
    for row in [row for row in once["rows"] if row["probe"] == "probe"]:
        by_rule = {"ood-val": "once, on OOD images", "last-but-one": second["choice"], "none": None}
        assert (row["choice"], row["n_learnt"]) == (by_rule[row["selected_by"]], learnt)


def test_rows_on_gains_are_printed_however_long_the_table_is():
    table = [{"probe": "gain" if number in (40, 41) else "probe", "place": number} for number in range(200)]
    lines = Result(table, columns=("probe", "place"), always=lambda row: row["probe"] == "gain").text().splitlines()
    places = [int(line.split()[-1]) for line in lines[2:] if not line.startswith("...")]
    assert places == [*range(29), 40, 41, *range(171, 200)]
    assert [line for line in lines if line.startswith("...")] == [
        "... 11 more rows in the record ...",
        "... 129 more rows in the record ...",
    ]


def test_the_papers_roles_test_on_the_images_that_choose_and_say_so(trained, monkeypatch):
    monkeypatch.chdir(trained)
    words = [
        "models/a/model_2.pt",
        "-ood",
        "digits-c/fog-3",
        "-l",
        "features.9",
        "features.14",
        "--reduce",
        "gap",
        "-e",
        "1",
    ]
    words += ["--roles", "paper", "--select", "ood-val", "--quiet"]
    with pytest.warns(UserWarning, match="--roles paper: 36 of the 355 test images also choose settings and layer"):
        result = experiment(cli.parse(ProbeConfig, words))
    (gain,) = [row for row in result.rows if row["probe"] == "gain"]
    assert (gain["n"], gain["n_validated"], gain["choice"]) == (
        355,
        36,
        "once, on OOD images that also test; not repeated in the interval",
    )


def test_few_shot_images_of_the_papers_roles_are_shared_with_a_warning(trained, monkeypatch):
    monkeypatch.chdir(trained)
    words = ["models/a/model_2.pt", "-ood", "digits-c/fog-3", "digits-c/contrast-3", "-l", "features.14", "--reduce", "gap"]
    words += ["--protocol", "few-shot", "--tuning", "shared", "-e", "1", "--select", "none", "--roles", "paper", "--quiet"]
    with pytest.warns(UserWarning, match="--roles paper: images are drawn for every OOD set anew"):
        experiment(cli.parse(ProbeConfig, words))


@pytest.fixture(scope="module")
def half_trained(tmp_path_factory):
    """A working directory with `models/half`: a lenet that learnt from 80 % of the digits."""
    words = ("lenet", "-d", "digits", "-dir", "half", "-e", 1, "-lr", "3e-3", "--split", "0.2", "--split-seed", "5")
    return copied(tmp_path_factory, "half-trained", words)


def test_id_validation_takes_images_that_the_network_has_not_learnt_from(half_trained, monkeypatch):
    monkeypatch.chdir(half_trained)
    train = datasets.load("digits", "data", "train")
    learnt, held_out = validation_split(train, 0.2, 5)
    description = checkpoints.load("models/half/model_1.pt").description
    config = ProbeConfig(model_path="models/half/model_1.pt")
    unseen = _unseen(config, description, "digits", train)
    assert torch.equal(train.indices[unseen], held_out.indices)
    for seed in (0, 1):
        division = divide_inner(len(train), 0.1, seed, unseen)
        assert len(division.held_out) == round(0.1 * len(train)) and torch.isin(division.held_out, unseen).all()
        assert torch.equal(torch.cat(division).sort().values, torch.arange(len(train)))
    few = train.subset(torch.arange(0, len(train), 3))  # as --max-examples cuts a set down
    some = _unseen(replace(config, max_examples=len(few)), description, "digits", few)
    assert torch.equal(few.indices[some], held_out.indices[torch.isin(held_out.indices, few.indices)])
    words = ("-l", "features.9,features.14", "--reduce", "gap", "-e", "1", "--select", "id-val")
    (gain,) = rows(probe(half_trained, "models/half/model_1.pt", *words), probe="gain")
    assert gain["choice"] == "once, on in-distribution images that the network has not seen; not repeated in the interval"
    assert gain["n_validated"] == round(0.1 * len(train))


def test_what_is_not_known_of_the_networks_training_is_said(half_trained, monkeypatch):
    monkeypatch.chdir(half_trained)
    train, config = datasets.load("digits", "data", "train"), ProbeConfig(model_path="models/half/model_1.pt")
    description = checkpoints.load("models/half/model_1.pt").description
    continued = replace(description, config=description.config | {"resume_from": "models/a/model_1.pt"})
    whole = replace(description, config=description.config | {"split": 0.0})
    assert _unseen(config, replace(description, config={}), "digits", train) is None
    assert _unseen(config, continued, "digits", train) is None and not len(_unseen(config, whole, "digits", train))
    other = datasets.load("digits-colour", "data", "train")  # the same digits under another name
    unseen = other.indices[_unseen(config, description, "digits-colour", other)]
    assert torch.equal(
        torch.isin(other.indices, unseen), torch.isin(other.indices, validation_split(train, 0.2, 5)[1].indices)
    )


def test_logits_that_overflow_are_refused_in_a_sentence_that_names_their_layer(trained):
    loaded = checkpoints.load(trained / "models/a/model_2.pt")
    with torch.no_grad():
        list(loaded.network.parameters())[-2].fill_(3e38)  # of the head
    checkpoints.save(trained / "models/overflows/model_2.pt", loaded.network, loaded.description)
    words = ("models/overflows/model_2.pt", "-l", "features.14", "--reduce", "gap", "-e", "1")
    with pytest.raises(
        UserError, match=r"^layer [^ ]+ puts out NaN or infinite numbers for image \d+ of digits:(train|test), so nothing"
    ):
        probe(trained, *words)


def test_a_probe_that_did_not_stay_finite_is_refused_with_its_layer_and_setting(trained):
    words = (
        "models/a/model_2.pt",
        "-l",
        "features.14",
        "--reduce",
        "gap",
        "-e",
        "2",
        "--solver",
        "sgd",
        "-lr",
        "1e-3",
        "1e38",
    )
    with pytest.raises(
        UserError, match="^layer features.14: the probe at -lr 1e.38 -l1 1e.30 did not stay finite; a smaller -lr or"
    ):
        probe(trained, *words, "-l1", "1e30")
