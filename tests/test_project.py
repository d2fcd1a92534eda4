"""The project as a whole: dependencies agree, imports point down, every script answers at once, the README is true."""

import ast
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import readme
import yaml
from conftest import ROOT

SCRIPTS = sorted(path.name for path in ROOT.glob("exec_*.py"))

# the packages of lib, from the ground up: each imports from those before it only, and from itself
ORDER = (
    "core",
    "datasets",
    "models",
    "metrics",
    "plots",
    "representations",
    "ood",
    "runs",
    "attacks",
    "reinit",
    "training",
    "nearest_category",
    "probing",
    "stitching",
    "tables",
    "experiments",
)


def requirements(lines) -> dict[str, str]:
    """name -> requirement, comments left out."""
    return {re.split(r"[<>=!~]", line, maxsplit=1)[0]: line for line in lines if line and not line.startswith("#")}


def pip_requirements() -> dict[str, str]:
    return requirements((ROOT / "requirements.txt").read_text().splitlines())


def test_the_three_lists_of_dependencies_agree():
    pip = pip_requirements()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert pip == requirements(project["dependencies"] + project["optional-dependencies"]["test"])
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    listed = requirements(conda[-1]["pip"])
    others = requirements(line for line in conda[:-1] if line != "pip")
    assert others.pop("python") == f"python{project['requires-python']}"
    faiss = others.pop("faiss-gpu").removeprefix("faiss-gpu")
    assert not others and listed | {"faiss-cpu": f"faiss-cpu{faiss}"} == pip


def test_every_dependency_has_its_reason_in_the_readme():
    text = readme.documentation()
    for name in pip_requirements():
        assert f"| {name} |" in text, name


def test_the_site_leads_to_every_page_and_every_script_has_one():
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r"(\w[\w-]*\.md)$", nav, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    titles = [(ROOT / "docs" / page).read_text().splitlines()[0] for page in listed]
    assert all(any(f"`{script}`" in title for title in titles) for script in SCRIPTS)


def test_links_between_readme_and_pages_lead_somewhere():
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|src=\"([^\"]+)\"", path.read_text()):
            assert (path.parent / "".join(target)).exists(), f"{path.name}: {target}"


def referred(path: Path) -> set[str]:
    """The modules of lib that a file imports, at its top or inside a function, or names in a string such as "lib.x:y"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "lib":
            found.update(f"lib.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.update(re.findall(r"(?<![\w.])lib(?:\.\w+)+(?![\w.])", node.value))
    return {name for name in found if name.startswith("lib.") and name != "lib.py"}


def test_lib_has_its_packages_and_no_loose_module():
    assert [path.name for path in (ROOT / "lib").glob("*.py")] == ["__init__.py"]
    assert {path.parent.name for path in (ROOT / "lib").glob("*/__init__.py")} == set(ORDER)


def test_imports_point_down():
    wrong = []
    for path in sorted((ROOT / "lib").glob("*/**/*.py")):
        own = path.relative_to(ROOT / "lib").parts[0]
        wrong += [
            f"{path.relative_to(ROOT)}: {name}"
            for name in referred(path)
            if ORDER.index(name.split(".")[1]) > ORDER.index(own)
        ]
    assert not wrong


def test_no_experiment_knows_another():
    for path in (ROOT / "lib" / "experiments").glob("*.py"):
        if path.stem != "__init__":
            own = {"lib.experiments", f"lib.experiments.config.{path.stem}"}
            assert {name for name in referred(path) if name.startswith("lib.experiments")} <= own, path


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_there_in_under_a_second(name):
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, ROOT / name, "--help"], capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    assert done.returncode == 0 and f"python {name}" in done.stdout and "--help-all" in done.stdout
    assert (
        seconds < 1
        or "torch"
        not in subprocess.run(
            [sys.executable, "-X", "importtime", ROOT / name, "--help"], capture_output=True, text=True
        ).stderr
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_its_docstring_and_a_call(name):
    tree = ast.parse((ROOT / name).read_text())
    assert ast.get_docstring(tree) and len(tree.body) == 5


def test_the_readmes_flags_are_those_of_the_scripts():
    text = readme.FLAGS.read_text()
    assert readme.with_table(text) == text, "python tests/readme.py writes the table"


def test_one_spelling_has_one_meaning():
    meanings: dict[str, set[str]] = {}
    for configuration in readme.configurations().values():
        for flag in readme.cli.flags(configuration):
            for spelling in flag.spellings:
                if spelling.startswith("-"):
                    meanings.setdefault(spelling, set()).add(flag.spellings)
    assert not {spelling: found for spelling, found in meanings.items() if len(found) > 1}
