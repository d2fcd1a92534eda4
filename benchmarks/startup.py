"""How much longer a short command takes than importing torch: CPU seconds of whole processes, on one thread.

    python benchmarks/startup.py [REPEATS]

Evaluates small_cnn and resnet20, trained for an epoch in a temporary folder, on the 355 test images of the digits: imports,
the pass over the images, the figure, the record, and the end of the process. Beside it stands `python -c "import torch"`.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.timing import alternate, compared, report

NETWORKS = ("small_cnn", "resnet20")
MOST = 1.6  # times the CPU seconds of importing torch


def main(repeats: int = 5) -> None:
    """Prints the medians, their ratio to importing torch, and whether a ratio is above `MOST`."""
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            seconds(script("train"), name, "-d", "digits", "-dir", name, "-e", "1", "--quiet", folder=folder)
        ways = {"import torch": lambda: seconds("-c", "import torch", folder=folder)}
        for name in NETWORKS:
            words = script("eval"), f"models/{name}/model_1.pt", "-d", "digits", "--overwrite", "--quiet"
            ways[f"eval {name}"] = lambda words=words: seconds(*words, folder=folder)
        found = alternate(ways, repeats)
    ratios = report("CPU seconds of a process", "s", found, "import torch")
    plain = statistics.median(found["import torch"])
    for name in NETWORKS:
        within = "at most" if ratios[f"eval {name}"] <= MOST else "above"
        agreement = f"{ratios[f'eval {name}']:.2f} times importing torch, {within} {MOST}"
        compared(
            f"evaluating {name} on the digits, against import torch",
            plain,
            plain * ratios[f"eval {name}"],
            agreement=agreement,
        )
        print(f"{name}: {agreement}")


def script(name: str) -> str:
    """The path of a script of the suite."""
    return str(ROOT / f"exec_{name}.py")


def seconds(*words: str, folder: str) -> float:
    """The CPU seconds, user and system, that Python takes for a command in a folder, with those of its own children."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled modules are kept, as they are for everybody
    process = subprocess.Popen([sys.executable, *words], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(words)}: exit status {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
