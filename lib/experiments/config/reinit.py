"""The flags of `exec_reinit.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib.core.errors import UsageError
from lib.experiments.columns.reinit import COLUMNS
from lib.reinit import weight_sources
from lib.runs import input_files
from lib.runs.cli import SeedConfig, above, at_least, flag
from lib.runs.columns import Columns, Summary
from lib.runs.network_flags import NetworkConfig


@dataclass(frozen=True, kw_only=True)
class ReinitConfig(NetworkConfig, SeedConfig):
    """Accuracy with one layer's weights taken from another epoch, or drawn anew."""

    parallel: ClassVar = "passes"
    common: ClassVar[str] = "dataset layers inits_from rand what criticality list_layers batch_size gpu seed plan"

    dataset: str = flag(
        "",
        "-d",
        label="{}",
        help="data set to evaluate on; default: the test split of the set that the network was trained on",
        group="data",
        selects=True,
    )
    inits_from: tuple[str, ...] = flag(
        (),
        help="weights that layers are given: checkpoints, folders of training runs, or text files with a path per line",
        group="network",
        selects=True,
        metavar="PATH",
    )
    rand: int = flag(
        0, bare=1, check=at_least(1), help="number of fresh draws that layers are given; 1 without a number", selects=True
    )
    layers: tuple[str, ...] = flag(
        (),
        "-l",
        commas=True,
        help="layers that are re-initialised: names or globs, cuts, all; default: every convolution but 1x1",
        group="network",
    )
    what: str = flag(
        "weights",
        choices=("weights", "weights+bn"),
        help="what is replaced: the layer's own weights and biases, or also the batch normalisation behind it",
    )
    recalibrate_bn: bool = flag(
        False, help="estimate running statistics of batch normalisations anew for every cell, on the images of --fit-on"
    )
    criticality: float | None = flag(
        None,
        bare=0.1,
        check=above(0),
        help="measure module criticality, too, on the images of --fit-on, at this tolerated rise of the loss "
        "in nats (0.1 without a number); needs the initial weights",
        selects=("predictor", "criticality"),
    )
    fit_on: str = flag(
        "",
        help="images for --recalibrate-bn and --criticality; default: the training split of -d",
        group="data",
        metavar="DATASET",
    )
    fit_examples: int = flag(1000, check=at_least(2), help="images of --fit-on that are used at most", group="data")
    stack: int | None = flag(
        None,
        check=at_least(1),
        help="number of sources that share one run of what follows the layer; 1 is exact to the bit, more to "
        "rounding; default: up to 8, by memory",
        group="machine",
        selects=True,
    )
    fold_pool: bool = flag(
        False,
        help="sum the first linear layer's weights over the equal outputs of the pool before it "
        "(VGGs at 32 px); logits equal up to rounding",
    )
    paper_json: bool = flag(
        False,
        help="write results in the layout of the paper's own code, too, into a folder of the record's name",
        group="output",
        selects=True,
    )

    # 2 as well: images of 16 bits and floats are as bright as their type says, own images are upright
    # 2 as well: criticality of sets that lack classes of the network, or have them in another order
    # 2 as well: a layer is reset in all its runs, and wherever its weights are shared, with stacked sources, too
    revision: ClassVar[int] = 2  # 2: partial_p of few layers was too small; no p that cannot reach 0.05
    columns: ClassVar[Columns] = COLUMNS
    summary: ClassVar[Summary | None] = Summary.of(
        "data source layer predictor",
        "accuracy relative_drop spearman p_value partial partial_p",
        lambda row: row.get("status") != "missing",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.inits_from and not self.rand and not self.list_layers:
            raise UsageError("--inits-from or --rand is required: the weights that layers are given")

    def work(self) -> list[str]:
        import torch

        from lib.reinit import targets
        from lib.runs import plan

        def chosen(checkpoint, listed):
            size = checkpoint.description.image_size or 32
            return targets.choose(
                checkpoint.network, torch.zeros(1, checkpoint.description.channels, size, size), self.layers
            )

        return plan.of_checkpoints(
            self,
            [(self.model_path, self.model_type, chosen)],
            (self.dataset,),
            f"one over the data set, with what follows each layer once more for {len(weight_sources.files(self)[0])} files "
            f"and {self.rand} draws",
            besides="what follows each layer, once for every source of weights",
        )

    def check_inputs(self) -> None:
        super().check_inputs()
        weight_sources.require(self)

    def inputs(self) -> dict[str, list[Path]]:
        lists = {word: [input_files.locate(self, word)] for word in self.inits_from if weight_sources.is_list(self, word)}
        named = [name for name in (self.dataset, self.fit_on) if name]
        return (
            super().inputs()
            | lists
            | {str(path): [path] for path in weight_sources.files(self)[0]}
            | input_files.data_files(self, *named)
        )
