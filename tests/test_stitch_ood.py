"""Stitched representations under the detectors of the layers they come to; grids of records, and what is missing in them."""

import contextlib
import json
import shlex
import shutil

import drawn
import numpy as np
import pytest
import torch
from conftest import ROOT, script

from lib import datasets
from lib.core.errors import UserError
from lib.experiments import EXPERIMENTS
from lib.experiments.config.ood_detector import OodDetectorConfig
from lib.experiments.config.stitch import StitchConfig
from lib.experiments.config.stitch_ood import StitchOodConfig
from lib.experiments.config.tables import TablesConfig
from lib.experiments.ood_detector import ood_detector
from lib.experiments.stitch_ood import OF_STITCH, stitch_ood
from lib.experiments.tables import text
from lib.metrics import ood_detection
from lib.models import checkpoints
from lib.runs import cli
from lib.runs import script as script_
from lib.stitching import detector_files

LAYERS = ("pool1", "pool2")  # 16 x 8 x 8 and 32 x 4 x 4
COMMON = ("-gpu", "-1", "--quiet")


@pytest.fixture(scope="module")
def folder(pair, tmp_path_factory):
    """A working directory with small networks models/a and models/b, and untrained detectors of two layers of models/b."""
    place = tmp_path_factory.mktemp("stitch_ood")
    shutil.copytree(pair, place, dirs_exist_ok=True)
    with contextlib.chdir(place):
        for layer in LAYERS:
            publish(layer)
        stitched("grid", *LAYERS)
    return place


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    """A copy of that directory to change."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def publish(layer, network="b", seed=0):
    """A detector with fresh weights: what is computed with it does not depend on how good it is."""
    config = cli.parse(
        OodDetectorConfig,
        [
            f"models/{network}/model_1.pt",
            "auto",
            layer,
            "-m",
            "repr_cls_resnet20",
            "-d",
            "digits",
            "-ftoodd",
            "patches",
            "-s",
            str(seed),
            "-dir",
            f"detector-{layer}",
        ],
    )
    described = checkpoints.Description(
        architecture="repr_cls_resnet20",
        classes=tuple("0123456789"),
        image_size=16,
        channels={"pool1": 16, "pool2": 32}[layer],
    )
    return detector_files.publish(config, layer, checkpoints.fresh(described, seed, layer), described)


def stitched(name, fronts, ends, *words, front="a", end="b"):
    """Runs exec_stitch.py; the path of its record."""
    words = [
        f"models/{front}/model_1.pt",
        f"models/{end}/model_1.pt",
        "auto",
        "auto",
        fronts,
        ends,
        "auto",
        "-d",
        "digits",
        *(words or ("-i", "pinv", "-e", "0")),
        "--name",
        name,
        *COMMON,
    ]
    return script_.run(EXPERIMENTS, "stitch", cli.parse(StitchConfig, words), ["exec_stitch.py", *words])


def run(*words):
    return stitch_ood(cli.parse(StitchOodConfig, [*map(str, words), "--fit-examples", "100", *COMMON]))


def by_place(rows):
    return {(row["front_layer"], row["end_layer"]): row for row in rows if row["kind"] == "stitched"}


def test_an_identity_stitch_of_a_network_to_itself_is_as_in_distribution_as_itself(here):
    path = stitched("same", LAYERS[0], LAYERS[0], "-i", "eye", "-e", "0", front="b")
    result = run(path)
    (row,) = result.rows
    assert row["auroc"] == pytest.approx(0.5, abs=1e-4) and row["auroc_two_sided"] == pytest.approx(0.5, abs=1e-4)
    assert np.abs(result.arrays[row["energies"]] - result.arrays[row["id_energies"]]).max() <= 1e-4
    known = json.loads(path.read_text())["rows"][0]
    assert row["accuracy"] == known["accuracy"] == known["end_accuracy"] and row["energy"] == pytest.approx(row["energy_id"])
    assert row["fpr95_nearest_recall"] == pytest.approx(0.95, abs=0.01) and row["n"] == row["n_id"] == 355


def test_measures_are_those_of_hooks_and_of_the_stitch_in_the_record(here):
    """A slow second computation of one cell of a rank-limited grid, and of a sanity set."""
    path = stitched("ranks", ",".join(LAYERS), LAYERS[1], "-i", "pinv", "-e", "0", "--front-stitch-rank", "16", "2")
    result = run(path, "-scd", "patches")
    rows = [row for row in result.rows if row["kind"] == "stitched"]
    assert [(row["front_layer"], row["stitch_rank"]) for row in rows] == [
        (layer, rank) for layer in LAYERS for rank in (16, 2)
    ]
    row = rows[1]
    record, arrays = json.loads(path.read_text()), np.load(path.with_suffix(".npz"))
    (made,) = (other for other in record["rows"] if (other["front_layer"], other["stitch_rank"]) == (LAYERS[0], 2))
    assert [row[name] for name in OF_STITCH] == [made[name] for name in OF_STITCH] and row["samples"] and row["solver"]
    number = made["stitch"]
    weight, bias, mean, basis = (
        torch.from_numpy(arrays[f"{number}.{name}"]) for name in ("weight", "bias", "limit.mean", "limit.basis")
    )
    assert basis.shape == (16, 2)
    front, end = (checkpoints.load(f"models/{name}/model_1.pt").network for name in "ab")
    detector = checkpoints.load(row["detector"]).network.body
    images, labels, _ = next(datasets.load("digits", "data", "test").batches(355, size=16))
    seen = {}

    def note(module, arguments, output):
        seen["layer"] = output

    def replace(module, arguments, output):
        source = seen["layer"].movedim(1, -1)
        limited = ((source - mean) @ basis @ basis.T + mean).movedim(-1, 1)
        resized = torch.nn.functional.interpolate(limited, (4, 4), mode="bilinear")
        seen["own"], seen["stitched"] = output, torch.einsum("bchw,dc->bdhw", resized, weight) + bias[:, None, None]
        return seen["stitched"]

    front.body.pool1.register_forward_hook(note)
    end.body.pool2.register_forward_hook(replace)
    with torch.no_grad():
        front(images)
        predicted = end(images).argmax(1)
        inside, outside = (-detector(seen[name]).logsumexp(1).numpy() for name in ("own", "stitched"))
    assert row["accuracy"] == pytest.approx((predicted == labels).double().mean().item())
    assert np.allclose(result.arrays[row["energies"]], outside, atol=1e-4)
    assert np.allclose(result.arrays[row["id_energies"]], inside, atol=1e-4)
    slow = (outside[:, None] > inside).mean() + (outside[:, None] == inside).mean() / 2
    assert row["auroc"] == pytest.approx(slow, abs=2e-3) and row["energy"] == pytest.approx(outside.mean(), abs=1e-4)
    (sanity,) = (row for row in result.rows if row["kind"] == "sanity")
    assert sanity["data"] == "patches" and sanity["front_layer"] is None and sanity["accuracy"] is None
    assert len(result.arrays["patches.pool2"]) == sanity["n"] and sanity["energies"] == "patches.pool2"
    assert set(drawn.of("stitch_ood", StitchOodConfig(), result)) == {
        f"ranks-{rank}-full{end}" for rank in (16, 2) for end in ("", "-energies")
    }


def test_energies_far_below_the_networks_own_are_found_by_the_two_sided_auroc():
    """What the one-sided measures call more in distribution than the distribution."""
    from lib.experiments.stitch_ood import _Scored, _scores

    own, fitted = (np.random.default_rng(seed).normal(-20, 1, 500) for seed in range(2))
    scored = _Scored({"x": own}, {"x": fitted}, {}, None, {})
    found = _scores(scored, "x", own - 10)
    assert found["auroc"] == 0 and found["auroc_two_sided"] == 1 and found["fpr95"] == 1
    assert found["energy"] == pytest.approx(found["energy_id"] - 10)


def test_what_is_missing_stays_empty_and_its_command_fills_it(here):
    paths = [stitched(f"one-{layer}", layer, layer) for layer in LAYERS]
    for path in (here / "results" / "stitch").glob("grid*"):
        path.unlink()
    done = script("exec_stitch_ood.py", "results/stitch", "-gpu", -1, cwd=here)
    assert done.returncode == 0, done.stderr
    rows = json.loads((here / done.stdout.strip().splitlines()[-1]).read_text())["rows"]
    assert {place for place, row in by_place(rows).items() if row["missing"]} == {LAYERS, LAYERS[::-1]}
    for row in rows:
        empty = row["missing"] == "stitch"
        assert (row["accuracy"] is None) == (row["auroc"] is None) == (row["fill"] is not None) == empty
    commands = [line.removeprefix("missing: ") for line in done.stderr.splitlines() if line.startswith("missing: ")]
    assert commands == [row["fill"] for row in rows if row["fill"]] and len(commands) == 2
    for command in commands:
        assert "--name" not in command and command.startswith("python exec_stitch.py models/a/model_1.pt")
        words = shlex.split(command)[1:]
        script_.run(EXPERIMENTS, "stitch", cli.parse(StitchConfig, [*words[1:], "--quiet"]), words)
    whole = by_place(run("results/stitch").rows)
    assert len(whole) == 4 and not any(row["missing"] for row in whole.values())
    for path in paths:
        known = json.loads(path.read_text())["rows"][0]
        assert whole[known["front_layer"], known["end_layer"]]["accuracy"] == known["accuracy"]


def test_a_layer_without_a_detector_stays_empty_and_its_command_makes_one(here):
    for file in (here / "models" / "repr_cls_ood_detectors").glob("pool2-*"):
        file.unlink()
    path = stitched("both", LAYERS[0], ",".join(LAYERS))
    rows = run(path).rows
    for row in rows:
        without = row["end_layer"] == "pool2"
        assert (row["missing"] == "detector") == without == (row["auroc"] is None) and row["accuracy"] is not None
    (fill,) = {row["fill"] for row in rows if row["fill"]}
    words = shlex.split(fill)
    assert words[:5] == ["python", "exec_ood_detector.py", "models/b/model_1.pt", "auto", "pool2"]
    assert words[words.index("-dir") + 1] == "detector-pool1-pool2"
    there = cli.parse(OodDetectorConfig, words[2:])
    assert detector_files.path_of(there, "pool2") == detector_files.path_of(
        cli.parse(
            OodDetectorConfig,
            [
                "models/b/model_1.pt",
                "auto",
                "pool2",
                "-m",
                "repr_cls_resnet20",
                "-d",
                "digits",
                "-ftoodd",
                "patches",
                "-dir",
                "x",
            ],
        ),
        "pool2",
    )
    publish("pool2")
    assert not any(row["missing"] for row in run(path).rows)


def test_another_network_without_detectors_gets_the_command_too(here):
    stitched("back", *LAYERS, front="b", end="a")
    rows = run("results/stitch/grid.json", "results/stitch/back.json").rows
    assert [(row["end"], row["missing"]) for row in rows] == [
        ("models/b/model_1.pt", None),
        ("models/a/model_1.pt", "detector"),
    ]
    words = shlex.split(rows[1]["fill"])
    assert words[2:5] == ["models/a/model_1.pt", "auto", "pool2"]
    assert words[words.index("-dir") + 1] == "detector-pool2-a-pool2"


def test_stitches_that_were_not_kept_are_missing(here):
    path = stitched("unkept", LAYERS[0], LAYERS[0], "-i", "pinv", "-e", "0", "--no-save")
    (row,) = run(path).rows
    assert row["missing"] == "stitch" and "--no-save" not in row["fill"] and row["accuracy"] is None


def test_methods_are_grids_of_their_own_and_a_finished_command_knows_new_records(here, capsys):
    stitched("random", *LAYERS, "-i", "rand", "-e", "1", "-b", "64", "--max-examples", "120")
    words = ["results/stitch", "-idd", "digits:train", "--fit-examples", "100", "--max-examples", "300", "-gpu", "-1"]
    config = cli.parse(StitchOodConfig, words)
    path = script_.run(EXPERIMENTS, "stitch_ood", config, ["exec_stitch_ood.py", *words])
    record = json.loads(path.read_text())
    assert [row["method"] for row in record["rows"]] == ["pinv, 0 epochs", "rand, 1 epoch"]
    assert {row["id_split"] for row in record["rows"]} == {"train"} and record["rows"][0]["n_id"] == 300
    assert {"results/stitch/grid.json", "models/b/model_1.pt"} <= set(record["inputs"])
    assert {file.name.removeprefix(path.stem) for file in path.parent.glob(f"{path.stem}*.png")} == {
        "-0-energies.png",
        "-1-energies.png",
    }
    script_.run(EXPERIMENTS, "stitch_ood", config, [])
    assert "already there" in capsys.readouterr().err
    stitched("third", LAYERS[1], LAYERS[1])
    script_.run(EXPERIMENTS, "stitch_ood", config, [])
    assert "no longer holds: results/stitch/third.json" in capsys.readouterr().err
    assert "pinv, 0 epochs" in text(cli.parse(TablesConfig, ["stitch_ood"]))


def broken(here, how):
    """Does some harm; what is then asked for."""
    grid, detectors = here / "results" / "stitch" / "grid.json", here / "models" / "repr_cls_ood_detectors"
    found = {path.name.rpartition("-")[0]: path for path in detectors.glob("*.pt")}
    if how == "changed":
        checkpoint = here / "models" / "b" / "model_1.pt"
        state = torch.load(checkpoint, weights_only=True)
        torch.save({key: value + 1 for key, value in state.items()}, checkpoint)
    elif how == "gone":
        (here / "models" / "a" / "model_1.pt").unlink()
    elif how == "half-written":
        (grid.parent / "killed.npz").write_bytes(b"half")
    elif how == "truncated record":
        grid.write_text(grid.read_text()[:500])
    elif how == "truncated weights":
        arrays = grid.with_suffix(".npz")
        arrays.write_bytes(arrays.read_bytes()[:700])
    elif how == "lost weights":
        grid.with_suffix(".npz").unlink()
    elif how == "another experiment":
        other = grid.with_name("other.json")
        other.write_text(grid.read_text().replace('"experiment": "stitch"', '"experiment": "similarity"'))
    elif how == "empty folder":
        (here / "empty").mkdir()
        return ("empty",)
    elif how == "another layer":
        stitched("first", LAYERS[0], LAYERS[0])
        return ("results/stitch/first.json", "-detectors", found["pool2"])
    elif how == "another network":
        return ("results/stitch", "-detectors", publish("pool1", network="a"))
    elif how == "no detector":
        shutil.rmtree(detectors)
        detectors.mkdir()
    elif how == "several detectors":
        publish("pool2", seed=1)
    elif how == "no folder":
        return ("results/stitch", "-detectors", "nowhere")
    elif how == "no detector file":
        return ("results/stitch", "-detectors", "models/a/model_1.pt")
    elif how == "broken detector":
        found["pool2"].write_bytes(found["pool2"].read_bytes()[:-100])
    elif how == "other data":
        return ("results/stitch", "-d", "digits-bg")
    return ("results/stitch",)


@pytest.mark.parametrize(
    "how, fragments",
    [
        ("changed", ("grid.json: models/b/model_1.pt has changed since", "--rerun")),
        ("gone", ("models/a/model_1.pt is gone",)),
        ("half-written", ("killed.npz has no record", "not finished")),
        ("truncated record", ("grid.json: not a whole record",)),
        ("truncated weights", ("grid.npz: not the whole weights", "--rerun")),
        ("lost weights", ("grid.npz are gone", "--rerun")),
        ("another experiment", ("other.json", "an experiment similarity, not of exec_stitch.py")),
        ("empty folder", ("empty: a folder without records",)),
        ("another layer", ("the detector of another layer, pool2", "pool1")),
        ("another network", ("the detector of another network, models/a/model_1.pt",)),
        (
            "no detector",
            ("no detector of pool2 of models/b/model_1.pt", "exec_ood_detector.py models/b/model_1.pt auto"),
        ),
        ("several detectors", ("of layer pool2 of models/b/model_1.pt there are 2", "name those")),
        ("no folder", ("-detectors nowhere", "no such folder")),
        ("no detector file", ("-detectors models/a/model_1.pt: no detector",)),
        ("broken detector", ("models/repr_cls_ood_detectors/pool2-", "not a whole checkpoint")),
        ("other data", ("it has 2 classes, the network 10",)),
    ],
)
def test_what_cannot_be_trusted_is_refused_in_one_sentence(here, how, fragments):
    words = broken(here, how)
    with pytest.raises(UserError) as refused:
        run(*words)
    message = str(refused.value)
    assert all(fragment in message for fragment in fragments) and "\n" not in message, message


def test_the_counterparts_of_the_published_detector_calls_run(here):
    lines = [
        line.split(" | ")[1].split("`")[1].split()
        for line in (ROOT / "docs/published_calls.md").read_text().splitlines()
        if line.startswith(("| `exec_train_representation_classifier.py", "| `exec_eval_stitcher_ood.py"))
    ]
    assert [words[0] for words in lines] == ["exec_ood_detector.py", "exec_stitch_ood.py"]
    meanings = {
        "models/stitching/b/model_100.pt": "models/a/model_1.pt",
        "resnet18": "small_cnn",
        "layer1.0": "pool2",
        "cifar10": "digits",
        **dict.fromkeys(("outlier_exposure", "svhn"), "patches"),
        "stitching/detector": "x",
        "repr_cls_resnet18": "repr_cls_resnet20",
        "100": "1",
        "10": "1",
        "512": "16",
    }
    detector, ood = ([meanings.get(word, word) for word in words[1:]] for words in lines)
    rows = ood_detector(cli.parse(OodDetectorConfig, [*detector, "--max-examples", "48", *COMMON])).rows
    assert len(rows) == 2 and rows[-1]["detector"]
    assert {row["kind"] for row in run(*ood).rows} == {"stitched", "sanity"}


def test_without_a_record_the_command_line_is_refused(tmp_path):
    done = script("exec_stitch_ood.py", cwd=tmp_path)
    assert done.returncode == 2 and "STITCH_RUN is required" in done.stderr.strip().splitlines()[-1]  # behind the usage
    done = script("exec_stitch_ood.py", "results/stitch", cwd=tmp_path)
    assert done.returncode == 1 and "results/stitch" in done.stderr and len(done.stderr.strip().splitlines()) == 1


# measures that the scripts above rest on


@pytest.mark.parametrize(
    "inside, outside, expected",
    [
        (range(100), range(100, 200), 0.0),
        (range(100), range(100), 0.95),
        (range(100, 200), range(100), 1.0),
        (range(100), np.arange(100) - 0.5, 0.96),
    ],
)
def test_the_published_false_positive_rate_has_its_known_values(inside, outside, expected):
    assert ood_detection.fpr_at_nearest_recall(np.array(inside), np.array(outside)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_published_false_positive_rate_is_that_of_a_walk_over_thresholds(seed):
    generator = np.random.default_rng(seed)
    inside, outside = generator.integers(0, 30, 23).astype(float), generator.integers(5, 40, 31).astype(float)
    best = None
    for threshold in sorted({*inside, *outside}):  # rising: more and more is kept
        recall, rate = (inside <= threshold).mean(), (outside <= threshold).mean()
        if best is None or abs(recall - 0.95) <= best[0]:
            best = abs(recall - 0.95), rate
        if recall == 1:
            break
    assert ood_detection.fpr_at_nearest_recall(inside, outside) == best[1]
