"""The flags of `exec_projections.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib import datasets
from lib.core.errors import UsageError
from lib.experiments.columns.projections import COLUMNS
from lib.runs import input_files
from lib.runs.cli import at_least, flag
from lib.runs.columns import Columns, Summary
from lib.runs.network_flags import SnapshotsConfig


@dataclass(frozen=True, kw_only=True)
class ProjectionsConfig(SnapshotsConfig):
    """Projections of each layer's filters on the all-ones vector."""

    common: ClassVar[str] = "dataset init_from normalize with_linear fold_bn random seed plan"

    init_from: str = flag(
        "",
        help="weights that distances are measured from; default: init.pt beside a checkpoint, or "
        "<type>_init_0.pt and <type>_pretrained_0.pt as the paper's code calls them",
        group="network",
        selects=True,
        metavar="CHECKPOINT",
    )
    normalize: bool = flag(False, help="report cosines in [-1, 1] instead of sums of weights")
    with_linear: bool = flag(False, help="include linear layers")
    with_1x1: bool = flag(False, help="include 1x1 convolutions")
    fold_bn: bool = flag(False, help="multiply filters by the batch normalisation that follows them: gamma / sigma")
    random: int = flag(
        0,
        check=at_least(1),
        help="number of freshly initialised networks; draw k is what exec_train.py starts from with --seed s "
        "+ k; default: 1 where only a type is given, else 0",
        group="network",
    )
    seed: int = flag(0, "-s", help="seed of every random draw", label="s{}")
    pretrained: bool = flag(False, help="include the published weights of the type", group="network")
    dataset: str = flag(
        "",
        "-d",
        label="{}",
        help="data set whose classes, channels and size freshly initialised networks are for; default: 10 "
        "classes, 3 channels, 32 px, and for --pretrained those of ImageNet; images are needed only "
        "where the name does not say its sizes",
        group="data",
        selects=True,
    )
    data_root: str = flag("data", "-data", help="folder of the data sets", group="data", identity=False)
    paper_json: bool = flag(
        False,
        help="write results in the layout of the paper's own code, too, into a folder of the record's name",
        group="output",
        selects=True,
    )

    # 2 as well: layers that share their filters are pooled and corrected for once
    revision: ClassVar[int] = 2  # 2: distances from the initial weights that the paper's code puts beside a snapshot
    columns: ClassVar[Columns] = COLUMNS
    summary: ClassVar[Summary | None] = Summary.of("epoch layer filters", "mass z mean l2_distance")

    @classmethod
    def settings(cls, values: dict) -> dict:
        """A type without any weights asks for one fresh network, as it does in the paper's code."""
        paths, kind = input_files.split_type(tuple(cls.value(values, "model_path")))
        asked = [cls.value(values, name) for name in ("random", "pretrained")]
        return super().settings(values | {"random": 1} if kind and not paths and not any(asked) else values)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.random or self.pretrained) and not self.model_type:
            raise UsageError("--random and --pretrained need a type, such as vgg11, as the last word before the flags")
        if not self.paths and not self.random and not self.pretrained:
            raise UsageError("MODEL_PATH is required: checkpoints, folders of training runs, or a type with --random N")

    def work(self) -> list[str]:
        return ["passes:     none over data; every checkpoint is read once"]

    def inputs(self) -> dict[str, list[Path]]:
        initial = {path for found in super().inputs().values() for path in map(_beside, found) if path}
        if self.init_from:
            initial = {input_files.locate(self, self.init_from)}
        fresh = self.random or self.pretrained
        data = (
            input_files.data_files(self, self.dataset) if fresh and self.dataset and not datasets.shape(self.dataset) else {}
        )
        return super().inputs() | {str(path): [path] for path in sorted(initial)} | data


def _beside(file: Path) -> Path | None:
    """The initial weights in a snapshot's folder: ours, or those of the paper's code, `lenet_init_0.pt` of `lenet_20.pt`."""
    stem = file.stem.rpartition("_")[0]
    own = stem.endswith(("_init", "_pretrained"))  # an initial one itself, or a snapshot of a pretrained network
    theirs = [f"{stem}_0.pt"] if own else [f"{stem}_init_0.pt", f"{stem}_pretrained_0.pt"]
    return next((path for path in map(file.with_name, ["init.pt", *theirs]) if path.exists()), None)
