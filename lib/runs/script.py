"""What every script does: parse its command line, run its experiment unless its record is there, write the record.

Whatever goes wrong ends in one line on stderr and an exit status; nothing here knows an experiment.
"""

import contextlib
import functools
import gc
import inspect
import logging
import os
import shlex
import signal
import sys
import threading
import time
import traceback
import typing
import warnings
from collections.abc import Callable, Generator
from pathlib import Path

from lib.core import distributed, locks, progress, streams, terminal, trusted_files
from lib.core.errors import FAILED, Interrupted, UntrustedFile, UsageError, UserError
from lib.core.text import duration, readable
from lib.runs import cli, drawing, records
from lib.runs.cli import RunConfig
from lib.runs.command_lines import Experiment, Experiments
from lib.runs.records import Result


def command(experiments: Experiments, name: str, description: str | None, script: str = "") -> Callable[[], None]:
    """The function without arguments that a script, or the command that an installation makes of it, is."""
    return functools.partial(main, experiments, name, description=description or "", script=script)


def main(
    experiments: Experiments, name: str, argv: list[str] | None = None, *, description: str = "", script: str = ""
) -> None:
    """Parses the command line, runs the experiment `name` unless its record is there, writes the record, and exits.

    argv         the words of the command line, without the script; default: those that Python was started with
    description  what `--help` says first
    script       the script as messages and records name it; default: exec_<name>.py, also where it was installed

    Exit status: 0 done, 1 failed, 2 bad command line, 75 interrupted and resumable. The last line on stdout is the
    record's path.
    """
    script = script or f"exec_{name}.py"
    argv = sys.argv[1:] if argv is None else argv
    debug, about = "--debug" in argv, inspect.cleandoc(description)
    if completion_asked():
        from lib.runs import completion

        completion.answer(experiments[name].configuration, script)
    streams.prepare()
    try:
        _announce_signals()
        config = cli.parse(experiments[name].configuration, argv, prog=script, description=about)
        trusted_files.trust_only([*trusted_files.named(argv), *config.trust])
        if distributed.world() > 1 and not config.parallel:
            raise UsageError("this script runs in one process: start it with python, not with torchrun")
        run(experiments, name, config, [script, *argv])
        sys.stdout.flush()
        _note(0)
        if distributed.world() > 1:  # all is written, and threads of a lost connection abort some interpreters at their end
            sys.stderr.flush()
            os._exit(0)
    except BrokenPipeError:  # whoever read the output has read enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _exit(FAILED)
    except Exception as error:  # the one place where any failure becomes one line
        _ignore_signals()
        if debug:
            traceback.print_exc()
        if not argv and isinstance(error, UsageError):
            print(cli.brief(experiments[name].configuration, script, about), end="\n\n", file=sys.stderr)
        said = UsageError | Interrupted | distributed.FailedTogether  # by process 0, too
        if not (distributed.rank() and isinstance(error, said)):
            sentence = _sentence(error)
            if isinstance(error, UntrustedFile):
                sentence += f"; if you trust it: {shlex.join(['python', script, *argv, '--trust', error.path])}"
            print(f"{script}: {' '.join(readable(sentence).splitlines())}", file=sys.stderr)  # one line, whatever it quotes
        _exit(getattr(error, "status", FAILED))
    except KeyboardInterrupt:
        _ignore_signals()
        print(f"{script}: interrupted; the same command runs it again", file=sys.stderr)
        _exit(Interrupted.status)
    finally:
        _ignore_signals()


def _exit(status: int) -> typing.NoReturn:
    _note(status)
    sys.exit(status)


def _note(status: int) -> None:
    """Puts process 0's exit status into `EXIT_STATUS_FILE`, if given: torchrun does not hand it on."""
    path = os.environ.get("EXIT_STATUS_FILE")
    if path and distributed.rank() == 0:
        with contextlib.suppress(OSError):
            Path(path).write_text(str(status), "utf-8")


def completion_asked() -> bool:
    """Whether a shell asks how the command line may go on, instead of running it."""
    return "_ARGCOMPLETE" in os.environ


def run(experiments: Experiments, name: str, config: RunConfig, command: list[str]) -> Path | None:
    """Runs the experiment unless its record is there already; the record's path, or None for a question answered."""
    if not config.debug:
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of homes and fonts
    place = records.place(config, name)
    with distributed.joined() as processes:
        if processes.rank == 0:
            path = _lead(experiments[name], config, place, command, processes)
        else:
            path = None
            if processes.agree(False):
                warnings.simplefilter("ignore")
                _result(experiments[name], config, processes)
        processes.agree(None)  # torchrun ends all when one fails: none ends before the record is written
        return path


def _lead(
    experiment: Experiment, config: RunConfig, place: records.Place, command: list[str], processes: distributed.Processes
) -> Path | None:
    """What `run` does in its process, or in the first of several: the others do their share of the work, and say no word."""
    _show_warnings(config)
    if config.plan:
        config.check_inputs()
    with progress.status("preparing", config.quiet or not config.answers_at_once):
        answer = records.plan(place, config) if config.plan else config.answer()
    if answer is not None:
        processes.agree(False)
        print(readable(answer))
        return None
    found = _version(place.path)
    if _is_there(place, config):  # also in a folder that cannot be written
        processes.agree(False)
        _leave(experiment, config, place)
    else:
        with records.locked(place):
            if _version(place.path) != found and _is_there(place, config):  # another process was faster
                processes.agree(False)
                _leave(experiment, config, place)
            else:
                _run(experiment, config, place, command, processes)
    for figure in records.figures(place, config.figure_format):
        say(config, f"figure: {figure}")
    print(place.path)
    return place.path


