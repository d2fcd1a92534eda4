"""The flags of `exec_tables.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib.core.errors import UsageError
from lib.core.registry import misspelt, near
from lib.experiments import EXPERIMENTS
from lib.runs.cli import RunConfig, at_least, flag
from lib.tables import TESTS, formats, papers, summaries

# action -> (what it does, the least number of arguments)
ACTIONS = {
    "ls": ("[EXPERIMENT | NAME=VALUE ...]: the records that fit, a line each", 0),
    "best": ("MEASURE [EXPERIMENT | NAME=VALUE ...]: the best row, with the settings and the command of its record", 1),
    "export": ("FILE.csv|FILE.parquet [EXPERIMENT | NAME=VALUE ...]: the rows that fit, with their settings", 1),
    "merge": ("FOLDER ...: the records of other results folders, with what lies beside them, into --results-dir", 1),
}


def _known(word: str) -> None:
    known = [*summaries.summarised(EXPERIMENTS), *TESTS, *papers.names()]
    if word not in known:
        raise UsageError(f"TABLES {word}: no such experiment, paper or table; {near(word, [*known, *ACTIONS])}")


@dataclass(frozen=True, kw_only=True)
class TablesConfig(RunConfig):
    """Tables of the records under results/: per experiment, and those of the papers beside their published numbers."""

    common: ClassVar[str] = "format out all seeds measured missing report network rerun"

    tables: tuple[str, ...] = flag(
        (),
        positional=True,
        help="experiments, papers and their tables: eval, "
        + ", ".join(papers.PAPERS)
        + ", ilc/fig5; specificity and sensitivity of indices "
        "of similarity; default: the experiments that have records. Or an action on the records: "
        + "; ".join(f"{name} {text}" for name, (text, _) in ACTIONS.items()),
        group="data",
    )
    format: str = flag(
        "text", choices=tuple(formats.SUFFIXES), help="format of the tables; csv has all numbers in full", group="output"
    )
    out: str = flag("", metavar="DIR", help="write each table to a file of its own in this folder", group="output")
    seeds: tuple[int, ...] = flag(
        (), help="use only runs with these seeds; with --missing: seeds that are wanted", group="data"
    )
    group_by: str = flag(
        "",
        metavar="COLUMN",
        help="average over the layers of a run that share the value of this column, such as role (norm, attention, block)",
    )
    measured: bool = flag(False, help="print only those cells of the papers' tables that a record fills")
    missing: bool = flag(
        False, help="print the commands that fill the empty cells of the papers' tables, in stages: trainings first"
    )
    all: bool = flag(
        False,
        help="print all rows and columns on a terminal, too, where long and wide tables are cut to fit",
        group="output",
    )
    report: str = flag(
        "", metavar="FILE.html", help="write one HTML page with all tables, figures and records", group="output"
    )
    network: str = flag(
        "",
        metavar="CHECKPOINT",
        help="checkpoint of a network: print what every experiment says of its layers, and how these measures go together",
        group="data",
    )
    figures: tuple[str, ...] = flag(
        (),
        group="output",
        metavar="RECORD",
        help="records, and folders of them, whose figures are drawn again: in --figure-format and --figure-width",
    )
    rerun: str = flag("", help="record whose run is repeated", group="data", metavar="RECORD")
    top: int = flag(1, help="rows that best shows", check=at_least(1))
    each: tuple[str, ...] = flag(
        (),
        metavar="NAME",
        help="columns or flags, or record: best shows a row for each of their values, beside the settings that differ",
    )
    lowest: bool | None = flag(None, help="let best take less for better; default: as is known of the measure")
    check: bool = flag(False, help="compare the run of --rerun with the record instead of replacing the record")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action:
            self._check_action()
        else:
            for word in self.tables:
                _known(word)
        if self.action != "best" and (self.top != 1 or self.lowest is not None or self.each):
            raise UsageError("--top, --each and --lowest are for best")
        if self.check and not self.rerun:
            raise UsageError("--check is for --rerun RECORD")
        asked = [f"--{name}" for name in ("rerun", "missing", "network", "report", "figures") if getattr(self, name)]
        if len(asked) > 1:
            raise UsageError(f"{' '.join(asked)}: one of them at a time")
        if self.report and not (folder := Path(self.report).parent).is_dir():
            raise UsageError(f"--report {self.report}: there is no folder {folder}{misspelt(folder)}")
        if self.group_by and (self.rerun or self.missing or self.report):
            raise UsageError("--group-by is for the tables of experiments and for --network")
        if self.measured and self.missing:
            raise UsageError("--measured --missing: the cells that are filled, or the commands for those that are not")
        if self.missing and (self.out or self.format != "text"):
            raise UsageError("--missing prints commands: --format and --out are for tables")
        if self.missing and not {word.partition("/")[0] for word in self.tables} <= set(papers.PAPERS):
            raise UsageError("--missing is for the papers' tables")
        if self.seeds and set(self.tables) & set(TESTS):
            raise UsageError("--seeds: specificity and sensitivity compare networks of all seeds")

    @property
    def action(self) -> str:
        """What is done with the records as a collection; "" where tables are made of them."""
        return self.tables[0] if self.tables and self.tables[0] in ACTIONS else ""

    def _check_action(self) -> None:
        text, least = ACTIONS[self.action]
        if len(self.tables) - 1 < least:
            raise UsageError(f"{self.action} takes more arguments: {text}")
        of_tables = ("rerun", "missing", "network", "report", "figures", "group_by", "measured", "seeds")
        given = [name for name in of_tables if getattr(self, name)]
        if given:
            raise UsageError(f"--{given[0].replace('_', '-')} is for tables, not for {self.action}")
        if self.action in ("export", "merge") and (self.out or self.format != "text"):
            raise UsageError(f"--out and --format are for tables, not for {self.action}")

    def repeatable(self) -> bool:
        return False

    def answer(self) -> str:
        if self.action:
            from lib.experiments.tables import collection

            return collection(self)
        if self.rerun:
            from lib.tables import rerun

            return (rerun.check if self.check else rerun.rerun)(Path(self.rerun), EXPERIMENTS, self.trust)
        from lib.experiments.tables import text

        return text(self)
