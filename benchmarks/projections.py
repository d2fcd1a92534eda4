"""Projections of five snapshots of VGG11: how much longer than reading the files.

    OMP_NUM_THREADS=1 python benchmarks/projections.py [FOLDER [TYPE]]

Writes 2.6 GB of checkpoints into FOLDER (default: a temporary one), less for other types.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import compared
from lib.experiments.config.projections import ProjectionsConfig
from lib.experiments.projections import projections
from lib.metrics import filter_projections  # noqa: F401  its libraries are loaded before anything is measured
from lib.models import checkpoints
from lib.plots import filters  # noqa: F401


def main(folder: str, name: str = "vgg11") -> None:
    """Prints seconds: reading the files and checking their hashes, and the whole experiment with its figures."""
    paths = [Path(folder) / name / f"{'init' if epoch == 0 else f'model_{epoch}'}.pt" for epoch in range(5)]
    for epoch, path in enumerate(paths):
        description = checkpoints.Description(
            architecture=name, classes=tuple("0123456789"), channels=3, image_size=32, epoch=epoch
        )
        if not path.exists():
            checkpoints.save(path, checkpoints.fresh(description, epoch, "init"), description)
    for path in paths:  # once unmeasured: both find the files in the page cache
        checkpoints.describe(path)
    begin = time.perf_counter()
    for path in paths:
        checkpoints.describe(path)
        torch.load(path, weights_only=True)
    reading = time.perf_counter() - begin
    begin = time.perf_counter()
    result = projections(ProjectionsConfig(model_path=(str(Path(folder) / name),), normalize=True, with_linear=True))
    whole = time.perf_counter() - begin
    print(f"hash and torch.load of 5 files  {reading:6.2f} s")
    print(
        f"exec_projections, all layers    {whole:6.2f} s   {whole / reading:.2f} times   "
        + ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in result.seconds.items())
    )
    compared("projections of five snapshots, against only reading them", reading, whole, agreement="no other way is run")


if __name__ == "__main__":
    place, *rest = sys.argv[1:] or [""]
    with tempfile.TemporaryDirectory() as temporary:
        main(place or temporary, *rest)
