"""exec_probe.py's further rows: every column, how far a shift displaces features, and the probe as a checkpoint."""

import json

import pytest
from conftest import script
from test_probe_script import probe, rows

from lib.core.errors import UserError


def test_every_row_has_every_column(grouped):
    record = probe(
        grouped,
        "models/bg/model_6.pt",
        "-ood",
        "digits-bg",
        "-l",
        "features.12",
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
        "features.6",
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
