"""The scripts run in this process, as `python exec_x.py ...` would, thousands of times: what fuzzing needs."""

import contextlib
import hashlib
import importlib.abc
import io
import runpy
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

LIMIT = 120  # seconds after which a command hangs: on built-in data they take a few


@dataclass(frozen=True)
class End:
    """How a command ended: exit status, its two streams, seconds; `torch` if it asked for torch while that was barred."""

    status: int
    out: str
    err: str
    seconds: float
    torch: bool = False

    def fault(self) -> str | None:
        """What is wrong with this end: anything but success, or one sentence with exit status 1 or 2."""
        said = [line for line in self.err.replace("\r", "\n").splitlines() if line.strip()]
        if self.seconds > LIMIT:
            return f"hung for {self.seconds:.0f} s"
        if "Traceback" in self.err or "(unexpected;" in self.err:
            return f"no sentence: {said[-1][:300]}"
        if self.status not in (0, 1, 2):
            return f"exit status {self.status}"
        if self.status and not (said and ": error: " in said[-1] and not self.out.strip().endswith(".json")):
            return f"exit status {self.status} without a sentence: {said[-1:]}"
        return None


class TorchAsked(BaseException):
    """Raised in place of importing torch while that is barred."""


class Hung(BaseException):
    """Raised by the alarm clock."""


class _Bar(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm"):
            raise TorchAsked
        return None


@contextlib.contextmanager
def without_torch():
    """Bars torch: a command that gets as far as importing it ends there."""
    assert "torch" not in sys.modules
    bar = _Bar()
    sys.meta_path.insert(0, bar)
    try:
        yield
    finally:
        sys.meta_path.remove(bar)
    assert "torch" not in sys.modules


def run(words: list[str]) -> End:
    """Runs a script (the first word) in the working directory; whatever escapes it but its exit is a fault of ours."""
    out, err = io.StringIO(), io.StringIO()
    arguments, begin = sys.argv, time.perf_counter()
    asked, status = False, 0
    signal.signal(signal.SIGALRM, _ring)
    signal.alarm(LIMIT)
    try:
        sys.argv = words
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    except SystemExit as end:
        status = end.code or 0
    except TorchAsked:
        asked = True
    except (Exception, Hung) as error:
        err.write(f"\nTraceback: {type(error).__name__}: {error}")
    finally:
        signal.alarm(0)
        sys.argv = arguments
    return End(status, out.getvalue(), err.getvalue(), time.perf_counter() - begin, asked)


def contents(*folders: str) -> dict[str, str]:
    """The hash of every record, array and checkpoint under some folders, by path."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in Path(folder).rglob("*")
        if path.suffix in (".json", ".npz", ".pt") and path.is_file()
    }


def _ring(number, frame):
    raise Hung(f"still at work after {LIMIT} s")
