"""The flags of `exec_data.py`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib import datasets
from lib.core import cache_folders, terminal, text_table
from lib.core.errors import UsageError, UserError
from lib.core.terminal import PIPED
from lib.experiments import EXPERIMENTS
from lib.experiments.columns.data import COLUMNS
from lib.representations import feature_cache
from lib.runs import input_files, revisions
from lib.runs.cli import DeviceConfig, SeedConfig, flag
from lib.runs.columns import Columns

# action -> (its arguments, how many these may be, what it does)
ACTIONS = {
    "list": ("", (0,), "every known data set, whether it is there and what puts it there"),
    "show": ("NAME", (1,), "counts, statistics and a contact sheet of the splits of a data set"),
    "prepare": ("NAME", (1,), "download, check and unpack a data set under -data; continues where it was interrupted"),
    "import": (
        "SOURCE TARGET",
        (2,),
        "write any data set as an array, x.npy, or as a folder with images and labels.csv; arrays of floats, of 16 bits or "
        "with channels first are converted",
    ),
    "verify": ("NAME", (1,), "compare a data set's files with their known sizes and checksums, decode every image"),
    "check": ("", (0,), "what earlier versions of a method have left: records, checkpoints, caches"),
    "cache": (
        "[GIB]",
        (0, 1),
        "features that probes keep under --cache-dir, with sizes; with a number those used longest ago are removed until no "
        "more is left, with 0 all",
    ),
    "verify-cache": ("", (0,), "compare every array under --cache-dir with its checksums, and remove damaged ones"),
    "convert-checkpoint": (
        "OLD NEW",
        (2,),
        "read a checkpoint with full unpickling, which runs code it may hold, and write its plain state dict",
    ),
    "add-head": (
        "OLD NEW TYPE CLASSES",
        (4,),
        "write a checkpoint of this type that has no head with a fresh one, drawn by --seed, without running code",
    ),
}


@dataclass(frozen=True, kw_only=True)
class DataConfig(DeviceConfig, SeedConfig):
    """Data sets: what there is and what is in it."""

    common: ClassVar[str] = "data_root max_examples plan"

    action: str = flag(
        positional=True,
        choices=ACTIONS,
        help="\n".join(f"{' '.join([name, *arguments.split()])}: {what}" for name, (arguments, _, what) in ACTIONS.items()),
        group="data",
    )
    arguments: tuple[str, ...] = flag((), positional=True, label="{}", help="arguments of the action", group="data")

    # 2: images of 16 bits and floats are as bright as their type says, own images are upright
    revision: ClassVar[int] = 2
    columns: ClassVar[Columns] = COLUMNS

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments, counts, what = ACTIONS[self.action]
        if len(self.arguments) not in counts:
            wanted = " or ".join(map(str, counts))
            raise UsageError(
                f"{self.action} takes {wanted} arguments, not {len(self.arguments)}; "
                f"{' '.join([self.action, *arguments.split()])}: {what}"
            )
        if self.action == "cache" and self.arguments and not _is_size(self.arguments[0]):
            raise UsageError(f"cache {self.arguments[0]}: not a number of GiB, 0 or more")
        if self.action == "add-head" and (not self.arguments[3].isdecimal() or int(self.arguments[3]) < 1):
            raise UsageError(f"add-head {self.arguments[3]}: not a number of classes, 1 or more")

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
            table = text_table.text(rows, width=terminal.width(), rest=PIPED)
            return table if rows else "all records, checkpoints and caches are of the present versions"
        if self.action == "cache":
            return _cache(self)
        if self.action == "verify-cache":
            return _verified_cache(self)
        if self.action == "convert-checkpoint":
            return _convert(*map(Path, self.arguments))
        if self.action == "add-head":
            return _with_head(self)
        return None


def _listing(config: DataConfig) -> str:
    rows = [
        {"data": name, "state": state, "what": about} for name, (about, state) in datasets.known(config.data_root).items()
    ]
    return text_table.text(rows, width=terminal.width(), rest=PIPED)


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
    rows = [{"checked": finding.what, "found": finding.found} for finding in findings]
    return text_table.text(rows, width=terminal.width(), rest=PIPED)


def _cache(config: DataConfig) -> str:
    """What is kept, after what had to go is gone."""
    lines = []
    if config.arguments:
        gone = feature_cache.prune(config.cache_dir, float(config.arguments[0]) * feature_cache.GIB)
        lines = [f"removed {len(gone)} entries, {sum(entry.size for entry in gone) / feature_cache.GIB:.3f} GiB"]
    rows = feature_cache.table(feature_cache.entries(config.cache_dir))
    return "\n".join([*lines, text_table.text(rows, width=terminal.width(), rest=PIPED)])


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


def _check_files(source: Path, target: Path) -> None:
    if not source.is_file():
        raise UserError(f"{source}: no such file")
    if target.exists():
        raise UserError(f"{target} is there already; it is not replaced")


def _with_head(config: DataConfig) -> str:
    source, target, architecture, classes = config.arguments
    _check_files(Path(source), Path(target))
    from lib.models import checkpoints

    drawn = checkpoints.add_head(Path(source), Path(target), architecture, int(classes), config.seed)
    return f"{target}: fresh {', '.join(drawn)}"


def _convert(source: Path, target: Path) -> str:
    _check_files(source, target)
    from lib.models import checkpoints

    count = checkpoints.convert(source, target)
    return f"{target}: {count} tensors"
