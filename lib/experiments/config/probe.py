"""The flags of `exec_probe.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib.core.errors import UsageError
from lib.datasets import names
from lib.models import reducer_names
from lib.probing import selection
from lib.runs import cli, input_files
from lib.runs.cli import above, at_least, flag
from lib.runs.columns import Columns, Summary
from lib.runs.network_flags import NetworkConfig

PROTOCOLS = ("id", "zero-shot", "few-shot", "full-ood")


SOLVERS = ("adam", "sgd", "lbfgs", "ridge", "prox")


BASELINES = ("mlp", "concatenated", "averaged", "last-layer", "dfr", "batch-norm", "collapse")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(NetworkConfig):
    """Linear probes on the layers of a frozen network, under shift and at limited rank."""

    dataset: str = flag(
        "", "-d", label="{}", help="in-distribution data; default: the set the network was trained on", selects=True
    )
    ood: tuple[str, ...] = flag((), "-ood", label="{}", help="out-of-distribution data sets", selects=True)
    layers: tuple[str, ...] = flag(("cuts",), "-l", commas=True, help="names or globs, cuts, all, role:ROLE")
    reduce: tuple[str, ...] = flag(
        (),
        check=reducer_names.check,
        metavar="REDUCER",
        help="vector per image of a layer's output: flatten, gap, gmp, grid:K, cls, mean-token, "
        "random:K or pca:K; default: flatten, or cls for tokens; with -ranks gap or cls",
    )
    ranks: tuple[int, ...] = flag(
        (), "-ranks", check=at_least(0), help="restrict features to so many leading directions of the layer's channels, each"
    )
    rank_basis: str = flag(
        "fixed",
        choices=("fixed", "per-batch"),
        help="of -ranks: directions fitted once on the training "
        "images, or on every batch of images by itself, as the stitching paper's code does",
    )
    protocol: str = flag(
        "",
        choices=PROTOCOLS,
        label="{}",
        help="what the probes learn from: id and zero-shot: "
        "in-distribution images; few-shot: some OOD images; full-ood: all OOD images that do not test; "
        "default: zero-shot with -ood, else id",
    )
    roles: str = flag(
        "clean",
        choices=("clean", "paper"),
        help="clean: probe-train, validation of settings, validation of "
        "the layer and test share no image; paper: the notebooks' division, in which some do",
    )
    shots: int | None = flag(None, check=at_least(1), help="few-shot: images per class that a probe learns from")
    fraction: tuple[float, ...] = flag(
        (), check=cli.fraction, help="few-shot: shares of the OOD set that a probe learns from; default: 0.1"
    )
    tuning: str = flag(
        "per-shift",
        choices=("per-shift", "shared"),
        help="settings, layer and few-shot images chosen for each OOD set, or once for all",
    )
    select: tuple[str, ...] = flag(
        (),
        choices=selection.RULES,
        help="rules that choose layer and setting, side by side, oracle last; default: all that the protocol has images for",
        selects=True,
    )
    metric: str = flag(
        "auto",
        choices=("auto", "accuracy", "worst-group", "adjusted"),
        help="what they choose by; auto: worst-group where there are groups, else accuracy",
    )
    solver: str = flag("adam", choices=SOLVERS, help="adam, sgd; lbfgs and ridge: --l2 only; prox: exact zeros for --l1")
    epochs: int = flag(10, "-e", check=at_least(0), help="epochs of adam and sgd; most iterations of lbfgs and prox")
    batch_size: int = flag(64, "-b", help="images per batch", check=at_least(1))
    learning_rate: tuple[float, ...] = flag((1e-3,), "-lr", check=above(0), help="learning rates, each")
    l1: tuple[float, ...] = flag((0.0,), "-l1", check=at_least(0), help="weights of the L1 norm of the weights, each")
    l2: tuple[float, ...] = flag((0.0,), check=at_least(0), help="weights of half their squared L2 norm, each")
    l2_norm: tuple[float, ...] = flag(
        (0.0,), check=at_least(0), help="weights of the L2 norm itself, as in the intermediate-layers notebook, each"
    )
    weight_decay: float = flag(0.0, "-wd", check=at_least(0), help="weight decay of adam and sgd, on biases too")
    momentum: float = flag(0.9, check=cli.fraction, help="momentum of sgd")
    milestones: tuple[int, ...] = flag(
        (), "-rlre", check=at_least(1), help="epochs after which the learning rate is multiplied by 0.1"
    )
    keep_epochs: tuple[int, ...] = flag((), check=at_least(1), help="epochs whose probes are candidates beside the last's")
    augment: int = flag(
        0,
        check=at_least(0),
        help="learn from so many augmented views of each in-distribution image, one "
        "per epoch in turn; 0: from the images as they are",
    )
    standardise: bool = flag(False, help="probes see features less their mean, over their deviation, of probe-train")
    class_balance: str = flag(
        "none", choices=("none", "groups", "classes"), help="learn from equally many images of every group or class"
    )
    warm_start: bool = flag(False, help="the last place starts at the network's own head")
    baselines: tuple[str, ...] = flag(
        (),
        commas=True,
        choices=(*BASELINES, "all"),
        help="what else is compared: " + ", ".join(BASELINES) + "; all",
        selects=True,
    )
    sensitivity: bool = flag(
        False, help="also how far each OOD set lies from the training images at every layer", selects=True
    )
    export: str = flag(
        "",
        metavar="DIR",
        help="write the chosen probe with the network up to its layer to "
        "models/DIR/probe.pt, a checkpoint like any other: the choice of the first "
        "rule and seed",
        selects=True,
    )
    untrained: bool = flag(False, help="probe a network with fresh weights as well", selects=True)
    seed: tuple[int, ...] = flag((0,), "-s", help="seeds of roles, draws, order and initial weights, each", label="s{}")
    cache_gib: float = flag(
        2.0,
        check=above(0),
        identity=False,
        help="GiB of memory for features and probes; kept features that are larger are memory-mapped",
    )
    cache_limit: float = flag(
        50.0,
        check=at_least(0),
        identity=False,
        help="GiB of features kept on disk by all runs: older ones go, and a run that needs more "
        "computes its own anew for every epoch",
    )
    cache_type: str = flag("fp16", choices=("fp16", "bf16", "fp32"), help="type of kept features, with a scale per layer")
    verbose: bool = flag(False, help="print every row", identity=False)

    # 2: layers that put out the same are one, and the first weights depend on seed and dimension alone; intervals of gains
    # over seeds as well as images, and for worst groups without their bias; id-val images that the network has not learnt
    # from, where there are any; --roles paper tests and draws as the notebooks do; dfr penalises its intercept; tvd_debiased
    # depended on the order of images and on single outliers, tvd weighed images of odd numbers unequally
    # as well: images of 16 bits and floats as bright as their type says, own images upright; id-val knows what was learnt of
    # own folders; a row per image of layers whose first axis is another
    revision: ClassVar[int] = 2
    aside: ClassVar[tuple[str, ...]] = ("--export", "")
    columns: ClassVar[Columns] = Columns.of(
        numbers="""dim rank lr l1 l2 l2_norm seed epoch fraction n n_learnt n_validated n_seeds correct accuracy se
            baseline gain gain_low gain_high gain_bound gain_median candidates strength nc1 s s_null_low s_null_high
            s_moments s_moments_null_low s_moments_null_high energy_distance energy_distance_null_low
            energy_distance_null_high tvd tvd_null tvd_debiased row_space""",
        words="""probe network layer role aliases reduce data variant origin group split protocol solver selected_by choice
            over best_set""",
        truths="chosen in_best_set",
        images="data split origin",
        sets="data",
    )
    summary: ClassVar[Summary | None] = Summary.of(
        "data variant protocol fraction selected_by group",
        "accuracy baseline gain gain_low gain_high gain_bound",
        lambda row: row.get("probe") == "gain",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers:
            raise UsageError("-l: it names no layer; layers are names or globs, cuts, all")
        if self.how == "id" and self.ood:
            raise UsageError("--protocol id tests on in-distribution images and takes no -ood")
        if self.how != "id" and not self.ood and not self.list_layers:
            raise UsageError(f"--protocol {self.how} needs -ood: one or more out-of-distribution data sets")
        if self.how != "few-shot" and (self.shots or self.fraction):
            raise UsageError("--shots and --fraction are for --protocol few-shot")
        if self.shots and self.fraction:
            raise UsageError("--shots and --fraction: give one of them")
        if any(share == 0 for share in self.fraction):
            raise UsageError("--fraction 0: nothing to learn from; --protocol zero-shot learns from no OOD image")
        if self.solver in ("lbfgs", "ridge") and any(self.l1):
            raise UsageError(f"--l1: --solver {self.solver} has no L1 penalty; adam, sgd and prox have")
        if self.solver not in ("adam", "sgd") and any(self.l2_norm):
            raise UsageError(f"--l2-norm: --solver {self.solver} has no such penalty; adam and sgd have")
        if self.solver == "ridge" and not all(self.l2):
            raise UsageError("--solver ridge needs --l2 above 0: one or more penalties, chosen among by leave-one-out")
        if self.ranks and self.how not in ("id", "zero-shot"):
            raise UsageError(
                "-ranks: directions are fitted on in-distribution training images, so --protocol is id or zero-shot"
            )
        if self.sensitivity and self.how not in ("id", "zero-shot"):
            raise UsageError(
                "--sensitivity: compares with in-distribution training images, so --protocol is id or zero-shot"
            )
        if self.rank_basis == "per-batch" and not (self.ranks and self.solver in ("adam", "sgd")):
            raise UsageError("--rank-basis per-batch: for -ranks, with --solver adam or sgd, which learn from batches")
        if self.ranks and self.sensitivity:
            raise UsageError("--sensitivity: it is of all directions; leave out -ranks")
        if self.rank_basis == "per-batch" and self.export:
            raise UsageError("--export: under --rank-basis per-batch what a probe answers depends on the batch")
        if self.warm_start and self.solver not in ("adam", "sgd"):
            raise UsageError(f"--warm-start: where --solver {self.solver} ends does not depend on the start")
        if self.baselines and self.ranks:
            raise UsageError("--baselines: they are of all directions; leave out -ranks")
        if self.augment and self.how not in ("id", "zero-shot"):
            raise UsageError("--augment: views are of in-distribution images, so --protocol is id or zero-shot")
        if self.epochs == 0 and self.solver not in ("adam", "sgd"):
            raise UsageError(f"-e 0: --solver {self.solver} needs iterations")

    def outputs(self) -> list[Path]:
        return [Path(self.models_dir) / self.export.removeprefix("models/") / "probe.pt"] if self.export else []

    @property
    def how(self) -> str:
        """The protocol."""
        return self.protocol or ("zero-shot" if self.ood else "id")

    def work(self) -> list[str]:
        from lib.models import cutting
        from lib.runs import plan

        settings = len(self.learning_rate) * len(self.l1) * len(self.l2) * len(self.l2_norm) * len(self.seed)
        return plan.of_checkpoints(
            self,
            [(self.model_path, self.model_type, lambda checkpoint, listed: cutting.tapped(listed, self.layers, "-l"))],
            (self.dataset, *self.ood),
            f"one over each data set; then {self.epochs} epochs of {settings} probes per layer over its kept features",
        )

    def inputs(self) -> dict[str, list[Path]]:
        shifts = [name for word in self.ood for name in names.expand(word)]
        return super().inputs() | input_files.data_files(self, *[name for name in (self.dataset, *shifts) if name])
