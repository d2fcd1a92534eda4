"""A clean environment made from requirements.txt runs the suite, on every Python it is for: `make test-hardening`."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

VERSIONS = ("3.11", "3.12", "3.13")

IMPORT_ALL = """
import importlib, pathlib, sys
sys.path.insert(0, ".")
for path in sorted(pathlib.Path("lib").rglob("*.py")):
    importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
print(len([name for name in sys.modules if name.startswith("lib.")]))
"""


def import_all(python: Path | str) -> None:
    """Every module of the suite can be imported, in a process of their own."""
    done = subprocess.run([python, "-W", "error::SyntaxWarning", "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= len([path for path in ROOT.glob("lib/**/*.py") if path.name != "__init__.py"])


def check(python: Path | str) -> None:
    """Every module of the suite can be imported, and every script answers --help in under a second."""
    import_all(python)
    for script in sorted(ROOT.glob("exec_*.py")):
        seconds = []
        for _ in range(3):  # the best of three: other work on the machine is not the script's
            begin = time.perf_counter()
            done = subprocess.run([python, script, "--help"], capture_output=True, text=True)
            seconds.append(time.perf_counter() - begin)
            assert done.returncode == 0 and script.name in done.stdout, done.stderr
            if seconds[-1] < 1:
                break
        assert min(seconds) < 1, (script.name, seconds)


def test_this_environment_imports_everything():
    import_all(sys.executable)  # test_project.py asks every script for --help


@pytest.mark.hardening
@pytest.mark.parametrize("version", VERSIONS)
def test_a_clean_environment_imports_everything(version, tmp_path):
    base = shutil.which(f"python{version}")
    if base is None or subprocess.run([base, "--version"], capture_output=True).returncode:
        pytest.skip(f"there is no python{version}")
    environment = tmp_path / "venv"
    try:
        subprocess.run([base, "-m", "venv", environment], check=True)
        subprocess.run([environment / "bin" / "pip", "install", "--quiet", "-r", ROOT / "requirements.txt"], check=True)
        check(environment / "bin" / "python")
    finally:
        shutil.rmtree(environment, ignore_errors=True)  # gigabytes
