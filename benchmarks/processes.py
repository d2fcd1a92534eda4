"""Experiments in two processes under torchrun against one process, a core for each: seconds, and whether the rows agree.

    python benchmarks/processes.py [IMAGES] [REPEATS] [TYPE] [EXPERIMENT ...]

On a machine with two cores that nothing else uses. A network of the type is trained for an epoch on the built-in patches,
in a temporary folder; each turn starts without records and without kept features. Seconds are what IMAGES images of each set
take more than a tenth of them: starting processes, and joining them, costs the same for both.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.startup import script
from benchmarks.study import forget, largest, written
from benchmarks.timing import compared, report

MODEL = "models/a/model_1.pt"
OUTLIERS = ("-ood", "patches-c/fog-3")
COMMANDS = {
    "eval": (MODEL,),
    "ood_layers": (MODEL, *OUTLIERS),
    "probe": (MODEL, *OUTLIERS, "-l", "layer?.?", "-e", "1"),
    "probe, pooled": (MODEL, *OUTLIERS, "-l", "layer?.?", "-e", "1", "--reduce", "gap"),
    "ncg": (MODEL, *OUTLIERS, "--space", "feature"),
    "reinit": (MODEL, "--rand", "1", "-l", "layer?.0.conv1"),
}


def main(images: int = 600, repeats: int = 3, kind: str = "resnet18", *experiments: str) -> None:
    """Prints medians of both ways for every experiment, and the largest difference between their rows."""
    with tempfile.TemporaryDirectory() as folder:
        run(1, "train", (kind, "-d", "patches", "-dir", "a", "-e", "1", "--max-examples", "100"), folder)
        for name in experiments or COMMANDS:
            rows: dict[int, dict] = {}

            def way(processes: int, name=name, rows=rows) -> float:
                spent = []
                for count in (images // 10, images):
                    forget(folder)
                    begin = time.perf_counter()
                    run(processes, name.partition(",")[0], (*COMMANDS[name], "--max-examples", str(count)), folder)
                    spent.append(time.perf_counter() - begin)
                rows[processes] = written(folder)
                return spent[1] - spent[0]

            ways = {"one process": lambda way=way: way(1), "two processes": lambda way=way: way(2)}
            turns = [{kind: one() for kind, one in ways.items()} for _ in range(repeats)]
            found = {kind: [turn[kind] for turn in turns] for kind in ways}
            report(f"{name}, {kind}, {images} images", "s", found, "one process")
            one, two = map(statistics.median, found.values())
            agreement = f"rows differ by at most {largest(rows[1], rows[2]):.1e}"
            compared(f"{name} on {kind}", one, two, agreement=agreement)
            print(f"{one / two:.2f} times; {agreement}", flush=True)


def run(processes: int, name: str, words: tuple[str, ...], folder: str) -> None:
    """The script in a process, or under torchrun in several, each with one thread."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *start, script(name), *words, "-gpu", "-1", "--quiet"]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*[int(word) for word in given[:2]], *given[2:])