def _is_there(place: records.Place, config: RunConfig) -> bool:
    """Whether the record holds, and its process has not died behind it, before the figures."""
    if config.overwrite or not records.finished(place, config):
        return False
    if locks.abandoned(place.lock):
        print(f"{place.path}: the process that wrote it died before its end; running again", file=sys.stderr)
        return False
    return True


def _leave(experiment: Experiment, config: RunConfig, place: records.Place) -> None:
    """Leaves the record as it is, and draws its figures where another format or width is asked for."""
    say(config, f"already there; --overwrite runs it again ({place.path})")
    drawn = records.figures(place)
    asked = (config.figure_format, config.figure_width) != (RunConfig.figure_format, RunConfig.figure_width)
    if asked or (drawn and not records.figures(place, config.figure_format)):
        drawing.draw(place, records.read(place.path), experiment, config.figure_format, config.figure_width)


def _version(path: Path) -> tuple[int, int] | None:
    """Which of the files that were ever at the path lies there; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _run(
    experiment: Experiment, config: RunConfig, place: records.Place, command: list[str], processes: distributed.Processes
) -> None:
    """Runs the experiment, writes its record and prints its rows."""
    with progress.status("checking inputs", config.quiet):
        config.check_inputs()
        before = records.fingerprints(config)
    started, begin = time.time(), time.perf_counter()
    with progress.status("loading libraries", config.quiet):
        _loaded(experiment)
    processes.agree(True)
    result = _result(experiment, config, processes)
    result.seconds.setdefault("total", time.perf_counter() - begin)
    record = records.write(place, config, result, command=command, started=started, inputs=before)
    drawing.draw_anew(place, record, experiment, config.figure_format, config.figure_width)
    if not config.quiet:
        print(readable(result.text(terminal.width(), terminal.shared())))
        say(config, f"done in {duration(result.seconds['total'])}")


def _result(experiment: Experiment, config: RunConfig, processes: distributed.Processes) -> Result:
    """What the experiment comes to, in one of the processes that do it together."""
    function = functools.partial(_loaded(experiment), config)
    return processes.together(function) if config.parallel == "passes" else function()


def _loaded(experiment: Experiment) -> Callable[..., Result]:
    """The function of an experiment, its modules loaded.

    None of them is ever garbage, so that Python's search for garbage, now and at the end of the process, leaves them out:
    of a short command it took a quarter of the time.
    """
    with _signals_afterwards():
        if gc.get_freeze_count():  # in this process something was run before
            return experiment.function
        gc.disable()
        try:
            return experiment.function
        finally:
            gc.freeze()
            gc.enable()


@contextlib.contextmanager
def _signals_afterwards() -> Generator[None]:
    """Holds signals back while libraries are loaded: some go on half loaded when they are interrupted.

    Other threads get none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = (*WARNINGS, signal.SIGINT)
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
    for number in came[:1]:
        signal.raise_signal(number)


WARNINGS = (signal.SIGTERM, signal.SIGUSR1)


def _announce_signals() -> None:
    """Scheduler's warnings end a run in order; a training replaces this while it can save its position."""

    def stop(number, frame):
        raise Interrupted(f"stopped by {signal.Signals(number).name}; the same command runs it again")

    for number in WARNINGS:
        signal.signal(number, stop)


def _ignore_signals() -> None:
    """Nothing is left to save, or the run ends already: another signal has nothing to add."""
    for number in (*WARNINGS, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _show_warnings(config: RunConfig) -> None:
    """Our own warnings as one line each, once in a run; libraries' warnings only with --debug."""
    shown = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: typing.TextIO | None = None,
        line: str | None = None,
    ) -> None:
        said = readable(str(message))
        if not config.quiet and (config.debug or issubclass(category, UserWarning)) and said not in shown:
            shown.add(said)  # Python forgets what it has shown wherever warnings are caught
            print(f"warning: {said}", file=sys.stderr)

    warnings.showwarning = show  # ty: ignore[invalid-assignment] - one function for another is how warnings are shown elsewhere
    if not config.debug:
        warnings.filterwarnings("ignore", module=r"(?!lib\.)")


def say(config: RunConfig, sentence: str) -> None:
    """A message on stderr, unless `--quiet`."""
    if not config.quiet:
        print(readable(sentence), file=sys.stderr)


def _sentence(error: Exception) -> str:
    if isinstance(error, UserError):
        return "error: " + str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"error: {where}{error.strerror or error}"
    unallocated = isinstance(error, RuntimeError) and "allocate memory" in str(error)  # so torch says it of the CPU
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError) or unallocated:
        return "error: out of memory; a smaller -b needs less"
    missing = (error.name or "lib").partition(".")[0] if isinstance(error, ModuleNotFoundError) else "lib"
    if missing != "lib":
        return (
            f"error: this Python has no {missing}; the suite's packages are in its environment "
            "(source .venv/bin/activate) and in requirements.txt"
        )
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, ImportError) and ".so" in first:
        return f"error: a library cannot be loaded ({first}); it is broken, or memory is limited (ulimit -v)"
    if isinstance(error, RuntimeError) and "start new thread" in first:
        return f"error: {first}: the number of processes is limited (ulimit -u)"
    return f"error: {type(error).__name__}: {first} (unexpected; --debug shows where)"
