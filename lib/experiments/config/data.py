"""The flags of `exec_data.py`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib import datasets
from lib.core import cache_folders, text_table
from lib.core.errors import UsageError, UserError
from lib.experiments import EXPERIMENTS
from lib.experiments.columns.data import COLUMNS
from lib.representations import feature_cache
from lib.runs import input_files, revisions
from lib.runs.cli import DeviceConfig, SeedConfig, flag
from lib.runs.columns import Columns

# action -> (what it does, the numbers of arguments it may take)
ACTIONS = {
    "list": ("every known data set, whether it is there and what puts it there", (0,)),
    "show": ("NAME: counts, statistics and a contact sheet of its splits", (1,)),
    "prepare": ("NAME: download, check and unpack it under the data root; continues where it was interrupted", (1,)),
    "import": (
        "SOURCE TARGET: write any data set as an array, x.npy, or as a folder with images and labels.csv; arrays of floats, "
        "of 16 bits or with channels first are converted",
        (2,),
    ),
    "verify": ("NAME: compare its files with their known sizes and checksums, decode every image", (1,)),
    "check": ("what earlier versions of a method have left: records, checkpoints, caches", (0,)),
    "cache": (
        "[GIB]: the features that probes keep under --cache-dir, with sizes; with a number those used longest ago go "
        "until no more is left, 0 clears all",
        (0, 1),
    ),
    "verify-cache": ("every array that is kept under --cache-dir against its checksums; a damaged one is removed", (0,)),
    "convert-checkpoint": (
        "OLD NEW: read a checkpoint with full unpickling, which runs code it may hold, and write its plain state dict",
        (2,),
    ),
}


@dataclass(frozen=True, kw_only=True)
class DataConfig(DeviceConfig, SeedConfig):
    """Data sets: what there is and what is in it."""

    action: str = flag(
        positional=True, choices=ACTIONS, help="; ".join(f"{name} {text}" for name, (text, _) in ACTIONS.items())
    )
    arguments: tuple[str, ...] = flag((), positional=True, label="{}", help="what the action acts on")

    # 2: images of 16 bits and floats are as bright as their type says, own images are upright
    revision: ClassVar[int] = 2
    columns: ClassVar[Columns] = COLUMNS

    def __post_init__(self) -> None:
        super().__post_init__()
        text, counts = ACTIONS[self.action]
        if len(self.arguments) not in counts:
            wanted = " or ".join(map(str, counts))
            raise UsageError(f"{self.action} takes {wanted} arguments, not {len(self.arguments)}: {text}")
        if self.action == "cache" and self.arguments and not _is_size(self.arguments[0]):
            raise UsageError(f"cache {self.arguments[0]}: not a number of GiB, 0 or more")

    def work(self) -> list[str]:
        return ["passes:     one over the images"] if self.action == "show" else []

    def inputs(self) -> dict[str, list[Path]]:
        return input_files.data_files(self, *self.arguments) if self.action == "show" else {}

    def repeatable(self) -> bool:
        return self.action == "show"

    def answer(self) -> str | None:
        from lib.datasets.storage import download

        if self.action == "list":
            return _listing(self)
        if self.action == "prepare":
            return "\n".join(map(str, download.prepare(self.arguments[0], self.data_root, progress=_progress(self))))
        if self.action == "import":
            from lib.datasets.storage import export

            source, target = self.arguments
            return "\n".join(export.export(source, self.data_root, Path(target), self.cache_dir))
        if self.action == "verify":
            return _verified(self)
        if self.action == "check":
            rows = revisions.earlier(EXPERIMENTS, self.results_dir, self.models_dir, self.cache_dir)
            return text_table.text(rows) if rows else "all records, checkpoints and caches are of the present versions"
        if self.action == "cache":
            return _cache(self)
        if self.action == "verify-cache":
            return _verified_cache(self)
        if self.action == "convert-checkpoint":
            return _convert(*map(Path, self.arguments))
        return None


def _listing(config: DataConfig) -> str:
    rows = [
        {"data": name, "state": state, "what": about} for name, (about, state) in datasets.known(config.data_root).items()
    ]
    return text_table.text(rows)


def _verified(config: DataConfig) -> str:
    """A line per file or count that was compared; raises `UserError` if one is not as expected."""
    from lib.datasets.storage import verify

    name = config.arguments[0]
    findings = verify.verify(name, config.data_root, cache_dir=config.cache_dir)
    bad = [finding for finding in findings if not finding.good]
    if bad:
        raise UserError(
            f"{name}: {len(bad)} of {len(findings)} checks failed; first: {bad[0].what} is {bad[0].found}, "
            f"not {bad[0].expected}"
        )
    return text_table.text([{"checked": finding.what, "found": finding.found} for finding in findings])


def _cache(config: DataConfig) -> str:
    """What is kept, after what had to go is gone."""
    lines = []
    if config.arguments:
        gone = feature_cache.prune(config.cache_dir, float(config.arguments[0]) * feature_cache.GIB)
        lines = [f"removed {len(gone)} entries, {sum(entry.size for entry in gone) / feature_cache.GIB:.3f} GiB"]
    return "\n".join([*lines, text_table.text(feature_cache.table(feature_cache.entries(config.cache_dir)))])


def _verified_cache(config: DataConfig) -> str:
    """What was removed, and how much was compared."""
    from lib.core import checked_arrays

    paths = [path for path in cache_folders.files_of(config.cache_dir) if not path.name.startswith(".")]
    wrong = {path: problem for path in paths if (problem := checked_arrays.problem(path))}
    size = sum(path.stat().st_size for path in paths) / feature_cache.GIB
    for path in wrong:
        path.unlink()
    lines = [f"{problem}; {path.name} is removed" for path, problem in wrong.items()]
    return "\n".join([*lines, f"{len(paths)} arrays, {size:.3f} GiB: {len(wrong)} damaged"])


def _is_size(text: str) -> bool:
    try:
        return 0 <= float(text) < float("inf")
    except ValueError:
        return False


def _progress(config: DataConfig):
    def show(file: str, done: int, total: int | None) -> None:
        if sys.stderr.isatty() and not config.quiet:
            share = f"{100 * done / total:.0f} %" if total else f"{done >> 20} MiB"
            print(f"\r{file}  {share}  ", end="", file=sys.stderr)

    return show


def _convert(source: Path, target: Path) -> str:
    if not source.is_file():
        raise UserError(f"{source}: no such file")
    if target.exists():
        raise UserError(f"{target} is there already; it is not replaced")
    from lib.models import checkpoints

    count = checkpoints.convert(source, target)
    return f"{target}: {count} tensors"
