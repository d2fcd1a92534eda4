"""The flags of `exec_ood_detector.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib.core.errors import UsageError
from lib.experiments.columns.ood_detector import COLUMNS
from lib.runs import input_files
from lib.runs.columns import Columns, Summary
from lib.stitching import detector_files
from lib.stitching.flags import DetectorConfig
from lib.training import run_folder


@dataclass(frozen=True, kw_only=True)
class OodDetectorConfig(DetectorConfig):
    """Trains a classifier of what a layer puts out, and fine-tunes it such that its energy tells outliers."""

    common: ClassVar[str] = "dataset ft_outliers epochs ft_epochs learning_rate list_layers batch_size gpu seed plan"

    revision: ClassVar[int] = 2  # 2: transformers that classify tokens are drawn in another order
    aside: ClassVar[tuple[str, ...]] = ("--models-dir", "{models}", "-fdir", "detectors")
    # 2: images of 16 bits and floats are as bright as their type says, own images are upright
    revision: ClassVar[int] = 2
    columns: ClassVar[Columns] = COLUMNS
    summary: ClassVar[Summary | None] = Summary.of(
        "model_type layer phase epoch outliers",
        "train_accuracy val_accuracy val_loss val_energy",
        lambda row: row.get("detector"),
    )

    def answer(self) -> str | None:
        if not self.source_path or not (self.layer or self.list_layers):
            raise UsageError("SOURCE_PATH SOURCE_TYPE LAYER ... are required: a checkpoint, its type or auto, and layers")
        return self.layer_tables()

    @property
    def networks(self) -> dict[str, str]:
        return {self.source_path: self.source_type}

    def work(self) -> list[str]:
        from lib.runs import plan
        from lib.stitching import grid

        def chosen(checkpoint, listed):
            return grid.choose(checkpoint, listed, self.layer, "LAYER")

        data = self.dataset, *filter(None, (self.ft_id, self.ft_outliers))
        return plan.of_checkpoints(
            self,
            [(self.source_path, self.source_type, chosen)],
            data,
            f"{self.epochs} epochs of a classifier per layer, {self.ft_epochs} of its fine-tuning",
            besides="training and fine-tuning the classifiers",
        )

    def inputs(self) -> dict[str, list[Path]]:
        found = input_files.checkpoint_files(self, self.source_path)
        for name, config in ((self.dataset, self), (self.ft_id, self.of_ft_id), (self.ft_outliers, self.of_outliers)):
            found |= input_files.data_files(config, name) if name else {}
        return found

    def outputs(self) -> list[Path]:
        # which layers a glob stands for is known from the folders that they have
        folder = run_folder.folder(self)
        layers = sorted(path.parent.name for path in folder.glob(f"*/{self.last}"))
        return [detector_files.path_of(self, layer) for layer in layers] or [folder / "*" / self.last]
