"""Completion in a shell: what the protocol answers, and what bash and zsh make of it."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from lib import models
from lib.experiments.config import data
from lib.training.flags import LOSSES

pytest.importorskip("argcomplete")


def completed(line: str, cwd: Path, *options: str) -> tuple[list[str], str]:
    """How a line may go on, and what the process says on stderr; the line's first word is the script."""
    answer = cwd / "answer"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    command = [sys.executable, *options, ROOT / line.split()[0]]
    done = subprocess.run(command, cwd=cwd, env=os.environ | asked, capture_output=True, text=True)
    return [word for word in answer.read_text().split("\n") if word], done.stderr


@pytest.mark.parametrize(
    "line, found",
    (
        ("exec_train.py vit_tiny", {name for name in models.MODELS if name.startswith("vit_tiny")}),
        ("exec_train.py resnet20 --loss ", set(LOSSES)),
        ("exec_train.py resnet20 --lr-", {"--lr-step", "--lr-decay"}),
        ("exec_train.py resnet20 -d digi", {"digits", "digits-bg", "digits-colour"}),
        ("exec_eval.py models/a/mo", {"models/a/model_2.pt"}),
        ("exec_probe.py models/a/model_2.pt -d digits -ood mine", {"mine"}),
        ("exec_train.py resnet20 -e ", set()),
        ("exec_data.py ", set(data.ACTIONS)),
        ("exec_tables.py --form", {"--format"}),
        ("exec_tables.py --format ", {"text", "md", "latex", "csv", "html"}),
    ),
)
def test_flags_types_data_sets_choices_and_checkpoints_are_completed(tmp_path, line, found):
    (tmp_path / "models" / "a").mkdir(parents=True)
    for name in ("model_2.pt", "model_2.json"):
        (tmp_path / "models" / "a" / name).touch()
    (tmp_path / "data" / "mine").mkdir(parents=True)
    assert set(completed(line, tmp_path)[0]) == found


@pytest.mark.parametrize("name", sorted(path.name for path in ROOT.glob("exec_*.py")))
def test_every_script_completes_without_torch_and_says_that_it_does(tmp_path, name):
    words, said = completed(f"{name} --pl", tmp_path, "-X", "importtime")
    assert words == ["--plan"] and "import time" in said and " torch\n" not in said
    assert (ROOT / name).read_text().startswith("# PYTHON_ARGCOMPLETE_OK\n")  # what shells look for


SET_UP = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ""),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u; "),
}


@pytest.mark.parametrize("shell", SET_UP)
def test_a_shell_completes_a_script_that_python_runs(tmp_path, shell):
    """As docs/flags.md sets it up; the tab key at the end of a line."""
    activate = Path(sys.executable).parent / "activate-global-python-argcomplete"
    if not shutil.which(shell) or not activate.exists():
        pytest.skip(f"there is no {shell} here, or no {activate.name}")
    words, before = SET_UP[shell]
    pid, end = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        path = f"{activate.parent}:{os.environ['PATH']}"
        os.execvpe(words[0], words, os.environ | {"PATH": path, "PS1": "$ ", "TERM": "dumb", "HOME": str(tmp_path)})

    def read(until: str) -> str:
        text, begin = "", time.monotonic()
        while until not in text and time.monotonic() < begin + 60:
            if select.select([end], [], [], 0.2)[0]:
                text += os.read(end, 65536).decode(errors="replace")
        return text

    try:
        os.write(end, f'{before}eval "$({activate.name} --dest=-)"; echo re""ady\n'.encode())
        assert "ready" in read("ready\r\n")
        os.write(end, f"python {ROOT}/exec_train.py resnet20 --label-s\t".encode())
        assert "--label-smoothing" in read("--label-smoothing")
    finally:
        os.close(end)
        os.waitpid(pid, 0)
