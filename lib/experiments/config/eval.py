"""The flags of `exec_eval.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib.attacks.flags import ATTACKS, PerturbationConfig
from lib.core import terminal, text_table
from lib.core.errors import UsageError
from lib.experiments import EXPERIMENTS
from lib.experiments.columns.eval import COLUMNS
from lib.runs import input_files, records
from lib.runs.cli import SeedConfig, at_least, flag
from lib.runs.columns import Columns, Summary
from lib.runs.network_flags import NetworkConfig


@dataclass(frozen=True, kw_only=True)
class EvalConfig(PerturbationConfig, NetworkConfig, SeedConfig):
    """Accuracy, loss, calibration and robust accuracy of a checkpoint."""

    parallel: ClassVar = "passes"
    common: ClassVar[str] = "dataset attack eps save_logits show_list list_layers batch_size gpu seed plan"

    dataset: tuple[str, ...] = flag(
        (),
        "-d",
        label="{}",
        help="data sets to evaluate on; default: the test split of the set that the network was trained on",
        group="data",
        selects=True,
    )
    save_logits: bool = flag(False, help="store every image's logits and label in the .npz", group="output")
    attack: str = flag(
        "",
        choices=ATTACKS,
        help="attack within --eps under which accuracy is measured, too: pgd; apgd and aa, by pyautoattack",
    )
    restarts: int = flag(1, check=at_least(1), help="restarts of --attack pgd and apgd; an image must survive all of them")
    show_list: bool = flag(
        False, "--list", help="list the runs and checkpoints there are, and stop", group="output", identity=False
    )

    takes_features: ClassVar[bool] = True

    # 2: L2 attacks start from the point of the nearest-category paper's code, and draw directions only where they need them;
    # images of 16 bits and floats are as bright as their type says, own images are upright
    # 2 as well: images without a label are in no group
    revision: ClassVar[int] = 2
    columns: ClassVar[Columns] = COLUMNS
    summary: ClassVar[Summary | None] = Summary.of(
        "data split variant n", "accuracy loss ece", lambda row: row.get("subset") == "all"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attack and self.eps is None:
            raise UsageError(f"--eps is required: the radius of --attack {self.attack}")
        if self.eps is not None and not self.attack:
            raise UsageError("--attack is required: --eps is its radius")

    def work(self) -> list[str]:
        from lib.runs import plan

        attacked = f", and {self.attack} on the images that are right" if self.attack else ""
        return plan.of_checkpoints(
            self,
            [(self.model_path, self.model_type, None)],
            self.dataset or ("",),
            f"one over each data set{attacked}",
            besides=f"the attack, {self.attack}" if self.attack else "",
        )

    def answer(self) -> str | None:
        return _listing(self) if self.show_list else super().answer()

    def inputs(self) -> dict[str, list[Path]]:
        return super().inputs() | input_files.data_files(self, *self.dataset)


def _listing(config: EvalConfig) -> str:
    """The checkpoints and the records there are, as text."""
    checkpoints = [
        {"checkpoint": str(path), "MiB": round(path.stat().st_size / 2**20, 1)}
        for path in sorted(Path(config.models_dir).rglob("[!.]*.pt"))
    ]
    runs = [
        {"record": str(path), "rows": len(record["rows"]), "started": record["started"]}
        for path, record in records.records(config.results_dir, EXPERIMENTS)
    ]
    return "\n\n".join(
        text_table.text(rows, width=terminal.width(), rest=terminal.PIPED) if rows else f"no {what}"
        for rows, what in (
            (checkpoints, f"checkpoints under {config.models_dir}"),
            (runs, f"records under {config.results_dir}"),
        )
    )
