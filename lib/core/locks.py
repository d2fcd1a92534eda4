"""Locks on folders and records: one process writes at a time, also on file systems without locks.

A lock is `flock` on a file: it belongs to the open file, and so ends with its process, however that ends. Where the file
system has none (some of Lustre, NFS and FUSE), a file that only one process can create says who holds it: `<lock>.held` with
host, process and its start. A holder of this host that is dead is followed; of another host nobody can tell, and the
sentence names the file.
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import secrets
import time
from collections.abc import Generator
from pathlib import Path

from lib.core import files
from lib.core.errors import UserError

HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EACCES)  # what flock says then; anything else: there are no locks


@contextlib.contextmanager
def locked(path: Path, busy: str) -> Generator[None]:
    """Holds the lock file `path` for this process; raises `UserError(busy)` while another process holds it."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write into {path.parent}: {error.strerror}") from None
    with contextlib.ExitStack() as held:
        if not held.enter_context(_flock(path, busy)):
            held.enter_context(_exclusive(path.with_name(f"{path.name}.held"), busy))
        yield


def abandoned(path: Path) -> bool:
    """Whether a process died while it held this lock, and nobody has taken it since."""
    path = Path(path)
    held = _read(path.with_name(f"{path.name}.held"))
    if held and _dead(held):
        return True
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is not there, or held, or there are no locks
        return False
    return True


@contextlib.contextmanager
def _flock(path: Path, busy: str) -> Generator[bool]:
    """Holds the lock; False where the file system has none."""
    while True:
        try:
            file = open(path, "a")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            if error.errno in HELD_BY_ANOTHER:
                raise UserError(busy) from None
            path.unlink(missing_ok=True)
            yield False
            return
        # the previous holder removes the file at the end: what was locked may no longer be what lies at the path
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            break
        file.close()
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        file.close()


@contextlib.contextmanager
def _exclusive(path: Path, busy: str) -> Generator[None]:
    """Holds the file at `path`, which says whose it is."""
    mine = _about_this_process()
    while not _created(path, mine):
        holder = _read(path)
        if holder is not None and not _dead(holder):
            who = (
                f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}" if holder else "a process"
            )
            raise UserError(
                f"{busy}. The file system has no locks: {path} says so, for {who}; delete that file if no such run goes on"
            )
        if holder is not None:
            _remove(path, holder)
    try:
        yield
    finally:
        if _read(path) == mine:
            path.unlink(missing_ok=True)


def _created(path: Path, content: dict) -> bool:
    """Whether the file is there now, with this content, and was not before."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(content, file)
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    return True


def _read(path: Path) -> dict | None:
    """What the file says of its holder; None if it is not there."""
    try:
        holder = files.read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        holder = {}
    return holder if isinstance(holder, dict) else {}


def _remove(path: Path, holder: dict) -> None:
    """Removes the file of a dead holder, and not one that another process has put in its place meanwhile."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        if (other := _read(aside)) != holder and other is not None:
            _created(path, other)
        aside.unlink(missing_ok=True)


def _about_this_process() -> dict:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": platform.node(), "pid": os.getpid(), "start": _start(os.getpid()), "boot": _boot(), "since": since}


def _dead(holder: dict) -> bool:
    """Whether the holder was a process of this host and is none any more; a number that was given again is another start."""
    if holder.get("host") != platform.node() or not isinstance(holder.get("pid"), int):
        return False
    return holder.get("boot") != _boot() or holder.get("start") != _start(holder["pid"])


def _start(pid: int) -> str | None:
    """When a process of this host began, in ticks since it was switched on; None if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _boot() -> str:
    """Which time that this host was switched on it is."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
    return ""
