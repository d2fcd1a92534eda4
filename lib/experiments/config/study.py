"""The flags of `exec_study.py`."""

import shlex
from dataclasses import dataclass
from typing import ClassVar

from lib.core.errors import UsageError
from lib.runs.cli import SeedConfig, above, flag
from lib.runs.network_flags import NetworkConfig

SHARING = ("eval", "ood_layers", "probe", "ncg", "similarity", "stitch")  # experiments that pass images through networks
ALONE = ("projections", "reinit")  # of weights alone, and of networks that are changed


def _more(text: str) -> None:
    name, colon, flags = text.partition(":")
    if not colon or name not in (*SHARING, *ALONE):
        raise UsageError(f"--more {text}: it is EXPERIMENT:FLAGS, such as probe:--solver lbfgs")
    try:
        shlex.split(flags)
    except ValueError:
        raise UsageError(f"--more {text}: a quotation mark is not closed") from None


@dataclass(frozen=True, kw_only=True)
class StudyConfig(NetworkConfig, SeedConfig):
    """Every experiment on the layers of one network, from one pass over each data set."""

    answers_at_once: ClassVar[bool] = False
    common: ClassVar[str] = "dataset ood against only skip more batch_size gpu seed plan"

    dataset: str = flag(
        "", "-d", help="in-distribution data; default: the set that the network was trained on", group="data"
    )
    ood: tuple[str, ...] = flag(
        (),
        "-ood",
        help="out-of-distribution data sets: shifts of the classes of -d, which are probed, and sets of other images",
        group="data",
    )
    against: str = flag(
        "",
        help="checkpoint that is compared with and stitched to the network; default: init.pt beside it, its initial weights",
        group="network",
    )
    only: tuple[str, ...] = flag((), commas=True, choices=(*SHARING, *ALONE), help="experiments that run; default: all")
    skip: tuple[str, ...] = flag((), commas=True, choices=(*SHARING, *ALONE), help="experiments that do not run")
    ncg_layers: tuple[str, ...] = flag(
        (),
        commas=True,
        help="layers in whose features nearest categories are searched, a run each: names or globs, cuts; default: the last "
        "cut before the last linear layer",
        group="network",
    )
    more: tuple[str, ...] = flag(
        (), check=_more, metavar="EXPERIMENT:FLAGS", help='further flags of an experiment, such as "probe:--solver lbfgs"'
    )
    cache_gib: float = flag(
        2.0,
        check=above(0),
        help="GiB of activations that runs hold in memory at a time; what needs more runs in a further round of passes",
        group="machine",
        identity=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.experiments:
            raise UsageError("--skip leaves no experiment")

    @property
    def experiments(self) -> tuple[str, ...]:
        """The names of the experiments that are asked for."""
        known = (*SHARING, *ALONE)
        return tuple(name for name in known if name in (self.only or known) and name not in self.skip)

    def repeatable(self) -> bool:
        return False

    def answer(self) -> str:
        if tables := super().answer():
            return tables
        self.check_inputs()
        from lib.experiments import study

        return study.study(self)

    def work(self) -> list[str]:
        from lib.experiments import study

        return study.plan(self)
