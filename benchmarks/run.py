"""Every benchmark of the suite, and one table: the job, the plain way, ours, how many times faster, and whether they agree.

    OMP_NUM_THREADS=1 python benchmarks/run.py --small          sizes for a look; minutes
    OMP_NUM_THREADS=1 python benchmarks/run.py stitching probe  some of them, at their full size
    OMP_NUM_THREADS=1 python benchmarks/run.py                  an hour

Each runs in a process of its own and prints what it says alone. The rows are kept as a record, as an experiment's are.
"""

import multiprocessing
import runpy
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.core.errors import UserError
from lib.runs.cli import RunConfig, flag
from lib.runs.command_lines import Experiment
from lib.runs.records import Result
from lib.runs.script import main

# benchmark -> its arguments for a look; without any it runs at its full size
BENCHMARKS = {
    "attacks": ("1", "0"),
    "augmentation": ("512", "2"),
    "cifar5m": ("500", "1", "1000"),
    "corruptions": ("50",),
    "growth": ("40", "eval"),
    "imagenet": ("1000", "0", "1", "1"),
    "neighbors": ("100", "2000"),
    "ood_layers": ("64", "32"),
    "probe": ("all", "256", "64", "100"),
    "processes": ("60", "1", "lenet", "eval"),
    "projections": ("", "lenet"),
    "record_library": ("200",),
    "reinit": ("16", "lenet", "2", "16"),
    "similarity": ("64", "1"),
    "startup": ("1",),
    "stitching": ("256", "1"),
    "study": ("lenet", "60", "1"),
    "training": ("-d", "patches", "--images", "256", "--repeats", "1", "--networks", "resnet20"),
}


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(RunConfig):
    """Timings beside the straightforward way."""

    names: tuple[str, ...] = flag((), positional=True, choices=BENCHMARKS, label="{}", help="default: all")
    small: bool = flag(False, help="small sizes: whether everything runs and agrees, not how fast it is")


def benchmark(config: BenchmarkConfig) -> Result:
    """A row per comparison: seconds or speed of the plain way and of ours, the ratio, the agreement.

    What cannot run, such as for want of its data, is left out with a warning; `UserError` where nothing remains.
    """
    rows, seconds = [], {}
    for name in config.names or BENCHMARKS:
        begin = time.perf_counter()
        try:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                found = process.submit(comparisons, name, BENCHMARKS[name] if config.small else ()).result()
        except UserError as error:
            print(f"warning: {name} is left out: {error}", file=sys.stderr)
            continue
        seconds[name] = time.perf_counter() - begin
        rows += [{"benchmark": name, **asdict(one), "ratio": one.ratio} for one in found]
    if not rows:
        raise UserError("none of the benchmarks could run")
    return Result(rows, seconds=seconds, columns=("job", "plain", "ours", "unit", "ratio", "agreement"))


def comparisons(name: str, arguments: tuple[str, ...]) -> list:
    """What `benchmarks/<name>.py` compared when called with these arguments."""
    from benchmarks import timing

    file = Path(__file__).with_name(f"{name}.py")
    sys.argv = [str(file), *arguments]
    runpy.run_path(str(file), run_name="__main__")
    return timing.COMPARISONS


if __name__ == "__main__":
    main({"benchmark": Experiment(BenchmarkConfig, benchmark)}, "benchmark", description=__doc__, script="run.py")
