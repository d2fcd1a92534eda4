"""The flags of `exec_train.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib.experiments.columns.train import COLUMNS
from lib.runs import input_files
from lib.runs.columns import Columns, Summary
from lib.training import run_folder
from lib.training.flags import ATTACKING, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainingConfig):
    """Trains a network on a data set."""

    common: ClassVar[str] = "dataset epochs learning_rate optimizer schedule loss batch_size gpu seed plan"

    parallel: ClassVar = "itself"
    takes_features: ClassVar[bool] = True
    aside: ClassVar[tuple[str, ...]] = ("--models-dir", "{models}")
    # 2: L2 adversarial training starts from the point of the nearest-category paper's code; its model strings imply the
    # schedule of that code; small_cnn, preact_resnet* and wide_resnet_* are the papers' functions, and types whose published
    # networks normalise inside are trained so; a .tar snapshot goes on in its epoch; attacks draw directions only where a
    # gradient is zero; images of 16 bits and floats are as bright as their type says, own images are upright
    revision: ClassVar[int] = 2
    columns: ClassVar[Columns] = COLUMNS
    summary: ClassVar[Summary | None] = Summary.of(
        "selected_on", "epoch train_accuracy val_accuracy", lambda row: row.get("best")
    )

    def check_inputs(self) -> None:
        super().check_inputs()
        input_files.check_checkpoints(self, {self.resume_from: self.model_type})

    def answer(self) -> str | None:
        if not self.list_layers and not self.eval_regularization_loss:
            return None
        self.check_inputs()
        from lib.training import loop, setup

        network, description = setup.start(self, setup.splits(self)[0])
        if self.eval_regularization_loss:
            norms, squares = loop.norms(network), loop.penalty(network, self.weight_decay)
            return (
                f"{self.weight_decay * norms:.6g}: weight decay {self.weight_decay:g} times the sum of the L2 norms of all "
                f"weights; half the decay times their squares, whose gradient is the decay's, is {squares:.6g}"
            )
        from lib.runs import loading

        return loading.layer_table(network, description.channels, description.image_size or 32)

    def work(self) -> list[str]:
        from lib.runs import plan
        from lib.training import setup

        network, description, data = setup.planned(self)
        first = self.start_epoch or 0
        attacked = 1 + self.attack_steps if self.loss in ATTACKING else 1
        lines = plan.of_training(self, network, description, data, self.epochs - first, attacked)
        saved = {0, *range(1, self.snapshot_all_until + 1), self.epochs}
        saved |= set(range(self.snapshot_every, self.epochs + 1, self.snapshot_every)) if self.snapshot_every else set()
        count = len([epoch for epoch in saved if epoch <= self.epochs]) + 1  # and the best
        lines.append(plan.of_checkpoint_files(network, count, states={"adam": 2, "adamw": 2}.get(self.optimizer, 1)))
        return [f"recipe:     {self.recipe}, for what no flag states", *lines] if self.recipe else lines

    def inputs(self) -> dict[str, list[Path]]:
        files_read = input_files.data_files(self, self.dataset, *([self.outliers] if self.outliers else []))
        return files_read | (input_files.checkpoint_files(self, self.resume_from) if self.resume_from else {})

    def implied(self) -> dict[str, list[Path]]:
        started = {self.resume_from: ""} if self.resume_from else {}
        return super().implied() | input_files.type_files(self.model_type) | input_files.implied_files(self, started)

    def outputs(self) -> list[Path]:
        last = "best.pt" if self.kill_plateaus else f"model_{self.epochs}.pt"  # which epoch is the last is not known
        return [run_folder.folder(self) / last]
