"""The flags of `exec_ood_layers.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib.core.errors import UsageError
from lib.datasets import openood
from lib.experiments.columns.ood_layers import COLUMNS
from lib.ood.flags import AGGREGATORS, BASELINES, CHOICES, DETECTORS
from lib.runs import input_files
from lib.runs.cli import SeedConfig, above, at_least, flag
from lib.runs.columns import Columns, Summary
from lib.runs.network_flags import NetworkConfig


@dataclass(frozen=True, kw_only=True)
class OodLayersConfig(NetworkConfig, SeedConfig):
    """AUROC of every layer's energy between in- and out-of-distribution images, and of scores made from several."""

    parallel: ClassVar = "passes"
    common: ClassVar[str] = "dataset ood layers aggregate baselines choose early_exit list_layers batch_size gpu plan"

    dataset: str = flag(
        "",
        "-d",
        label="{}",
        help="in-distribution data; default: the test split of the set that the network was trained on",
        group="data",
        selects=True,
    )
    ood: tuple[str, ...] = flag(
        (),
        "-ood",
        label="{}",
        help="out-of-distribution data sets; near, far: OpenOOD's groups "
        "for the in-distribution data; NAME-c: every corruption and "
        "severity",
        group="data",
        selects=True,
        needed=True,
        metavar="DATASET",
    )
    layers: tuple[str, ...] = flag(
        (),
        "-l",
        commas=True,
        help="layers whose energies are compared: names or globs, cuts, all, role:ROLE; default: every "
        "Conv2d, Linear and BatchNorm2d",
        group="network",
    )
    temperature: tuple[float, ...] = flag((1.0,), "-T", check=above(0), help="temperatures of the energy", selects=True)
    aggregate: tuple[str, ...] = flag(
        (),
        commas=True,
        choices=AGGREGATORS,
        help="scores from the energies of all layers: " + ", ".join(AGGREGATORS),
        selects=True,
    )
    baselines: tuple[str, ...] = flag(
        (),
        commas=True,
        choices=(*BASELINES, "all"),
        help="scores of the last layer: " + ", ".join(BASELINES) + "; all",
        selects=True,
    )
    detectors: tuple[str, ...] = flag(
        (),
        "--layer-detectors",
        commas=True,
        choices=(*DETECTORS, "all"),
        help="scores of every layer's pooled output: " + ", ".join(DETECTORS) + "; all",
        selects=True,
    )
    choose: tuple[str, ...] = flag(
        (),
        commas=True,
        choices=CHOICES,
        help="choose one layer by " + ", ".join(f"{name} ({what})" for name, what in CHOICES.items()),
        selects=True,
    )
    early_exit: float | None = flag(
        None,
        help="stop the forward pass at the first layer that flags an image, with this "
        "rate of false alarms over all exits together",
        selects=("score", "early exit"),
    )
    exits: tuple[str, ...] = flag(
        (),
        commas=True,
        help="cuts at which --early-exit may stop; default: the last before each further convolution or linear map",
        selects=("score", "early exit"),
    )
    conformal: bool = flag(
        False,
        help="add 95 % intervals of AUROC and FPR that hold for scores of any distribution and for few images",
        selects=True,
    )
    fit_on: str = flag(
        "",
        help="in-distribution images that scales and detectors are fitted on, and half of them for the "
        "threshold of --early-exit; default: the training split of -d, and for that threshold half of "
        "-d, which is then left out of the rows",
        group="data",
        metavar="DATASET",
    )
    fit_examples: int = flag(5000, check=at_least(2), help="images of --fit-on that are used at most", group="data")
    val_ood: tuple[str, ...] = flag(
        (),
        help="validation outliers for --aggregate logreg, other images than those of -ood",
        group="data",
        metavar="DATASET",
    )

    # since 2 AUROCs have an interval at 0 and 1 too, and none for fewer than 3 images; scores that tie with the threshold of
    # fpr95 count as in distribution; --choose transfer tests on other images than it chooses on; --early-exit is calibrated
    # on images that the network has not learnt from; halves are drawn; layers with the same energies are one
    # 2 as well: images of 16 bits and floats are as bright as their type says, own images are upright
    # 2 as well: a row per image of layers whose first axis is another
    # 2 as well: mac_fraction and early exits count what convolutions and attention do that have modules inside;
    # of layers that run several times mac_fraction, execution_index and dim are of each run
    revision: ClassVar[int] = 2
    columns: ClassVar[Columns] = COLUMNS
    summary: ClassVar[Summary | None] = Summary.of(
        "id ood variant T layer score needs", "auroc auroc_two_sided fpr95 gain_bound"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ood and not self.list_layers:
            raise UsageError("-ood is required: one or more out-of-distribution data sets")
        if "logreg" in self.aggregate and not self.val_ood:
            raise UsageError("--aggregate logreg needs --val-ood: outliers to fit it on")
        if self.val_ood and "logreg" not in self.aggregate:
            raise UsageError("--val-ood is for --aggregate logreg")
        if self.early_exit is not None and not 0 < self.early_exit < 1:
            raise UsageError(f"--early-exit {self.early_exit}: a rate of false alarms lies between 0 and 1")
        if self.exits and self.early_exit is None:
            raise UsageError("--exits is for --early-exit")

    def work(self) -> list[str]:
        from lib.ood import layer_energies
        from lib.runs import plan

        inside = self.dataset or input_files.trained_on(self, self.model_path)
        data = (self.dataset, *openood.expand(self.ood, inside, self.data_root), *self.val_ood)
        return plan.of_checkpoints(
            self,
            [
                (
                    self.model_path,
                    self.model_type,
                    lambda checkpoint, listed: layer_energies.choose(checkpoint.network, listed, self.layers),
                )
            ],
            data,
            f"one over each data set and over at most {self.fit_examples} images to fit on, for all layers together",
            besides="the pass over the images to fit on, scores and intervals",
        )

    def inputs(self) -> dict[str, list[Path]]:
        named = [name for name in (self.dataset, self.fit_on, *self.val_ood) if name]
        inside = self.dataset or input_files.trained_on(self, self.model_path)
        return super().inputs() | input_files.data_files(self, *named, *openood.expand(self.ood, inside, self.data_root))
