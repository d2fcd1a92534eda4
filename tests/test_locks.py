"""One process writes a record at a time, with the file system's locks and without; what is finished needs none."""

import errno
import fcntl
import json
import os
import platform
import subprocess
import sys

import pytest
from conftest import script

from lib.core import locks
from lib.core.errors import UserError

NONE = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL]


@pytest.fixture(params=NONE, ids=errno.errorcode.get)
def without_locks(request, monkeypatch):
    """A file system without locks."""

    def flock(file, how):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture
def sleeper():
    """Another process, which is alive."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    yield process
    process.kill()
    process.wait()


def refused(path) -> str:
    with pytest.raises(UserError) as caught, locks.locked(path, "busy"):
        pass
    return str(caught.value)


def write(path, **changes) -> None:
    path.write_text(json.dumps(locks._about_this_process() | changes))


def test_a_lock_is_held_once_and_leaves_nothing(tmp_path):
    with locks.locked(tmp_path / "a" / "lock", "busy"):
        assert refused(tmp_path / "a" / "lock") == "busy"
    with locks.locked(tmp_path / "a" / "lock", "busy"):
        pass
    assert not list((tmp_path / "a").iterdir())


def test_without_locks_a_file_says_who_holds_it(tmp_path, without_locks):
    with locks.locked(tmp_path / "lock", "busy"):
        (held,) = tmp_path.iterdir()
        content = json.loads(held.read_text())
        assert held.name == "lock.held" and content["pid"] == os.getpid() and content["host"] == platform.node()
        said = refused(tmp_path / "lock")
        assert said.startswith("busy. The file system has no locks") and f"process {os.getpid()}" in said
        assert f"{held} says so" in said and "delete that file" in said
    assert not list(tmp_path.iterdir())


def test_the_file_of_a_dead_process_of_this_host_is_taken_over(tmp_path, without_locks, sleeper):
    path, held = tmp_path / "lock", tmp_path / "lock.held"
    write(held, pid=sleeper.pid, start=locks._start(sleeper.pid))
    assert f"process {sleeper.pid}" in refused(path)
    for dead in ({"start": "1"}, {"pid": 2**22 + 1}, {"boot": "another"}):  # its number is another process's now; ...
        write(held, **{"pid": sleeper.pid, "start": locks._start(sleeper.pid), **dead})
        with locks.locked(path, "busy"):
            assert json.loads(held.read_text())["pid"] == os.getpid()
        assert not list(tmp_path.iterdir())
    write(held, pid=sleeper.pid, start=locks._start(sleeper.pid))
    sleeper.kill()
    sleeper.wait()
    with locks.locked(path, "busy"):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "host": 3, "since": null}'])
def test_a_file_of_another_host_or_that_says_nothing_is_named_and_left(tmp_path, without_locks, content):
    held = tmp_path / "lock.held"
    held.write_text(content)
    assert str(held) in refused(tmp_path / "lock") and held.read_text() == content
    write(held, host="another", pid=2**22 + 1)
    assert "on another since" in refused(tmp_path / "lock") and held.exists()


def test_a_file_that_another_process_put_there_meanwhile_stays(tmp_path, without_locks):
    held = tmp_path / "lock.held"
    write(held, pid=1)
    living = json.loads(held.read_text())
    locks._remove(held, living | {"pid": 2})  # what was read was another one
    assert json.loads(held.read_text()) == living and len(list(tmp_path.iterdir())) == 1


def test_a_script_runs_where_there_are_no_locks(tmp_path, without_locks):
    words = ("exec_data.py", "show", "digits", "--name", "a")
    done = script(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "results/data").iterdir()) == [
        "a-test.png",
        "a-train.png",
        "a.json",
        "a.npz",
    ]
    write(tmp_path / "results/data/.a.lock.held", host="another")
    done = script(*words, "--overwrite", cwd=tmp_path)
    assert done.returncode == 1 and "another process is making results/data/a.json" in done.stderr
    assert "results/data/.a.lock.held says so" in done.stderr
    assert "already there" in script(*words, cwd=tmp_path).stderr  # which needs no lock


def test_a_finished_command_in_a_folder_that_cannot_be_written_is_already_there(tmp_path, monkeypatch):
    words = ("exec_data.py", "show", "digits", "--name", "a")
    assert script(*words, cwd=tmp_path).returncode == 0
    folder = tmp_path / "results/data"

    def refuse(path, *how, **named):  # root may write everywhere
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    folder.chmod(0o555)
    monkeypatch.setattr(locks, "open", refuse, raising=False)
    done = script(*words, cwd=tmp_path)
    assert done.returncode == 0 and "already there" in done.stderr and done.stdout == "results/data/a.json\n"
    done = script(*words, "--overwrite", cwd=tmp_path)
    assert done.returncode == 1 and "Read-only file system" in done.stderr
    folder.chmod(0o755)
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
