"""--plan says what a command would do, for every script, and does nothing; --config sets any script's defaults."""

import dataclasses

import pytest
import readme
from conftest import script

from lib.runs import cli

# script -> words, and what the plan must say beside the record and its settings
PLANS = {
    "exec_data.py": (("show", "digits"), ["passes:     one over the images"]),
    "exec_eval.py": (("models/a/model_2.pt",), ["lenet, 130,052 parameters", "digits: 355 images", "MiB of weights"]),
    "exec_ncg.py": (("models/a/model_2.pt", "-ood", "digits-c/fog-3"), ["distance of every image", "data:       digits"]),
    "exec_ood_layers.py": (
        ("models/a/model_2.pt", "-ood", "patches", "-l", "classifier.*"),
        ["layers:     7: classifier.0", "data:       patches: 750 images"],
    ),
    "exec_ood_detector.py": (
        (
            "models/a/model_2.pt",
            "auto",
            "features.0",
            "-m",
            "repr_cls_resnet20",
            "-d",
            "digits",
            "-ftoodd",
            "patches",
            "-dir",
            "planned",
        ),
        ["layers:     1: features.0", "100 epochs of a classifier"],
    ),
    "exec_probe.py": (
        ("models/a/model_2.pt", "-l", "features.0,flatten", "-lr", "1e-3", "1e-2", "-s", "0", "1"),
        ["layers:     2: features.0, flatten", "10 epochs of 4 probes per layer"],
    ),
    "exec_projections.py": (("models/a",), ["passes:     none over data"]),
    "exec_reinit.py": (("models/a/model_2.pt", "--rand", "3"), ["0 files and 3 draws", "layers:     6: features.0"]),
    "exec_similarity.py": (
        ("models/a/model_1.pt", "models/a/model_2.pt", "auto", "auto", "features.0", "flatten"),
        ["layers:     1: features.0", "layers:     1: flatten", "1000 images through each network"],
    ),
    "exec_stitch.py": (
        ("models/a/model_1.pt", "models/a/model_2.pt", "auto", "auto", "features.0", "features.3", "-d", "digits"),
        ["layers:     1: features.3", "30 epochs of the stitches"],
    ),
    "exec_study.py": (
        ("models/a/model_2.pt", "-ood", "patches", "--skip", "eval"),
        [
            "python exec_ood_layers.py models/a/model_2.pt -ood patches",
            "round 1:    5 runs share",
            "images through the network",
        ],
    ),
    "exec_train.py": (
        ("lenet", "-d", "digits", "-dir", "planned"),
        ["writes:     models/planned/model_100.pt", "100 epochs", "130,052 param", "digits:train: 1,442"],
    ),
}


def test_every_script_with_records_is_among_them():
    assert set(PLANS) == set(readme.configurations()) - {"exec_tables.py", "exec_stitch_ood.py"}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_names_passes_layers_memory_and_outputs_and_does_nothing(trained, name):
    words, fragments = PLANS[name]
    before = sorted(trained.rglob("*"))
    done = script(name, *words, "--plan", cwd=trained)
    assert done.returncode == 0, done.stderr
    for fragment in ("passes:     ", *fragments):
        assert fragment in done.stdout, done.stdout
    assert ("record:     results/" in done.stdout) == (name != "exec_study.py")  # which writes none of its own
    kept = [path for path in sorted(trained.rglob("*")) if ".cache" not in path.parts]
    assert kept == [path for path in before if ".cache" not in path.parts]


@pytest.mark.parametrize("name", sorted(readme.configurations()))
def test_a_file_sets_the_defaults_of_every_flag_of_a_script_and_the_command_line_wins(tmp_path, name):
    """Every flag is written into the file with its default, one with another value."""
    configuration = readme.configurations()[name]
    fields = [
        field
        for field in dataclasses.fields(configuration)
        if field.default is not dataclasses.MISSING
        and not field.metadata["positional"]
        and field.name not in ("config", "plan", "trust")
    ]
    lines = {cli.spellings(field)[-1].lstrip("-"): _yaml(field.default) for field in fields}
    lines |= {"name": "from-file", "quiet": "true"}
    file = tmp_path / "flags.yaml"
    file.write_text("".join(f'"{key}": {value}\n' for key, value in lines.items()))
    words = [*needed(name), "--config", str(file)]
    plain, found = cli.parse(configuration, needed(name)), cli.parse(configuration, words)
    assert found.name == "from-file" and found.quiet and not plain.quiet
    assert cli.identity(found) == cli.identity(plain)
    assert cli.parse(configuration, [*words, "--name", "given", "--no-quiet"]).name == "given"


def needed(name: str) -> list[str]:
    return list(PLANS[name][0]) if name in PLANS else []


