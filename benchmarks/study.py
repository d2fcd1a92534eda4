"""exec_study.py against its commands one after another: CPU seconds, forward passes, and whether the rows agree.

    OMP_NUM_THREADS=1 python benchmarks/study.py [TYPE] [EXAMPLES] [REPEATS] [DATA] [EXPERIMENT ...]

Two networks of the type are trained for an epoch on DATA, by default the built-in digits, in a temporary folder; other data
are looked for under $SHARED_DATA (../shared/data), as mnist for its 10,000 test images. Each turn starts without
records and without kept features. Start-up is what a process spends on imports and on reading a network: the CPU seconds of
a command that lists its layers.
"""

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from shutil import rmtree

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.startup import script, seconds
from benchmarks.timing import alternate, compared, report

DATA_ROOT = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data")).resolve()
SHARING = ("eval", "ood_layers", "probe", "ncg", "similarity", "stitch")


def main(kind: str = "resnet20", examples: int = 2000, repeats: int = 3, data: str = "digits", *experiments: str) -> None:
    """Prints both ways' medians with and without start-up, and the largest difference between their rows."""
    root = ("--data-root", str(DATA_ROOT))
    with tempfile.TemporaryDirectory() as folder:
        for seed, name in enumerate("ab"):
            training = (kind, "-d", data, *root, "--max-examples", "2000", "-dir", name, "-e", "1", "-s", str(seed))
            seconds(script("train"), *training, "--quiet", folder=folder)
        words = ("models/a/model_1.pt", *root, "-ood", f"{data}-c/fog-3", "patches", "--against", "models/b/model_1.pt")
        words += ("--max-examples", str(examples))
        study = (script("study"), *words, "--only", *(experiments or SHARING), "--quiet")
        seconds(*study, folder=folder)
        commands = [record["command"] for record in written(folder).values()]
        listing = (script("eval"), "models/a/model_1.pt", "--list-layers", "--quiet")
        starting = statistics.median(seconds(*listing, folder=folder) for _ in range(3))
        rows: dict[str, dict] = {}

        def together() -> float:
            forget(folder)
            spent = seconds(*study, folder=folder)
            rows["study"] = written(folder)
            return spent

        def one_by_one() -> float:
            forget(folder)
            spent = sum(seconds(str(ROOT / name), *rest, "--quiet", folder=folder) for name, *rest in commands)
            rows["commands"] = written(folder)
            return spent

        found = alternate({"one by one": one_by_one, "study": together}, repeats)
        ratios = report(f"CPU seconds, {kind} on {data}, at most {examples} images of each set", "s", found, "one by one")
        plain = statistics.median(found["one by one"])
        ours = plain * ratios["study"]
        apart = largest(rows["commands"], rows["study"])
        agreement = f"rows differ by at most {apart:.1e}"
        compared(f"{len(commands)} experiments on {kind}, {data}", plain, ours, agreement=agreement)
        computed = plain - len(commands) * starting, ours - starting
        compared(f"the same without start-up ({starting:.1f} s a process)", *computed, agreement=agreement)
        print(f"without start-up {computed[0]:.1f} and {computed[1]:.1f} s, {computed[0] / computed[1]:.2f} times")
        print(agreement)


def forget(folder: str) -> None:
    """Removes records and kept features, but not the records of trainings."""
    for path in (Path(folder) / "results").iterdir():
        if path.name != "train":
            rmtree(path)
    rmtree(Path(folder) / ".cache", ignore_errors=True)


def written(folder: str) -> dict[str, dict]:
    """Experiment -> its record."""
    found = [json.loads(path.read_text()) for path in (Path(folder) / "results").glob("*/*.json")]
    return {record["experiment"]: record for record in found if record["experiment"] != "train"}


def largest(ones: dict[str, dict], others: dict[str, dict]) -> float:
    """The largest difference between numbers of the rows, relative above 1; infinite where anything else differs."""
    apart = 0.0
    for experiment, record in ones.items():
        for row, other in zip(record["rows"], others[experiment]["rows"], strict=True):
            for column, value in row.items():
                if isinstance(value, float) and isinstance(other[column], float):
                    apart = max(apart, abs(value - other[column]) / max(1, abs(value)))
                elif value != other[column]:
                    apart = float("inf")
    return apart


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:4]), *sys.argv[4:])
