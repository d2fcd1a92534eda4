"""The flags of `exec_ncg.py`."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib.core.errors import UsageError
from lib.datasets import corruptions, names
from lib.experiments.columns.ncg import COLUMNS
from lib.runs import input_files, null_flags
from lib.runs.cli import SeedConfig, at_least, flag
from lib.runs.columns import Columns, Summary
from lib.runs.network_flags import NetworkConfig

SPACES = ("pixel", "feature")


@dataclass(frozen=True, kw_only=True)
class NcgConfig(NetworkConfig, SeedConfig):
    """How often a network answers with the label of the nearest training example."""

    parallel: ClassVar = "passes"
    common: ClassVar[str] = "dataset ood space against corruptions radius batch_size gpu seed plan"

    dataset: str = flag(
        "",
        "-d",
        label="{}",
        help="training data, in which neighbours are searched; default: the set that the network was trained on",
        group="data",
        selects=True,
    )
    ood: tuple[str, ...] = flag(
        (),
        "-ood",
        label="{}",
        help="data sets whose images are looked up; default: the class that -d holds out",
        group="data",
        selects=True,
        metavar="DATASET",
    )
    space: tuple[str, ...] = flag(
        (),
        choices=SPACES,
        commas=True,
        help="spaces in which distances are taken: pixel, feature; default: pixel; for a network of stored "
        "features, feature",
        selects=True,
    )
    layer: str = flag(
        "", help="layer of --space feature; default: the last cut before the last linear layer", group="network"
    )
    backbone: str = flag(
        "",
        help="checkpoint of the network that computes features; default: MODEL_PATH",
        group="network",
        network="backbone",
        metavar="CHECKPOINT",
    )
    against: str = flag(
        "",
        help="checkpoint of a second network, such as a naturally trained one, that is compared image by image",
        group="network",
        selects=True,
        network="against",
        metavar="CHECKPOINT",
    )
    corruptions: tuple[str, ...] = flag(
        (),
        commas=True,
        choices={"all": 0, **corruptions.CORRUPTIONS},
        help="corruptions of the test images that are evaluated, or all, at severities 1 to 5",
        group="data",
        selects=True,
    )
    radius: int = flag(
        0,
        check=at_least(0),
        help="images of each kind whose distance to the decision boundary is measured; 0: none",
        selects=("subset", "radius"),
    )
    null: int = flag(
        0,
        check=at_least(0),
        help="number of permutations of the answers, shared by all networks, images and spaces, for what each score is by "
        "chance; 0: none",
        selects=True,
    )
    engine: str = flag(
        "auto",
        choices=("auto", "faiss", "torch"),
        help="library that searches neighbours; the answers are the same",
        group="machine",
        identity=False,
    )

    takes_features: ClassVar[bool] = True

    # 2: attacks of --radius were compared before they were brought to the boundary; p_welch of hits that are all right
    # beside misses that are all wrong was left out
    # 2 as well: images of 16 bits and floats are as bright as their type says, own images are upright
    # 2 as well: p_permutation of many classes and few images is drawn from orders, not from tables
    # 2 as well: classes by their names, images without a label in no accuracy, slopes for each split
    revision: ClassVar[int] = 2
    columns: ClassVar[Columns] = COLUMNS
    summary: ClassVar[Summary | None] = Summary.of(
        "train data split variant space n",
        "ncg chance majority independence kappa accuracy mean_distance",
        lambda row: row.get("subset") == "all",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        null_flags.refuse_too_few(self.null, "permutations")
        if self.dataset and names.parse(self.dataset).split:
            raise UsageError(f"-d {self.dataset}: a data set without a split is named; its train and test are used")
        if "feature" not in self.space and (self.layer or self.backbone):
            raise UsageError("--layer and --backbone are for --space feature")

    def work(self) -> list[str]:
        from lib.runs import plan

        networks = [(path, kind, None) for path, kind in ((self.model_path, self.model_type), (self.against, "")) if path]
        return plan.of_checkpoints(
            self,
            networks,
            (self.dataset, *self.ood),
            "one over each data set; the distance of every image to every training image",
            besides="the search for neighbours" + (" and the distances to the boundary" if self.radius else ""),
        )

    @property
    def networks(self) -> dict[str, str]:
        return {self.model_path: self.model_type, self.against: "", self.backbone: ""}

    def corrupted(self, seen: str) -> list[str]:
        """The names of the test images of --corruptions, at every severity."""
        kinds = tuple(corruptions.CORRUPTIONS) if "all" in self.corruptions else self.corruptions
        return [f"{seen}-c:test/{kind}-{level}" for kind, level in itertools.product(kinds, corruptions.SEVERITIES)]

    def inputs(self) -> dict[str, list[Path]]:
        networks = [path for path in (self.backbone, self.against) if path]
        seen = self.dataset or input_files.trained_on(self, self.model_path)
        corrupted = self.corrupted(seen) if seen else []
        named = [name for name in (self.dataset, *self.ood, *corrupted) if name]
        return super().inputs() | input_files.checkpoint_files(self, *networks) | input_files.data_files(self, *named)
