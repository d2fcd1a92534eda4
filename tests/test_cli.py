"""The command line: dataclass to flags, defaults from YAML, one sentence for every mistake."""

import subprocess
import sys
from dataclasses import dataclass

import pytest
from conftest import ROOT

from lib.core.errors import UsageError
from lib.runs import cli
from lib.runs.cli import RunConfig, at_least, flag


@dataclass(frozen=True, kw_only=True)
class Toy(RunConfig):
    """A toy."""

    path: str = flag(positional=True, help="a path")
    kind: str = flag("", positional=True, help="a kind")
    epochs: int = flag(3, "-e", check=at_least(1), help="epochs")
    rates: tuple[float, ...] = flag((0.5,), "-lr", help="rates")
    layers: tuple[str, ...] = flag((), commas=True, help="layers")
    pool: bool = flag(True, help="pool")
    loss: str = flag("ce", choices={"ce": "", "trades": ""}, help="loss")
    limit: int | None = flag(None, help="limit")


def parse(*words: str) -> Toy:
    return cli.parse(Toy, list(words))


def test_types_defaults_and_spellings_follow_from_the_fields():
    config = parse("a.pt", "-e", "7", "-lr", "1e-3", "2", "--no-pool", "--layers", "a,b", "c*", "--limit", "4")
    assert (config.path, config.kind, config.epochs, config.rates) == ("a.pt", "", 7, (1e-3, 2.0))
    assert (config.pool, config.layers, config.limit, config.loss) == (False, ("a", "b", "c*"), 4, "ce")
    assert parse("a.pt", "resnet").kind == "resnet"
    assert parse("a.pt").rates == (0.5,) and parse("a.pt").limit is None


def test_a_path_under_the_home_folder_is_found_wherever_a_shell_leaves_its_sign(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "c.yaml").write_text("results-dir: ~/here\n")
    config = parse("~/a.pt", "--layers", "csv=~/x/labels.csv", "a~/b", "--config", str(tmp_path / "c.yaml"))
    assert (config.path, config.layers) == ("/home/me/a.pt", ("csv=/home/me/x/labels.csv", "a~/b"))
    assert config.results_dir == "/home/me/here"


def test_a_repeated_flag_adds_names_and_replaces_numbers():
    config = parse("a", "--layers", "x", "-lr", "1", "2", "--layers", "y", "z", "-lr", "3")
    assert (config.layers, config.rates) == (("x", "y", "z"), (3.0,))


@pytest.mark.parametrize(
    "words, fragments",
    [
        ((), ("PATH is required",)),
        (("a", "--epoch", "3"), ("--epoch", "no such flag", "--epochs")),
        (("a", "-e", "x"), ("-e", "'x' is not a whole number")),
        (("a", "-e", "0"), ("-e 0", "below 1")),
        (("a", "-e", "1" + 30 * "0"), ("-e", "more than 64 bits hold")),
        (("a", "-lr", "nan"), ("-lr", "'nan' is not a number")),
        (("a", "--loss", "tradse"), ("--loss tradse", "did you mean trades?")),
        (("a", "b", "c"), ("c", "more arguments")),
        (("a", "-e"), ("-e", "expected one argument")),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_flag_and_the_value(words, fragments):
    with pytest.raises(UsageError) as caught:
        parse(*words)
    assert all(fragment in str(caught.value) for fragment in fragments), str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.status == 2


def test_yaml_sets_defaults_and_the_command_line_wins(tmp_path):
    file = tmp_path / "toy.yaml"
    file.write_text("epochs: 9\nlr: [0.1, 0.2]\npool: false\nlayers: a,b\npath: from-yaml\nlimit: 3\n")
    config = parse("--config", str(file), "-e", "5", "--limit", "7")
    assert (config.path, config.epochs, config.rates) == ("from-yaml", 5, (0.1, 0.2))
    assert (config.pool, config.layers, config.limit) == (False, ("a", "b"), 7)


@pytest.mark.parametrize(
    "content, fragment",
    [
        ("epoch: 3", "did you mean epochs"),
        ("epochs: many", "not a whole number"),
        ("pool: 3", "neither true nor false"),
        ("[1, 2]", "no 'flag: value' pairs"),
        ("a: [", "not a YAML file"),
        ("loss: {a: 1}", "not one value"),
        ("epochs:", "epochs has no value"),
        ("lr: [0.1, null]", "lr has no value"),
    ],
)
def test_a_mistake_in_yaml_is_one_sentence(tmp_path, content, fragment):
    file = tmp_path / "toy.yaml"
    file.write_text(content)
    with pytest.raises(UsageError, match=fragment):
        parse("a", "--config", str(file))


def test_a_warning_that_comes_when_all_is_done_is_no_failure():
    """What a scheduler's signal would do while the interpreter shuts down."""
    program = (
        "import atexit, os, signal; from lib.runs import script\n"
        "for number in script.WARNINGS: atexit.register(os.kill, os.getpid(), number)\n"  # runs after what comes later
        "script._announce_signals()"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_identity_leaves_out_where_and_how_a_run_is_made():
    same = cli.identity(parse("a")) == cli.identity(parse("a", "--results-dir", "elsewhere", "--quiet"))
    assert same and cli.identity(parse("a")) != cli.identity(parse("a", "-e", "4"))


def test_a_python_without_the_packages_is_told_where_they_are(tmp_path):
    command = [sys.executable, "-S", ROOT / "exec_train.py", "small_cnn", "-d", "digits", "-dir", "a"]  # -S: no packages
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "this Python has no " in done.stderr and "source .venv/bin/activate" in done.stderr
