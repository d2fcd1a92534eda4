"""The flags of `exec_similarity.py`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib.core.errors import UsageError
from lib.experiments.columns.similarity import COLUMNS
from lib.runs import input_files, null_flags
from lib.runs.cli import SeedConfig, at_least, flag, swallowed
from lib.runs.columns import Columns, Summary
from lib.runs.network_flags import CheckpointsConfig

MEASURES = ("cka", "cka_debiased", "pwcca", "procrustes", "svcca", "mean_cca", "rsa", "knn_jaccard", "disagreement")


@dataclass(frozen=True, kw_only=True)
class SimilarityConfig(CheckpointsConfig, SeedConfig):
    """CKA, PWCCA, Procrustes and other indices between all layers of two networks."""

    common: ClassVar[str] = "dataset measures examples bootstrap list_layers batch_size gpu seed plan"

    model1_path: str = flag(
        "",
        positional=True,
        label="{}",
        help="checkpoint of the first network",
        group="network",
        network="front",
        needed=True,
    )
    model2_path: str = flag(
        "", positional=True, label="{}", help="checkpoint of the second network", group="network", network="end", needed=True
    )
    model1_type: str = flag(
        "auto",
        positional=True,
        check=input_files.check_type,
        help="type of the first network; auto: the one that its sidecar states",
        group="network",
        network_type=True,
    )
    model2_type: str = flag(
        "auto",
        positional=True,
        check=input_files.check_type,
        help="type of the second network; auto: the one that its sidecar states",
        group="network",
        network_type=True,
    )
    layers1: str = flag(
        "cuts",
        positional=True,
        check=input_files.check_layers,
        help="layers of the first network: names or globs joined by commas, cuts, all",
        group="network",
        selects=True,
    )
    layers2: str = flag(
        "",
        positional=True,
        check=input_files.check_layers,
        help="layers of the second network: names or globs joined by commas, cuts, all; default: the words "
        "given for the first",
        group="network",
        selects=True,
    )
    model1_ranks: tuple[int, ...] = flag(
        (),
        "-m1r",
        check=at_least(1),
        help="ranks to which the first network's channels are limited; default: none",
        selects=True,
    )
    model2_ranks: tuple[int, ...] = flag(
        (),
        "-m2r",
        check=at_least(1),
        help="ranks to which the second network's channels are limited; default: none",
        selects=True,
    )
    measures: tuple[str, ...] = flag(
        MEASURES[:4],
        choices=MEASURES,
        commas=True,
        help="similarity indices: " + ", ".join(MEASURES),
        selects=True,
    )
    examples: int = flag(
        1000, "-n", check=at_least(4), help="number of images, evenly spread over the data set", group="data"
    )
    bootstrap: int = flag(
        0, check=at_least(0), help="number of resamples of the images for standard errors; 0: none", selects=True
    )
    null: int = flag(
        0,
        check=at_least(0),
        help="number of permutations of the second network's images, shared by all layers, for what each index is by "
        "chance; 0: none",
        selects=True,
    )
    dataset: str = flag(
        "",
        "-d",
        label="{}",
        help="data set on whose images the networks are compared; default: the test split of the set that the first "
        "network was trained on",
        group="data",
        selects=True,
    )

    # 2: images of 16 bits and floats are as bright as their type says, own images are upright; a
    # row per image of layers whose first axis is another
    revision: ClassVar[int] = 2
    columns: ClassVar[Columns] = COLUMNS
    summary: ClassVar[Summary | None] = Summary.of("data n layer1 layer2 rank1 rank2", "cka cka_debiased pwcca procrustes")

    def __post_init__(self) -> None:
        super().__post_init__()
        null_flags.refuse_too_few(self.null, "permutations")

    def answer(self) -> str | None:
        if not self.model1_path or not self.model2_path:
            taken = swallowed(self, input_files.SUFFIXES)
            raise UsageError(
                "MODEL1_PATH and MODEL2_PATH are required: two checkpoints, such as models/a/model_5.pt" + taken
            )
        return self.layer_tables()

    @property
    def networks(self) -> dict[str, str]:
        return {self.model1_path: self.model1_type, self.model2_path: self.model2_type}

    def work(self) -> list[str]:
        from lib.models import cutting
        from lib.runs import plan

        def chosen(words):
            return lambda checkpoint, listed: cutting.tapped(listed, tuple(words.split(",")), "LAYERS")

        return plan.of_checkpoints(
            dataclasses.replace(self, max_examples=min(self.examples, self.max_examples or self.examples)),
            [
                (self.model1_path, self.model1_type, chosen(self.layers1)),
                (self.model2_path, self.model2_type, chosen(self.layers2 or self.layers1)),
            ],
            (self.dataset,),
            f"one over {self.examples} images through each network",
            besides="the indices of all pairs of layers",
        )

    def inputs(self) -> dict[str, list[Path]]:
        data = input_files.data_files(self, self.dataset) if self.dataset else {}
        return input_files.checkpoint_files(self, self.model1_path, self.model2_path) | data