def _yaml(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_what_differs_from_the_defaults_comes_first(trained):
    done = script("exec_train.py", "lenet", "-d", "digits", "-dir", "p", "-lr", "0.01", "-e", "7", "--plan", cwd=trained)
    lines = done.stdout.splitlines()
    settings = lines[2 : next(number for number, line in enumerate(lines) if line.startswith("writes:"))]
    assert [line[12:] for line in settings] == [
        "learning_rate = 0.01 (default: 0.001)",
        "model_type = lenet",
        "dataset = digits (default: cifar10)",
        "directory = p",
        "epochs = 7 (default: 100)",
    ]
    assert "weight_decay=1e-05" in lines[-1] and "learning_rate" not in lines[-1]


@pytest.mark.parametrize(
    "words, fragments",
    (
        (
            ("exec_train.py", "lenet", "-d", "cifar10", "-dir", "p", "-e", "3"),
            ("cifar10:train: 50,000 images", "cifar10:test: 10,000 images", "prepare cifar10"),
        ),
        (
            ("exec_train.py", "lenet", "-d", "cifar10-k2", "-dir", "p", "--split", "0.1", "-s", "3"),
            ("cifar10-k2:train", "not there"),
        ),
        (("exec_eval.py", "models/a/model_2.pt", "-d", "mnist"), ("mnist: 10,000 images", "prepare mnist")),
        (("exec_ood_layers.py", "models/a/model_2.pt", "-ood", "svhn"), ("svhn: 26,032 images", "time:       about ")),
    ),
)
def test_a_plan_needs_no_images_of_a_set_whose_name_says_their_number(trained, words, fragments):
    done = script(*words, "--plan", cwd=trained)
    assert done.returncode == 0, done.stderr
    assert all(fragment in done.stdout for fragment in fragments), done.stdout
    refused = script(*words, cwd=trained)
    assert refused.returncode == 1 and "prepare" in refused.stderr


def test_a_plan_of_a_set_that_nothing_is_known_of_says_that_it_is_not_there(trained):
    assert script("exec_eval.py", "models/a/model_2.pt", "-d", "nothing", "--plan", cwd=trained).returncode == 2
    done = script("exec_eval.py", "models/a/model_2.pt", "-d", "imagenet16", "--plan", cwd=trained)
    assert done.returncode == 1 and "imagenet16" in done.stderr


def test_the_features_of_every_layer_and_their_place_on_disk_are_counted(trained):
    words = ("exec_probe.py", "models/a/model_2.pt", "-l", "features.0,flatten", "--plan")
    whole = script(*words, cwd=trained).stdout
    assert "features.0 24.0 KiB, flatten 2.2 KiB" in whole
    values = 6 * 32 * 32 + 576
    assert f"at most {(1442 + 355) * values * 2 / 2**20:.1f} MiB" in whole
    pooled = script(*words, "--reduce", "gap", "--cache-type", "fp32", cwd=trained).stdout
    assert "features.0 24 bytes, flatten 2.2 KiB" in pooled
    assert f"at most {(1442 + 355) * (6 + 576) * 4 / 2**20:.1f} MiB" in pooled


def test_the_time_is_that_of_a_timed_batch_times_the_images(trained, monkeypatch):
    """With a batch that takes a known time: a millisecond an image forward, four with the backward pass."""
    from lib.runs import plan

    monkeypatch.setattr(plan, "seconds_per_image", lambda *given, training=False: 4e-3 if training else 1e-3)
    whole = script("exec_train.py", "lenet", "-d", "digits", "-dir", "p", "-e", "10", "--plan", cwd=trained).stdout
    assert "about 1 min 1 s in all, 6.1 s an epoch, from a timed batch on the CPU" in whole  # 1442 * 4 + 355 ms
    attacked = script(
        "exec_train.py",
        "lenet",
        "-d",
        "digits",
        "-dir",
        "p",
        "-e",
        "10",
        "--loss",
        "at",
        "--eps",
        "0.1",
        "--plan",
        cwd=trained,
    ).stdout
    assert "in all, 1 min 4 s an epoch" in attacked  # eleven passes for one
    known = script("exec_eval.py", "models/a/model_2.pt", "-d", "digits", "mnist", "--plan", cwd=trained).stdout
    assert "about 10 s of passes" in known
    attack = ("--attack", "pgd", "--eps", "0.1")
    assert (
        "besides, the attack, pgd: unknown"
        in script("exec_eval.py", "models/a/model_2.pt", *attack, "--plan", cwd=trained).stdout
    )


def test_a_timed_batch_leaves_the_network_as_it_was():
    import torch
    from torch import nn

    from lib.models.checkpoints import Description
    from lib.runs import plan
    from lib.runs.cli import DeviceConfig

    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(3)).eval()
    network(torch.zeros(1, 1, 8, 8))
    before, state = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    described = Description(architecture="x", classes=tuple("abc"), channels=1, image_size=8)
    for training in (False, True):
        assert 0 < plan.seconds_per_image(DeviceConfig(gpu=-1), network, described, 16, training) < 1
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) and not network.training
    assert all(parameter.grad is None for parameter in network.parameters())
