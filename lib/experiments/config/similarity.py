"""The flags of `exec_similarity.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib.core.errors import UsageError
from lib.runs import input_files
from lib.runs.cli import SeedConfig, at_least, flag
from lib.runs.columns import Columns, Summary
from lib.runs.network_flags import CheckpointsConfig

MEASURES = ("cka", "cka_debiased", "pwcca", "procrustes", "svcca", "mean_cca", "rsa", "knn_jaccard", "disagreement")

NULL = ("null_mean", "null_q95", "p_null", "p_best")  # columns of --null, each behind the name of an index
FEWEST_DRAWS = 19  # permutations that can bring p to 0.05


@dataclass(frozen=True, kw_only=True)
class SimilarityConfig(CheckpointsConfig, SeedConfig):
    """CKA, PWCCA, Procrustes and other indices between all layers of two networks."""

    model1_path: str = flag("", positional=True, label="{}", help="checkpoint of the first network", network="front")
    model2_path: str = flag("", positional=True, label="{}", help="checkpoint of the second network", network="end")
    model1_type: str = flag(
        "auto",
        positional=True,
        check=input_files.check_type,
        help="type of the first network; auto: the one its sidecar states",
        network_type=True,
    )
    model2_type: str = flag(
        "auto", positional=True, check=input_files.check_type, help="and of the second", network_type=True
    )
    layers1: str = flag(
        "cuts",
        positional=True,
        check=input_files.check_layers,
        help="layers of the first network: names or globs joined by commas, cuts, all",
        selects=True,
    )
    layers2: str = flag(
        "",
        positional=True,
        check=input_files.check_layers,
        help="and of the second; default: as those of the first",
        selects=True,
    )
    model1_ranks: tuple[int, ...] = flag(
        (),
        "-m1r",
        check=at_least(1),
        help="ranks to which the first network's channels are limited; default: none",
        selects=True,
    )
    model2_ranks: tuple[int, ...] = flag((), "-m2r", check=at_least(1), help="and those of the second's", selects=True)
    measures: tuple[str, ...] = flag(
        MEASURES[:4],
        choices=MEASURES,
        commas=True,
        help="which indices: " + ", ".join(MEASURES),
        selects=True,
    )
    examples: int = flag(1000, "-n", check=at_least(4), help="images, evenly spread over the data set")
    bootstrap: int = flag(0, check=at_least(0), help="resamples of the images for standard errors; 0: none", selects=True)
    null: int = flag(
        0,
        check=at_least(0),
        help="permutations of the second network's images, shared by all layers, for what each index is by chance; 0: none",
        selects=True,
    )
    dataset: str = flag(
        "",
        "-d",
        label="{}",
        help="images to compare on; default: the test split of the set that the first network was trained on",
        selects=True,
    )

    # 2: images of 16 bits and floats are as bright as their type says, own images are upright; a
    # row per image of layers whose first axis is another
    revision: ClassVar[int] = 2
    columns: ClassVar[Columns] = Columns.of(
        numbers=" ".join(
            ["rank1 rank2 n", *MEASURES] + [f"{name}_{column}" for name in MEASURES[:-1] for column in ("se", *NULL)]
        ),
        words="layer1 layer2 aliases1 aliases2 rows data split pwcca_weighs",
        images="data split",
        sets="data",
        shared={"front_layer": "layer1", "end_layer": "layer2", "front_rank": "rank1", "end_rank": "rank2"},
    )
    summary: ClassVar[Summary | None] = Summary.of("data n layer1 layer2 rank1 rank2", "cka cka_debiased pwcca procrustes")

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.null < FEWEST_DRAWS:
            raise UsageError(
                f"--null {self.null}: p of so few permutations is never 0.05 or less; {FEWEST_DRAWS} are the least"
            )

    def answer(self) -> str | None:
        if not self.model1_path or not self.model2_path:
            raise UsageError("MODEL1_PATH and MODEL2_PATH are required: two checkpoints, such as models/a/model_5.pt")
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
            self,
            [
                (self.model1_path, self.model1_type, chosen(self.layers1)),
                (self.model2_path, self.model2_type, chosen(self.layers2 or self.layers1)),
            ],
            (self.dataset,),
            f"one over {self.examples} images through each network",
        )

    def inputs(self) -> dict[str, list[Path]]:
        data = input_files.data_files(self, self.dataset) if self.dataset else {}
        return input_files.checkpoint_files(self, self.model1_path, self.model2_path) | data
