"""Installed, the suite is what it is in a checkout: its commands run anywhere, on what lies where they are called."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
import readme
from conftest import ROOT

from lib import models
from lib.core import trusted_files
from lib.core.errors import UserError
from lib.experiments import EXPERIMENTS


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The commands of the suite's wheel, installed in an environment of its own over the packages of this one."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"  # building writes beside what is built
    for name in ("lib", "jobs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("exec_*.py"), ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "LICENSE"):
        shutil.copy(path, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    done = subprocess.run(wheel, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib"))
    (built,) = folder.glob("*.whl")
    install = [*pip, f"--python={folder / 'venv/bin/python'}", "install", "--quiet", "--no-deps", "--no-index", built]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "venv" / "bin"


def run(installed: Path, *words, cwd: Path) -> subprocess.CompletedProcess:
    """A command of the installation, in a folder that knows nothing of the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    words = [str(installed / words[0]), *map(str, words[1:])]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)


def test_every_script_is_a_command():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    scripts = {path.stem for path in ROOT.glob("exec_*.py")}
    assert project["project"]["scripts"] == {name: f"{name}:main" for name in scripts}
    assert set(project["tool"]["setuptools"]["py-modules"]) == scripts == {f"exec_{name}" for name in EXPERIMENTS}


def test_an_installed_command_writes_where_it_is_called_and_its_record_can_be_run_again(installed, tmp_path):
    done = run(installed, "exec_data", "show", "digits", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / done.stdout.split()[-1]
    record = json.loads(path.read_text())
    assert record["command"] == ["exec_data.py", "show", "digits"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (record["environment"]["commit"], record["environment"]["version"]) == (None, version)
    again = run(installed, "exec_tables", "--rerun", path.relative_to(tmp_path), "--check", cwd=tmp_path)
    assert again.returncode == 0 and "all" in again.stdout and "agree" in again.stdout, again.stderr


def test_help_and_errors_name_the_script_as_in_a_checkout(installed, tmp_path):
    done = run(installed, "exec_train", "--help", cwd=tmp_path)
    assert done.returncode == 0 and "usage: exec_train.py" in done.stdout and "Train an image classifier" in done.stdout
    done = run(installed, "exec_eval", "nowhere.pt", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("exec_eval.py: error: nowhere.pt"), done.stderr


def test_what_the_readme_imports_can_be_imported(installed, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", readme.documentation(), re.DOTALL)
    imports = [line for block in blocks for line in block.splitlines() if line.startswith(("import torch", "from lib"))]
    assert len(imports) > 5
    done = run(installed, "python", "-c", "\n".join([*imports, "import lib; print(lib.__file__)"]), cwd=tmp_path)
    assert done.returncode == 0 and str(installed.parent) in done.stdout, done.stderr


def test_the_papers_numbers_and_jobs_are_installed(installed, tmp_path):
    done = run(installed, "exec_tables", "ncg/pixel", cwd=tmp_path)
    assert done.returncode == 0 and "0.578" in done.stdout, done.stderr
    done = run(installed, "python", "-c", "import jobs; print(*jobs.__path__)", cwd=tmp_path)
    there = {path.name for path in Path(done.stdout.strip()).iterdir()}
    assert {path.name for path in (ROOT / "jobs").iterdir() if path.suffix in (".sh", ".sbatch")} <= there
    # a job of the installation works where it is called
    job = f"cd '{tmp_path}' && source '{done.stdout.strip()}/common.sh' && pwd"
    done = subprocess.run(["bash", "-c", job], capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path), done.stderr


def test_the_report_of_an_installation_has_its_style_and_its_script(installed, tmp_path):
    done = run(installed, "exec_tables", "--report", "all.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "all.html").read_text()
    for name in ("report.css", "report.js"):
        assert (ROOT / "lib" / "tables" / "html_report" / name).read_text() in page


def test_a_lib_of_the_users_own_does_not_hide_the_suites(installed, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("raise ImportError('not this one')")
    done = run(installed, "exec_data", "list", cwd=tmp_path)
    assert done.returncode == 0 and "digits" in done.stdout, done.stderr


def test_a_network_file_that_imports_a_lib_of_its_own_is_told_of_the_clash(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "blocks.py").write_text("def block(): ...")
    (tmp_path / "net.py").write_text("from lib.blocks import block\n\ndef net(classes, channels, image_size): ...")
    trusted_files.trust(tmp_path / "net.py")
    with pytest.raises(UserError, match=f"{tmp_path}/lib is hidden by the suite's own package lib: give it another name"):
        models.build(f"{tmp_path}/net.py:net", 10, 1, 32)
