"""exec_probe.py as a user calls it, on built-in data: protocols, groups, ranks, rules and bad input."""

import json
import os
from pathlib import Path

import pytest
import torch
from conftest import script

from lib.core.errors import UsageError, UserError
from lib.datasets import names
from lib.datasets.batching import Batching
from lib.experiments import EXPERIMENTS
from lib.experiments.config.probe import ProbeConfig
from lib.experiments.probe import options
from lib.experiments.probe import probe as experiment
from lib.plots import probe as plots
from lib.probing import roles, study
from lib.probing.fit import Group, steps
from lib.probing.stacked_probes import Setting
from lib.runs import cli, loading
from lib.runs import script as script_


def probe(folder, *words) -> dict:
    """The record of a run in this process, as the command line makes it."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        path = script_.run(EXPERIMENTS, "probe", cli.parse(ProbeConfig, [*words, "--quiet"]), ["exec_probe.py", *words])
        return json.loads(Path(path).read_text())
    finally:
        os.chdir(before)


def rows(record: dict, **values) -> list[dict]:
    return [row for row in record["rows"] if all(row[key] == value for key, value in values.items())]


def test_zero_shot_rules_stand_side_by_side_with_groups_and_equal_search(grouped):
    record = probe(
        grouped,
        "models/bg/model_6.pt",
        "-ood",
        "digits-bg",
        "-l",
        "pool2",
        "relu4",
        "avgpool",
        "--reduce",
        "gap",
        "-lr",
        "1e-3",
        "1e-2",
        "-s",
        "0",
        "1",
        "-e",
        "20",
        "--standardise",
        "--name",
        "rules",
    )
    gains = rows(record, probe="gain")
    assert [row["selected_by"] for row in gains] == ["ood-val", "id-val", "last-but-one", "oracle"]
    assert [row["candidates"] for row in gains] == [4, 4, 2, 4]  # relu4 and avgpool are one representation
    oracle = gains[-1]
    assert all(row["group"] == "worst" and row["gain_low"] <= row["gain"] <= row["gain_high"] for row in gains)
    assert all(oracle["accuracy"] >= row["accuracy"] for row in gains) and oracle["gain"] >= 0
    for rule in ("ood-val", "oracle"):
        for seed in (0, 1):
            found = [row for row in rows(record, probe="probe", selected_by=rule, seed=seed) if row["group"] == "all"]
            assert len(found) == 3 and sum(row["chosen"] for row in found) == 1
    whole = rows(record, probe="probe", selected_by="oracle", seed=0, layer="avgpool")
    by_group = [row for row in whole if row["group"] not in ("all", "adjusted") and "worst" not in row["group"]]
    assert sum(row["correct"] for row in by_group) == next(row["correct"] for row in whole if row["group"] == "all")
    assert len(by_group) == 4 and sum(row["n"] for row in by_group) == 355
    worst = next(row for row in whole if row["group"].startswith("worst"))
    assert worst["accuracy"] == min(row["accuracy"] for row in by_group)
    assert [path.name for path in (grouped / "results" / "probe").glob("rules*.png")] == ["rules-layers.png"]


@pytest.mark.parametrize(
    "words, group", [(("--metric", "accuracy"), "all"), (("--metric", "adjusted"), "adjusted"), (("--select", "none"), None)]
)
def test_shares_of_images_with_groups_are_drawn_whatever_is_chosen_by(grouped, tmp_path, words, group):
    record = probe(
        grouped,
        "models/bg/model_6.pt",
        "-ood",
        "digits-bg",
        "-l",
        "relu4",
        "avgpool",
        "--reduce",
        "gap",
        "--protocol",
        "few-shot",
        "--fraction",
        "0.1",
        "0.2",
        "-e",
        "1",
        "--results-dir",
        str(tmp_path),
        *words,
    )
    assert {row["group"] for row in rows(record, probe="gain")} == {group} - {None}
    assert len(list(tmp_path.glob("probe/*-fractions.png"))) == (group is not None)


def test_a_warm_probe_that_is_not_trained_answers_like_the_networks_head(grouped):
    record = probe(
        grouped,
        "models/bg/model_6.pt",
        "-ood",
        "digits-bg",
        "-l",
        "avgpool",
        "-e",
        "0",
        "--warm-start",
        "--select",
        "none",
        "--cache-type",
        "fp32",
    )
    head, mine = rows(record, probe="head"), rows(record, probe="probe")
    assert len(head) == 7
    assert [(row["group"], row["correct"]) for row in head] == [(row["group"], row["correct"]) for row in mine]


@pytest.mark.parametrize("words", [(), ("--standardise",)], ids=["as-they-are", "standardised"])
def test_a_warm_probe_starts_at_the_heads_own_logits(grouped, monkeypatch, words):
    monkeypatch.chdir(grouped)
    config = cli.parse(
        ProbeConfig,
        [
            "models/bg/model_6.pt",
            "-ood",
            "digits-bg",
            "-l",
            "relu4",
            "avgpool",
            "--reduce",
            "flatten",
            "grid:1",
            "-e",
            "0",
            "--warm-start",
            "--select",
            "none",
            "--cache-type",
            "fp32",
            "--quiet",
            *words,
        ],
    )
    found = experiment(config)
    heads = [row["correct"] for row in found.rows if row["probe"] == "head"]
    last = [row for row in found.rows if row["probe"] == "probe" and row["layer"] == "avgpool"]
    assert len(heads) == 7
    for reduce in ("flatten", "grid:1"):  # the last layers of both sweeps read the same
        assert [row["correct"] for row in last if row["reduce"] == reduce] == heads


def test_an_adjusted_gain_lies_in_the_interval_of_its_own_measure(grouped):
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
        "5",
        "--metric",
        "adjusted",
        "--select",
        "oracle",
        "--name",
        "adjusted",
    )
    (gain,) = rows(record, probe="gain")
    chosen = [row["accuracy"] for row in rows(record, probe="probe") if row["group"] == "adjusted"]
    assert gain["group"] == "adjusted" and gain["gain"] == pytest.approx(max(chosen) - chosen[-1])
    assert gain["gain_low"] <= gain["gain"] <= gain["gain_high"]
    assert (grouped / "results" / "probe" / "adjusted-layers.png").exists()


def test_the_papers_roles_choose_among_the_layers_before_the_last(grouped):
    for division, searched in (("clean", 3), ("paper", 2)):
        record = probe(
            grouped,
            "models/bg/model_6.pt",
            "-ood",
            "digits-bg",
            "-l",
            "pool2",
            "pool3",
            "avgpool",
            "--reduce",
            "gap",
            "-e",
            "5",
            "--roles",
            division,
            "--select",
            "oracle",
        )
        (gain,) = rows(record, probe="gain")
        assert gain["candidates"] == searched and (division == "clean" or gain["layer"] != "avgpool")


def test_groups_of_other_names_are_not_taken_for_those_of_training(grouped, monkeypatch):
    monkeypatch.setattr(study, "refuse_overlap", lambda *roles: None)  # both sets are of the same digits
    record = probe(
        grouped,
        "models/bg/model_6.pt",
        "-ood",
        "digits-bg",
        "digits-colour",
        "-l",
        "avgpool",
        "--reduce",
        "gap",
        "-e",
        "1",
        "--sensitivity",
        "--select",
        "none",
        "--roles",
        "paper",
    )
    adjusted = [row["data"] for row in rows(record, probe="probe") if row["group"] == "adjusted"]
    assert adjusted == ["digits-bg"]


def test_probes_learn_from_no_image_that_tests_under_another_name(grouped):
    with pytest.raises(UserError, match="images of digits:train are probe-train as well as"):
        probe(grouped, "models/bg/model_6.pt", "-ood", "digits-colour", "-l", "avgpool", "--reduce", "gap", "-e", "1")


def test_few_shot_probes_repair_what_the_spurious_background_broke(grouped):
    common = (
        "models/bg/model_6.pt",
        "-ood",
        "digits-bg",
        "-l",
        "pool2",
        "--reduce",
        "grid:4",
        "--solver",
        "lbfgs",
        "--l2",
        "1e-3",
        "-e",
        "100",
        "--select",
        "none",
    )
    zero = probe(grouped, *common)
    few = probe(grouped, *common, "--protocol", "full-ood", "--class-balance", "groups")
    worst = [
        next(row["accuracy"] for row in record["rows"] if row["probe"] == "probe" and "worst" in row["group"])
        for record in (zero, few)
    ]
    assert worst[1] > worst[0] + 0.1


def test_one_word_names_all_corruptions_of_a_severity():
    found = names.expand("cifar10-c:test/3")
    assert len(found) == 19 and found[9] == "cifar10-c:test/fog-3" and names.expand("digits-c")[0].endswith("-5")
    assert names.expand("digits-c/fog-3") == ("digits-c/fog-3",) and names.expand("digits") == ("digits",)
    with pytest.raises(UsageError, match="severities are 1 to 5"):
        names.expand("digits-c/9")


def test_the_mean_and_median_gain_over_shifts_are_reported(trained):
    done = script(
        "exec_probe.py",
        "models/a/model_2.pt",
        "-ood",
        "digits-c/fog-3",
        "digits-c/contrast-3",
        "digits-c/impulse_noise-3",
        "-l",
        "features.9",
        "features.14",
        "--reduce",
        "gap",
        "--roles",
        "paper",
        "--protocol",
        "few-shot",
        "--select",
        "oracle",
        "--tuning",
        "shared",
        "-e",
        "2",
        cwd=trained,
    )
    assert done.returncode == 0, done.stderr
    path = trained / done.stdout.strip().splitlines()[-1]
    gains = rows(json.loads(path.read_text()), probe="gain")
    assert len(gains) == 4 and gains[-1]["variant"] == "mean"
    assert gains[-1]["gain"] == pytest.approx(sum(row["gain"] for row in gains[:-1]) / 3)
    assert gains[-1]["gain_median"] == sorted(row["gain"] for row in gains[:-1])[1]
    assert {row["n"] for row in gains[:-1]} == {319}
    assert path.with_name(path.stem + "-gains.png").exists() and path.with_name(path.stem + "-layers.png").exists()
    done = script("exec_tables.py", "probe", cwd=trained)
    assert done.returncode == 0 and "contrast-3" in done.stdout


def test_many_shifts_have_a_figure_that_tells_them_apart(trained):
    record = probe(
        trained,
        "models/a/model_2.pt",
        "-ood",
        "digits-c/fog-3",
        "-l",
        "features.9",
        "features.14",
        "--reduce",
        "gap",
        "flatten",
        "-e",
        "1",
        "-s",
        "0",
        "1",
        "--select",
        "oracle",
    )
    many = [row | {"variant": f"kind{number}-3"} for number in range(7) for row in record["rows"]]
    assert "shifts-gap" not in plots.of_rows(record["rows"], "few", 0.1)
    found = plots.of_rows(many, "many", 0.1)
    assert {"layers-gap", "layers-flatten", "shifts-gap", "shifts-flatten"} <= found.keys()
    axes = found["shifts-gap"].axes[0]
    assert len(axes.texts) == 7 * 3 and [label.get_text() for label in axes.get_xticklabels()][-1] == "head"
    own = [row["accuracy"] for row in record["rows"] if row["probe"] == "head"]  # of both seeds' test images
    assert axes.texts[2].get_text().startswith(f"{100 * sum(own) / 2:.1f}")


def test_an_ood_set_that_is_the_test_set_gives_the_in_distribution_numbers(trained):
    common = ("models/a/model_2.pt", "-l", "features.14", "--select", "none", "-e", "3", "--reduce", "gap", "-lr", "1e-2")
    inside = probe(trained, *common)
    outside = probe(trained, *common, "-ood", "digits:test")
    for kind in ("head", "probe", "class-means"):
        one, other = rows(inside, probe=kind)[0], rows(outside, probe=kind)[0]
        assert one["n"] == 355 and other["n"] == 319  # a tenth validates
        assert 0 <= one["correct"] - other["correct"] <= 36


def test_a_copy_of_the_test_set_has_the_scores_and_the_gain_of_the_test_set(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(roles.CLEAN, "zero-shot", (0, 0, 0))  # all of the copy tests
    common = (
        "models/a/model_2.pt",
        "-l",
        "features.9,features.14",
        "--select",
        "oracle",
        "-e",
        "3",
        "--reduce",
        "gap",
        "-lr",
        "1e-3",
        "1e-2",
        "--results-dir",
        str(tmp_path),
    )
    inside, outside = probe(trained, *common), probe(trained, *common, "-ood", "digits:test")
    for kind in ("head", "probe", "gain"):
        one, other = rows(inside, probe=kind), rows(outside, probe=kind)
        assert len(one) == len(other) >= 1
        for measure in ("layer", "n", "accuracy", "gain", "gain_low", "gain_high"):
            assert [row[measure] for row in one] == [row[measure] for row in other]


def test_ranks_share_one_decomposition_and_the_full_rank_is_the_plain_probe(trained):
    common = (
        "models/a/model_2.pt",
        "-l",
        "features.14",
        "--reduce",
        "gap",
        "-e",
        "60",
        "-lr",
        "1e-2",
        "--standardise",
        "--cache-type",
        "fp32",
    )
    ranked = probe(trained, *common, "-ranks", "1", "4", "64", "100")
    plain = probe(trained, *common)
    found = {row["rank"]: row["accuracy"] for row in rows(ranked, probe="probe")}
    assert list(found) == [1, 4, 64] and abs(found[64] - rows(plain, probe="probe")[0]["accuracy"]) <= 0.01
    assert found[64] > found[1] + 0.1 and found[4] >= found[1] - 0.01


def test_few_shot_fractions_are_nested_and_a_second_run_reads_the_features(trained):
    words = (
        "models/a/model_2.pt",
        "-ood",
        "digits-c/fog-3",
        "-l",
        "features.9",
        "features.14",
        "--reduce",
        "gap",
        "--protocol",
        "few-shot",
        "--fraction",
        "0.1",
        "0.3",
        "-e",
        "2",
        "--select",
        "ood-val",
    )
    record = probe(trained, *words)
    assert {row["fraction"] for row in rows(record, probe="gain")} == {0.1, 0.3}
    before = sorted(os.path.getmtime(path) for path in (trained / ".cache" / "features").rglob("*.npy"))
    probe(trained, *words, "-s", "1", "--solver", "ridge", "--l2", "0.1", "1")
    assert sorted(os.path.getmtime(path) for path in (trained / ".cache" / "features").rglob("*.npy")) == before


@pytest.mark.parametrize(
    "words, status, fragments",
    [
        (("--protocol", "few-shot"), 2, ("needs -ood",)),
        (("-ood", "digits:train"), 1, ("images of digits:train are probe-train as well as",)),
        (("-ood", "digits-bg"), 1, ("its 2 classes", "are not the 10 of digits")),
        (("-l", "features.14", "-ranks", "100"), 1, ("features.14 has 64 channels",)),
        (("-l", "features.14", "-ranks", "4", "--reduce", "flatten"), 2, ("does not keep the channels",)),
        (
            (
                "-l",
                "features.99",
            ),
            1,
            ("did you mean",),
        ),
        (
            (
                "--reduce",
                "gapp",
            ),
            2,
            ("--reduce gapp", "did you mean gap"),
        ),
        (
            (
                "--solver",
                "ridge",
            ),
            2,
            ("--solver ridge needs --l2 above 0",),
        ),
        (("--solver", "lbfgs", "--l1", "0.1"), 2, ("no L1 penalty",)),
        (("--solver", "prox", "--l2-norm", "0.1"), 2, ("--l2-norm: --solver prox has no such penalty",)),
        (
            ("-l", "features.14", "--solver", "lbfgs", "--cache-gib", "1e-4"),
            1,
            ("features of layer features.14 do not fit into half of --cache-gib 0.0001",),
        ),
        (("-ood", "digits-c/fog-3", "--protocol", "few-shot", "--shots", "90"), 1, ("may be learnt from",)),
        (("-ood", "digits-c/fog-3", "--protocol", "few-shot", "--fraction", "0.0001"), 1, ("less than one image",)),
        (("-ood", "digits-c/fog-3", "--shots", "3"), 2, ("are for --protocol few-shot",)),
        (("--metric", "worst-group"), 1, ("no groups in common",)),
        (("-l", "features.14", "--warm-start"), 1, ("--warm-start: the head does not read",)),
        (
            ("-l", "avgpool", "--warm-start", "--solver", "ridge", "--l2", "1"),
            2,
            ("--warm-start", "not depend on the start"),
        ),
        (("-l", "features.14", "-ranks", "4", "--sensitivity"), 2, ("--sensitivity", "leave out -ranks")),
        (("-l", "features.14", "-ranks", "4", "--rank-basis", "per-batch", "--export", "x"), 2, ("--export", "per-batch")),
        (
            (
                "-ood",
                "digits-c/fog-3",
                "--protocol",
                "few-shot",
                "--solver",
                "ridge",
                "--l2",
                "0.1",
                "1",
                "--select",
                "id-val",
                "--roles",
                "paper",
            ),
            1,
            ("--select id-val", "no images for it"),
        ),
        (
            (
                "-ood",
                "digits-c/fog-3",
                "--protocol",
                "few-shot",
                "--roles",
                "paper",
                "--select",
                "ood-val",
                "-lr",
                "1e-3",
                "1e-2",
            ),
            1,
            ("--select ood-val", "no images for it"),
        ),
    ],
)
def test_bad_input_is_one_sentence_with_its_exit_status(trained, words, status, fragments):
    with pytest.raises(UserError) as caught:
        probe(trained, "models/a/model_2.pt", *words)
    sentence = str(caught.value)
    assert caught.value.status == status and all(fragment in sentence for fragment in fragments), sentence
    assert "\n" not in sentence


def test_a_rank_above_the_dimension_is_dropped_from_a_list_with_a_warning(trained, monkeypatch):
    monkeypatch.chdir(trained)
    words = ["models/a/model_2.pt", "-l", "features.14", "-ranks", "4", "100", "-e", "1", "--quiet"]
    with pytest.warns(UserWarning, match="-ranks 100: left out, layer features.14 has 64 channels"):
        result = experiment(cli.parse(ProbeConfig, words))
    assert {row["rank"] for row in result.rows if row["probe"] == "probe"} == {4}


def test_the_worst_group_says_which_group_is_missing_from_the_test_images(grouped, monkeypatch):
    load = loading.load_split

    def without_last_group(config, name, split=None, **options):
        found = load(config, name, split, **options)
        return found.subset(found.groups < 3) if found.split == "test" else found

    monkeypatch.setattr(loading, "load_split", without_last_group)
    monkeypatch.chdir(grouped)
    words = ["models/bg/model_6.pt", "-ood", "digits-bg", "-l", "avgpool", "-e", "1", "--select", "oracle", "--quiet"]
    with pytest.warns(UserWarning, match="no test image of group five or more, sea; the worst group is one of the others"):
        result = experiment(cli.parse(ProbeConfig, words))
    found = {row["group"]: row for row in result.rows if row["probe"] == "probe"}
    assert found["five or more, sea"]["n"] == 0 and found["five or more, sea"]["accuracy"] is None
    assert not any(name.startswith("worst: five or more, sea") for name in found)


def test_the_flags_beside_the_published_call_are_the_published_training():
    page = (Path(__file__).parent.parent / "docs/published_calls.md").read_text()
    published = "| `exec_probe.py M1 resnet18 -l layer1.0 -d cifar10 -ranks 4 2 --verbose` | `exec_probe.py "
    (row,) = [line for line in page.splitlines() if line.startswith(published)]
    words = row.removeprefix(published).partition("`")[0].split()
    config = cli.parse(ProbeConfig, words)
    asked = options(config, Batching())
    assert (asked.recipe.solver, asked.recipe.epochs, asked.recipe.batch_size, asked.recipe.weight_decay) == (
        "adam",
        10,
        64,
        0,
    )
    assert asked.settings == [Setting(1e-3)] and asked.per_batch
    rates = [next(steps([Group(torch.arange(2), torch.zeros(2))], epoch, asked.recipe))[1] for epoch in range(1, 11)]
    assert rates == pytest.approx([1.0] * 5 + [0.1] * 5)  # a tenth from epoch E - 5 on, counted from 0
    assert asked.protocol.views == 10  # another view of every image in every epoch
    assert asked.protocol.roles == "paper"  # under which no image is held out
