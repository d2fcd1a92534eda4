"""The study of docs/own_data.md: a timm ViT on a table of one's own with groups, command by command."""

import re
import shlex

import pytest
from conftest import ROOT, script
from layouts import write_birds

from lib.experiments import EXPERIMENTS
from lib.runs import cli, records


def commands(heading: str) -> list[list[str]]:
    """The words of the commands in the first block below a heading of the page."""
    text = (ROOT / "docs" / "own_data.md").read_text().partition(f"\n## {heading}")[2]
    (block, *_) = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines()]


@pytest.mark.parametrize("heading", ["Folders and arrays", "A study"])
def test_every_command_of_the_page_is_one_that_the_suite_takes(heading):
    for name, *words in commands(heading):
        cli.parse(EXPERIMENTS[name.removeprefix("exec_").removesuffix(".py")].configuration, words)


@pytest.mark.slow
def test_the_study_runs_command_by_command(tmp_path):
    write_birds(tmp_path)
    rows = {}
    for name, *words in commands("A study"):
        words = ["1" if word == "20" else word.replace("model_20", "model_1") for word in words]
        done = script(name, *words, cwd=tmp_path)
        assert done.returncode == 0, (name, words, done.stderr)
        if name != "exec_tables.py":
            rows[name] = records.read(tmp_path / done.stdout.splitlines()[-1])["rows"]
    groups = {"below five on meadow", "below five on sea", "five or more on meadow", "five or more on sea"}
    subsets = {row["subset"] for row in rows["exec_eval.py"]}
    assert {f"group:{group}" for group in groups} < subsets and any(subset.startswith("worst group:") for subset in subsets)
    tested = {row["group"] for row in rows["exec_probe.py"]}
    assert any(group.startswith("worst: ") for group in tested if group)
    assert {row["layer"] for row in rows["exec_ood_layers.py"] if row["layer"]} >= {f"blocks.{n}" for n in range(12)}
