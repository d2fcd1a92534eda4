"""The flags of `exec_stitch_ood.py`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib.core.errors import UsageError
from lib.experiments import EXPERIMENTS
from lib.experiments.columns.stitch_ood import COLUMNS
from lib.runs import input_files
from lib.runs.cli import DeviceConfig, SeedConfig, at_least, flag
from lib.runs.columns import Columns, Summary
from lib.stitching import detector_files, records
from lib.stitching.detector_files import Detector
from lib.stitching.records import Grid


@dataclass(frozen=True, kw_only=True)
class StitchOodConfig(DeviceConfig, SeedConfig):
    """Accuracy of stitched networks, and whether the stitched representations are in distribution."""

    common: ClassVar[str] = "dataset id_dataset sanity fit_on detectors batch_size gpu seed plan"

    stitch_run: tuple[str, ...] = flag(
        (),
        positional=True,
        label="{}",
        help="records of exec_stitch.py, and folders of them",
        group="network",
        selects=True,
        needed=True,
    )
    dataset: str = flag(
        "",
        "-d",
        label="{}",
        help="data set whose images pass the stitched networks; default: the test images of the record's data set",
        group="data",
        selects=True,
    )
    id_dataset: str = flag("", "-idd", help="in-distribution data set; default: that of -d", group="data")
    id_root: str = flag(
        "", "-iddata", help="folder of the data set of -idd; default: that of -data", group="data", identity=False
    )
    sanity: tuple[str, ...] = flag(
        (),
        "-scd",
        help="data sets whose unstitched representations are scored too, as a sanity check of the detectors",
        group="data",
        selects=True,
        metavar="DATASET",
    )
    sanity_root: str = flag(
        "", "-scdata", help="folder of the data sets of -scd; default: that of -data", group="data", identity=False
    )
    fit_on: str = flag(
        "",
        help="in-distribution images whose energies centre and scale the two-sided AUROC; default: the "
        "training split of -idd",
        group="data",
        metavar="DATASET",
    )
    fit_examples: int = flag(1000, check=at_least(2), help="images of --fit-on that are used at most", group="data")
    detectors: tuple[str, ...] = flag(
        ("repr_cls_ood_detectors",),
        "-detectors",
        help="detectors that exec_ood_detector.py has trained, and folders of them",
        group="network",
        selects=True,
    )

    # 2 as well: images of 16 bits and floats are as bright as their type says, own images are upright
    revision: ClassVar[int] = 2  # since 2 an energy that ties with the threshold of fpr95 counts as in distribution
    reads_records: ClassVar[bool] = True
    columns: ClassVar[Columns] = COLUMNS
    summary: ClassVar[Summary | None] = Summary.of(
        "kind method data front_layer end_layer stitch_rank pinv_rank n",
        "accuracy auroc auroc_two_sided aupr_in fpr95",
        lambda row: row.get("missing") is None,
    )

    def answer(self) -> str | None:
        if not self.stitch_run:
            raise UsageError(
                "STITCH_RUN is required: a record of exec_stitch.py, or a folder of them, such as results/stitch"
            )
        return None

    def work(self) -> list[str]:
        grids = records.read(self, self.stitch_run, EXPERIMENTS["stitch"].revision)
        return [
            "passes:     one of each network over the data, for every grid",
            *(
                f"grid:       {grid.config['front_path']} into {grid.config['end_path']}, {grid.method}: "
                f"{len(grid.cells)} stitches, {len(grid.missing())} missing"
                for grid in grids
            ),
        ]

    def inputs(self) -> dict[str, list[Path]]:
        found = {}
        for grid in records.read(self, self.stitch_run, EXPERIMENTS["stitch"].revision):
            for stored in grid.cells.values():
                found[str(stored.record)] = [path for path in (stored.record, stored.arrays) if path]
            found |= input_files.checkpoint_files(self, grid.config["front_path"], grid.config["end_path"])
            found |= {str(detector.path): [detector.path] for detector in self.detectors_of(grid).values()}
            for config, name in ((self, self.data_of(grid)), (self.of_id, self.id_dataset), (self.of_id, self.fit_on)):
                found |= input_files.data_files(config, name) if name else {}
        return found | input_files.data_files(self.of_sanity, *self.sanity)

    def implied(self) -> dict[str, list[Path]]:
        grids = records.read(self, self.stitch_run, EXPERIMENTS["stitch"].revision)
        paths = [path for grid in grids for path in (grid.config["front_path"], grid.config["end_path"])]
        return super().implied() | input_files.implied_files(self, dict.fromkeys(paths, ""))

    def detectors_of(self, grid: Grid) -> dict[str, Detector]:
        """The detector of every end layer of a grid that has one. Raises `UserError` where one has several."""
        return detector_files.of_network(
            detector_files.find(self, self.detectors), grid.networks[1], grid.config["end_path"], grid.end_layers()
        )

    def data_of(self, grid: Grid) -> str:
        """The data set that is stitched: -d, else that of the grid's records."""
        return self.dataset or grid.config["dataset"]

    @property
    def of_id(self) -> "StitchOodConfig":
        """The configuration with the data root of -idd."""
        return dataclasses.replace(self, data_root=self.id_root or self.data_root)

    @property
    def of_sanity(self) -> "StitchOodConfig":
        """The configuration with the data root of -scd."""
        return dataclasses.replace(self, data_root=self.sanity_root or self.data_root)
