"""The scripts run in this process, as `python exec_x.py ...` would, thousands of times: what fuzzing and most tests need.

What a process has to itself is given to each run and put back after it: the working directory, the command line, both
streams, environment variables, signal handlers, what is to be done at exit, warnings, torch's global generator, number of
threads and choice of kernels. Kills, closed pipes and what is imported when need a process: background.
"""

import atexit
import contextlib
import hashlib
import importlib.abc
import io
import os
import runpy
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

LIMIT = 120  # seconds after which a command hangs: on built-in data they take a few


@dataclass(frozen=True)
class End:
    """How a command ended: exit status, its two streams, seconds; `torch` if it asked for torch while that was barred."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float
    torch: bool = False

    def fault(self) -> str | None:
        """What is wrong with this end: anything but success, or one sentence with exit status 1 or 2."""
        said = [line for line in self.stderr.replace("\r", "\n").splitlines() if line.strip()]
        if self.seconds > LIMIT:
            return f"hung for {self.seconds:.0f} s"
        if "Traceback" in self.stderr or "(unexpected;" in self.stderr:
            return f"no sentence: {said[-1][:300]}"
        if self.returncode not in (0, 1, 2):
            return f"exit status {self.returncode}"
        if self.returncode and not (said and ": error: " in said[-1] and not self.stdout.strip().endswith(".json")):
            return f"exit status {self.returncode} without a sentence: {said[-1:]}"
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
def without_torch() -> Iterator[None]:
    """Bars torch: a command that gets as far as importing it ends there."""
    assert "torch" not in sys.modules
    bar = _Bar()
    sys.meta_path.insert(0, bar)
    try:
        yield
    finally:
        sys.meta_path.remove(bar)
    assert "torch" not in sys.modules


def run(words: list[str], folder: Path | None = None, environment: dict[str, str] | None = None) -> End:
    """Runs a script (the first word) in a folder; whatever escapes it but its exit is a fault of ours."""
    out, err, begin = io.StringIO(), io.StringIO(), time.perf_counter()
    asked, status, own = False, 0, _as_in_a_process(words, folder, environment or {})
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), own:
        signal.signal(signal.SIGALRM, _ring)
        signal.alarm(LIMIT)
        try:
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
            if isinstance(status, str):
                err.write(f"{status}\n")
                status = 1
        except TorchAsked:
            asked = True
        except (Exception, Hung) as error:
            err.write(f"\nTraceback: {type(error).__name__}: {error}")
            status = 1
        finally:
            signal.alarm(0)
    return End(status, out.getvalue(), err.getvalue(), time.perf_counter() - begin, asked)


@contextlib.contextmanager
def _as_in_a_process(words: list[str], folder: Path | None, environment: dict[str, str]) -> Iterator[None]:
    """Gives a run what a new process has, does what it wanted done at exit, and puts back what was there."""
    arguments, variables, path = sys.argv, dict(os.environ), list(sys.path)
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGALRM)
    handlers = {number: signal.getsignal(number) for number in numbers}
    register, at_exit = atexit.register, []

    def note(function, *given, **named):  # a library's own stays the test process's
        if str(getattr(function, "__module__", "")).startswith("lib."):
            at_exit.append(lambda: function(*given, **named))
        else:
            register(function, *given, **named)
        return function

    with contextlib.chdir(folder or Path.cwd()), warnings.catch_warnings(), _torch_as_in_a_process():
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = lambda *given: print(warnings.formatwarning(*given[:4]), end="", file=sys.stderr)
        try:
            sys.argv, atexit.register = list(words), note
            os.environ.update(environment)
            yield
            for function in reversed(at_exit):
                function()
        finally:
            sys.argv, sys.path[:], atexit.register = arguments, path, register
            for name in os.environ.keys() - variables.keys():
                del os.environ[name]
            os.environ.update(variables)
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _torch_as_in_a_process() -> Iterator[None]:
    torch = sys.modules.get("torch")
    if torch is None:  # a run that imports it is the first
        yield
        return
    state, threads, kernels = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.seed()  # a process begins with a generator that nobody has seeded
    try:
        yield
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
        if torch.are_deterministic_algorithms_enabled() != kernels:
            torch.use_deterministic_algorithms(kernels)


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
