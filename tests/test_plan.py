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
    for fragment in ("record:     results/", "passes:     ", *fragments):
        assert fragment in done.stdout, done.stdout
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
