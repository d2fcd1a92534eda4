"""The flags of `exec_train.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib.runs import input_files
from lib.runs.columns import Columns, Summary
from lib.training import run_folder
from lib.training.flags import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainingConfig):
    """Trains a network on a data set."""

    parallel: ClassVar[bool] = True
    takes_features: ClassVar[bool] = True
    aside: ClassVar[tuple[str, ...]] = ("--models-dir", "{models}")
    # 2 as well: images of 16 bits and floats are as bright as their type says, own images are upright
    revision: ClassVar[int] = 2  # 2: L2 adversarial training starts from the point of the nearest-category paper's code
    columns: ClassVar[Columns] = Columns.of(
        numbers="""epoch train_loss train_accuracy val_loss val_accuracy n_val learning_rate processes images_per_second
            seconds penalty train_eval_loss train_eval_accuracy""",
        words="selected_on precision batchnorm",
        truths="best",
    )
    summary: ClassVar[Summary | None] = Summary.of(
        "selected_on", "epoch train_accuracy val_accuracy", lambda row: row.get("best")
    )

    def check_inputs(self) -> None:
        super().check_inputs()
        input_files.check_checkpoints(self, {self.resume_from: self.model_type})

    def answer(self) -> str | None:
        if not self.list_layers:
            return None
        self.check_inputs()
        from lib.training import setup

        network, description = setup.start(self, setup.splits(self)[0])
        from lib.runs import loading

        return loading.layer_table(network, description.channels, description.image_size or 32)

    def work(self) -> list[str]:
        from lib.runs import plan
        from lib.training import setup

        network, description = setup.start(self, setup.splits(self)[0])
        passes = f"{self.epochs} epochs of training, each followed by one over the validation images"
        return plan.of_training(network, description, self.dataset, self.batch_size, passes)

    def inputs(self) -> dict[str, list[Path]]:
        files_read = input_files.data_files(self, self.dataset, *([self.outliers] if self.outliers else []))
        return files_read | (input_files.checkpoint_files(self, self.resume_from) if self.resume_from else {})

    def outputs(self) -> list[Path]:
        last = "best.pt" if self.kill_plateaus else f"model_{self.epochs}.pt"  # which epoch is the last is not known
        return [run_folder.folder(self) / last]
