"""What a person reads who asks a script for help, or starts it without a word."""

import dataclasses
import re

import pytest
import readme
import terminal_windows
from conftest import ROOT, script

from lib.runs import cli, help_text

SCRIPTS = readme.configurations()


def ask(name: str, *words: str, width: int) -> str:
    done = script(name, *words, cwd=ROOT, COLUMNS=str(width))
    assert done.returncode == 0, done.stderr
    return done.stdout


def head(flag: help_text.Flag) -> str:
    """How the line of a flag begins."""
    return "  " + ", ".join(flag.spellings)


@pytest.mark.parametrize("width", (80, 120))
@pytest.mark.parametrize("name", SCRIPTS)
def test_help_fits_the_terminal_and_shows_the_common_flags_in_groups(name, width):
    text, flags = ask(name, "--help", width=width), cli.flags(SCRIPTS[name])
    assert max(map(len, text.splitlines())) <= width
    usage = text.split("\n\n")[0]
    assert usage.startswith(f"usage: {name} ") and len(usage.splitlines()) <= 2
    headings = [line for line in text.splitlines() if line.rstrip(":") in help_text.GROUPS.values()]
    assert headings == [f"{heading}:" for heading in help_text.GROUPS.values() if f"{heading}:" in headings]
    shown = [flag for flag in flags if re.search(rf"^{re.escape(head(flag))}( |$)", text, re.MULTILINE)]
    assert shown and [flag for flag in flags if flag.common] == shown
    assert f"--help-all shows {len(flags) - len(shown)} more flags" in text


@pytest.mark.parametrize("width", (80, 120))
@pytest.mark.parametrize("name", SCRIPTS)
def test_help_all_shows_every_flag_within_the_terminal(name, width):
    text = ask(name, "--help-all", width=width)
    assert max(map(len, text.splitlines())) <= width
    for flag in cli.flags(SCRIPTS[name]):
        assert re.search(rf"^{re.escape(head(flag))}( |$)", text, re.MULTILINE), flag


@pytest.mark.parametrize("name", SCRIPTS)
def test_about_ten_flags_are_common_and_data_network_and_output_are_among_them(name):
    configuration = SCRIPTS[name]
    common = configuration.common.split()
    flags = [flag for flag in cli.flags(configuration) if flag.common and not flag.positional]
    assert set(common) <= {field.name for field in dataclasses.fields(configuration)} and 3 <= len(flags) <= 13
    needed = {flag.spellings for flag in cli.flags(configuration) if flag.needed}
    assert needed <= {flag.spellings for flag in cli.flags(configuration) if flag.common}
    groups = {flag.group for flag in cli.flags(configuration) if flag.common}
    assert {"data", "output"} <= groups and ("network" in groups or name in ("exec_data.py", "exec_tables.py"))


def test_the_flags_of_a_training_fit_a_screen():
    text = ask("exec_train.py", "--help", width=80)
    assert len(text.partition("--help-all shows")[0].splitlines()) <= 32
    assert all(text.index(f"{mine}, ") < text.index("-lr, ") for mine in ("-d", "-dir"))


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "exec_tables.py"])
def test_a_script_without_a_word_says_how_it_is_used(tmp_path, name):
    done = script(name, cwd=tmp_path, COLUMNS="80")
    assert done.returncode == 2 and not done.stdout
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"usage: {name} ") and f"    python {name} " in done.stderr
    assert "--help-all" in done.stderr and lines[-1].startswith(f"{name}: error: ") and "required" in lines[-1]
    assert max(map(len, lines[:-1])) <= 80
    if name == "exec_train.py":
        assert "vit_tiny_patch4_32" in done.stderr and len(lines) < 40


def test_a_line_of_help_is_never_cut_inside_a_command():
    """A command that is continued on the next line is still the command of the script's docstring."""
    for name in ("exec_stitch.py", "exec_train.py"):
        text = ask(name, "--help", width=80).replace("\\\n", "")
        wide = ask(name, "--help", width=120).replace("\\\n", "")
        commands = [re.findall(rf"python {name}[^#\n]*", " ".join(words.split()) + "\n") for words in text.splitlines()]
        assert len([1 for found in commands if found]) >= 3
        for found in filter(None, commands):
            assert found[0].strip() in " ".join(wide.split())


# words that point at the flag before: a help text is read alone, in a group of others and in a completion
LEANING = re.compile(
    r"^(and|or|of|its|their|those|these|this|that|it|also|with|each|at most|so|the same|more)\b"
    r"|\b(so many|of it|that (term|choice|one)|their (term|draw)|as (before|above)|the former|the latter)\b"
    r"|^[^;:,]*\bof them\b"
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_help_text_stands_by_itself(name):
    for flag in cli.flags(SCRIPTS[name]):
        assert not LEANING.search(flag.meaning), (flag.spellings, flag.meaning)
        assert len(flag.meaning.split()) >= 2, flag


@pytest.mark.parametrize(
    "text",
    (
        "and standard deviation per channel",
        "at most so many of them",
        "factor of each of them",
        "weight of their term; 0 is plain training",
        "seed of that choice; default: --seed",
        "its type, needed for a file without a sidecar",
    ),
)
def test_texts_that_lean_on_their_neighbour_are_recognised(text):
    assert LEANING.search(text)


def test_every_flag_names_its_choices():
    for configuration in SCRIPTS.values():
        for field in dataclasses.fields(configuration):
            meaning = next(
                flag.meaning for flag in cli.flags(configuration) if flag.meaning.startswith(field.metadata["help"])
            )
            assert all(str(choice) in meaning for choice in field.metadata["choices"] or ()), field.name


def test_help_follows_the_width_of_the_terminal():
    lines = terminal_windows.left(terminal_windows.run("exec_probe.py", "--help", cwd=ROOT, width=60))
    assert len(lines) > 30 and 50 < max(map(len, lines)) <= 60


@pytest.mark.parametrize("words", [("exec_eval.py", "-d", "digits"), ("exec_study.py", "-ood", "patches")])
def test_a_checkpoint_behind_a_flag_that_takes_several_values_is_named_with_the_way_out(trained, words):
    done = script(*words, "models/a/model_2.pt", cwd=trained)
    assert done.returncode == 2
    assert (
        f"MODEL_PATH is required: a checkpoint, such as models/a/model_5.pt; {words[1]} took models/a/model_2.pt"
        in done.stderr
    )
