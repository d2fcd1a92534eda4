"""Python files run where the command line names them, and nowhere else: no sidecar, record or YAML file is enough."""

import json
import shutil

import pytest
from conftest import script
from test_rerun import in_this_process  # noqa: F401 (a fixture)

from lib.core import trusted_files
from lib.core.errors import UntrustedFile
from lib.models import checkpoints

SMALL = ("--max-examples", "20", "-gpu", "-1", "--quiet")
NETWORK = """
from pathlib import Path
Path("it-ran").touch()

def net(classes, channels, size):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a checkpoint whose sidecar names `dl/evil.py:net`, and the record of its training."""

    folder = tmp_path_factory.mktemp("made")
    (folder / "dl").mkdir()
    (folder / "dl" / "evil.py").write_text(NETWORK)
    words = ("dl/evil.py:net", "-d", "digits", "-dir", "a", "-e", "1", "--name", "made", *SMALL)
    done = script("exec_train.py", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "it-ran").unlink()
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "work")


@pytest.mark.parametrize(
    "words",
    [
        ("exec_eval.py", "models/a/model_1.pt"),
        ("exec_eval.py", "models/a/model_1.pt", "--plan"),
        ("exec_eval.py", "models/a/model_1.pt", "--list-layers"),
        ("exec_ood_layers.py", "models/a/model_1.pt", "-ood", "patches"),
        ("exec_probe.py", "models/a/model_1.pt", "-l", "1"),
        ("exec_similarity.py", "models/a/model_1.pt", "models/a/model_1.pt", "auto", "auto", "1"),
        ("exec_stitch.py", "models/a/model_1.pt", "models/a/model_1.pt", "auto", "auto", "1", "1", "-d", "digits"),
        ("exec_reinit.py", "models/a/model_1.pt", "--rand", "1"),
        ("exec_train.py", "mlp", "-d", "features=a/model_1.pt:1:digits", "-dir", "b", "-e", "1"),
        ("exec_ncg.py", "models/a/model_1.pt"),
    ],
    ids=lambda words: "-".join((words[0], *(word for word in words if word.startswith("--")))),
)
def test_a_python_file_that_only_a_sidecar_names_is_not_run(folder, words):
    done = script(*words, *SMALL, cwd=folder)
    assert done.returncode == 1 and not (folder / "it-ran").exists(), done.stderr
    completed = f"if you trust it: python {' '.join((*words, *SMALL))} --trust dl/evil.py"
    assert done.stderr.strip().endswith(completed) and len(done.stderr.splitlines()) == 1


def test_of_filters_neither(folder):
    done = script("exec_projections.py", "models/a", cwd=folder)
    assert done.returncode == 1 and done.stderr.strip().endswith("exec_projections.py models/a --trust dl/evil.py")


def test_a_python_file_runs_where_the_command_line_gives_it_as_type_or_trusts_it(folder):
    for further in (("dl/evil.py:net",), ("--trust", "dl/evil.py"), ("--trust", "dl/../dl/evil.py")):
        done = script("exec_eval.py", "models/a/model_1.pt", *further, *SMALL, "--overwrite", cwd=folder)
        assert done.returncode == 0 and (folder / "it-ran").exists(), done.stderr
        (folder / "it-ran").unlink()
    (folder / "other.py").write_text("")
    done = script("exec_eval.py", "models/a/model_1.pt", *SMALL, "--overwrite", "--trust", "other.py", cwd=folder)
    assert done.returncode == 1 and not (folder / "it-ran").exists()


def test_trust_is_for_files_that_are_there_and_not_for_yaml_files(folder):
    done = script("exec_eval.py", "models/a/model_1.pt", "--trust", "nowhere.py", cwd=folder)
    assert done.returncode == 2 and "--trust nowhere.py: nowhere.py is no Python file" in done.stderr
    (folder / "c.yaml").write_text("trust: dl/evil.py\n")
    done = script("exec_eval.py", "models/a/model_1.pt", "--config", "c.yaml", cwd=folder)
    assert done.returncode == 2 and "only the command line can" in done.stderr
    (folder / "c.yaml").write_text("model_type: dl/evil.py:net\n")
    done = script("exec_eval.py", "models/a/model_1.pt", "--config", "c.yaml", *SMALL, cwd=folder)
    assert done.returncode == 1 and "if you trust it: python" in done.stderr and not (folder / "it-ran").exists()


def test_what_one_command_trusts_the_next_one_in_the_process_does_not(folder, monkeypatch):
    monkeypatch.chdir(folder)
    trusted_files.trust_only(["dl/evil.py"])
    checkpoints.load("models/a/model_1.pt")
    trusted_files.trust_only([])
    with pytest.raises(UntrustedFile, match="a file says so"):
        checkpoints.load("models/a/model_1.pt")


def test_types_in_a_command_line_are_found_whatever_is_around_them():
    words = ["a.py:f", "--model-type=b/c.py:g", "probe:d.py:h@fc@gap", "e.py", "tv:resnet18", "f.py:not a name"]
    assert trusted_files.named(words) == ["a.py", "b/c.py", "d.py"]


def test_a_record_that_names_a_python_file_is_repeated_only_if_that_is_trusted(folder):
    record = "results/train/made.json"
    for words in (("--rerun", record), ("--rerun", record, "--check")):
        done = script("exec_tables.py", *words, cwd=folder)
        assert done.returncode == 1 and not (folder / "it-ran").exists()
        assert f"if you trust it: python exec_tables.py {' '.join(words)} --trust dl/evil.py" in done.stderr
    done = script("exec_tables.py", "--rerun", record, "--check", "--trust", "dl/evil.py", cwd=folder)
    assert done.returncode == 0 and (folder / "it-ran").exists(), done.stderr


@pytest.mark.parametrize(
    "command, sentence",
    [
        (["/tmp/exec_train.py", "lenet"], "is not the suite's script exec_train.py"),
        (["../exec_train.py", "lenet"], "is not the suite's script exec_train.py"),
        (["exec_evil.py"], "is not the suite's script exec_train.py"),
        (["exec_data.py", "convert-checkpoint", "a", "b"], "is not the suite's script exec_train.py"),
        (["exec_train.py", "--help"], "is refused"),
        (["exec_train.py", "lenet", "-dir", "b", "--nonsense"], "no such flag"),
        (["exec_train.py", "lenet", "-d", "digits", "-dir", "b", "--trust", "dl/evil.py"], "would run dl/evil.py"),
        ([], "is not the suite's script"),
    ],
)
def test_a_record_runs_nothing_but_the_suites_own_script_of_its_experiment(folder, command, sentence):
    path = folder / "results/train/made.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"command": command}))
    (folder / "exec_evil.py").write_text(NETWORK)
    done = script("exec_tables.py", "--rerun", path, cwd=folder)
    assert done.returncode == 1 and sentence in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (folder / "it-ran").exists()


def test_a_record_of_looking_at_data_converts_no_checkpoint(folder):
    done = script("exec_data.py", "show", "digits", "--name", "shown", cwd=folder)
    assert done.returncode == 0, done.stderr
    path = folder / "results/data/shown.json"
    command = ["exec_data.py", "convert-checkpoint", "models/a/model_1.pt", "new.pt"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"command": command}))
    done = script("exec_tables.py", "--rerun", path, cwd=folder)
    assert done.returncode == 1 and "makes no record; it is not run" in done.stderr and not (folder / "new.pt").exists()
