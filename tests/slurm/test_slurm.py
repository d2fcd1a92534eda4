"""The job scripts on a real Slurm cluster of one node, which the tests start: `make test-slurm`, as root."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from lib.tables import missing_runs

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = Path(__file__).with_name("cluster.sh")

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not shutil.which("slurmctld") or not shutil.which("munged"), reason="no slurm-wlm and munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the daemons are started as root"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run(["bash", CLUSTER, "start", folder], check=True)
    os.environ |= {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
    }
    yield
    subprocess.run(["bash", CLUSTER, "stop", folder], check=True)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A working copy of the suite without data, models and records."""
    for path in [*ROOT.glob("exec_*.py"), ROOT / "lib", ROOT / "jobs", ROOT / ".venv"]:
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def submitted(*words, cwd: Path) -> list[str]:
    """The numbers of the jobs."""
    done = subprocess.run([*map(str, words)], cwd=cwd, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return re.findall(r"Submitted batch job (\d+)", done.stdout)


def states(job: str) -> list[str]:
    """The states of a job's tasks."""
    shown = subprocess.run(["scontrol", "show", "job", job], text=True, capture_output=True).stdout
    return re.findall(r"JobState=(\w+)", shown)


def wait(what, seconds: float = 600) -> None:
    deadline = time.time() + seconds
    while not what():
        assert time.time() < deadline, subprocess.run(["squeue"], text=True, capture_output=True).stdout
        time.sleep(0.5)


def ended(job: str) -> bool:
    found = states(job)
    assert not {"FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"} & set(found), found
    return found != [] and set(found) == {"COMPLETED"}


def demo() -> list[list[str]]:
    """The commands of jobs/demo.sh, a line each, in stages: trainings, what needs their checkpoints, what needs records."""
    text = (ROOT / "jobs" / "demo.sh").read_text().replace("\\\n", "")
    lines = [" ".join(line.split()) for line in text.splitlines() if line.startswith("python exec_")]
    lines = [line for line in lines if "exec_tables.py" not in line and "--list-layers" not in line]
    stages = [[], [], []]
    for line in lines:
        stages[0 if "exec_train.py" in line else 2 if "results/" in line else 1].append(line)
    return stages


def test_an_array_of_the_demo_survives_preemption(checkout):
    """A job of higher priority takes the node while networks train: they save, are requeued and go on from there."""
    stages = demo()
    (checkout / "todo").write_text("# networks\n\n" + f"\n{missing_runs.AFTER}\n".join("\n".join(lines) for lines in stages))
    jobs = submitted("bash", "jobs/array.sbatch", "todo", cwd=checkout)
    assert len(jobs) == len(stages) == 3
    resume = checkout / "models" / "demo" / "resnet20" / "resume.pt"
    wait(resume.exists)
    (urgent,) = submitted("sbatch", "--partition=high", "--exclusive", "--output=urgent.log", "--wrap=sleep 5", cwd=checkout)
    wait(lambda: ended(urgent))
    wait(lambda: all([ended(job) for job in jobs]), 1200)
    logs = {path.name: path.read_text() for path in checkout.glob("slurm-*.log")}
    preempted = next(text for text in logs.values() if "exec_train.py resnet20" in text)
    assert "stopped by SIGTERM in epoch" in preempted and "start 2:" in preempted, preempted
    stopped = re.search(r"stopped by SIGTERM in epoch (\d+), step (\d+)", preempted).groups()
    assert f"continuing models/demo/resnet20 in epoch {stopped[0]}, step {stopped[1]}" in preempted
    records = [json.loads(path.read_text()) for path in (checkout / "results").glob("*/*.json")]
    commands = [" ".join(record["command"]) for record in records]
    assert len(commands) == len(set(commands)) == sum(map(len, stages))
    epochs = next(record["rows"] for record in records if record["config"].get("directory") == "demo/resnet20")
    assert [row["epoch"] for row in epochs] == [1, 2, 3, 4, 5, 6]
    again = submitted("bash", "jobs/array.sbatch", "todo", cwd=checkout)
    wait(lambda: all([ended(job) for job in again]), 1200)
    logs = [path.read_text() for job in again for path in checkout.glob(f"slurm-*-{job}_*.log")]
    assert len(logs) == len(commands) and all("already there" in text for text in logs)


def test_a_command_that_reaches_its_time_limit_continues(checkout):
    command = "python exec_train.py lenet -d digits -dir long -e 1000 -gpu -1"
    (checkout / "todo").write_text(command + "\n")
    (job,) = submitted("bash", "jobs/array.sbatch", "todo", "--time=1", "--signal=USR1@40", cwd=checkout)
    log = checkout / f"slurm-commands-{job}_1.log"
    wait(lambda: log.exists() and "start 2:" in log.read_text() and "continuing models/long" in log.read_text(), 300)
    assert "stopped by SIGUSR1" in log.read_text()
    subprocess.run(["scancel", job], check=True)


def test_a_tables_job_trains_in_two_processes(checkout):
    os.environ |= {"SMALL": "1", "WORK_DIR": str(checkout / "small"), "PROCESSES": "2"}
    try:
        (job,) = submitted(
            "sbatch",
            "--gpus-per-node=0",
            "--cpus-per-task=2",
            "--mem=0",
            "--output=job.log",
            "jobs/hyperplanes-f2.sbatch",
            cwd=checkout,
        )
    finally:
        for name in ("SMALL", "WORK_DIR", "PROCESSES"):
            del os.environ[name]
    try:
        wait(lambda: ended(job))
    except AssertionError as error:
        raise AssertionError((checkout / "job.log").read_text()) from error
    record = json.loads(next((checkout / "small" / "results" / "train").glob("*.json")).read_text())
    assert {row["processes"] for row in record["rows"]} == {2}
    assert len(list((checkout / "small" / "results" / "projections").glob("*.json"))) == 1
