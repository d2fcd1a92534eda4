"""The flags of `exec_probe.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib.core.errors import UsageError
from lib.datasets import names
from lib.experiments.columns.probe import COLUMNS
from lib.models import reducer_names
from lib.probing import selection
from lib.runs import cli, input_files, null_flags
from lib.runs.cli import above, at_least, flag
from lib.runs.columns import Columns, Summary
from lib.runs.network_flags import NetworkConfig

PROTOCOLS = ("id", "zero-shot", "few-shot", "full-ood")


SOLVERS = ("adam", "sgd", "lbfgs", "ridge", "prox")


BASELINES = ("mlp", "concatenated", "averaged", "last-layer", "dfr", "batch-norm", "collapse")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(NetworkConfig):
    """Linear probes on the layers of a frozen network, under shift and at limited rank."""

    parallel: ClassVar = "passes"
    common: ClassVar[str] = "dataset ood layers reduce ranks protocol solver epochs list_layers batch_size gpu seed plan"

    dataset: str = flag(
        "",
        "-d",
        label="{}",
        help="in-distribution data; default: the set that the network was trained on",
        group="data",
        selects=True,
    )
    ood: tuple[str, ...] = flag(
        (), "-ood", label="{}", help="out-of-distribution data sets", group="data", selects=True, metavar="DATASET"
    )
    layers: tuple[str, ...] = flag(
        ("cuts",), "-l", commas=True, help="layers that are probed: names or globs, cuts, all, role:ROLE", group="network"
    )
    reduce: tuple[str, ...] = flag(
        (),
        check=reducer_names.check,
        metavar="REDUCER",
        help="how a layer's output becomes a vector per image: flatten, gap, gmp, grid:K, cls, mean-token, "
        "random:K or pca:K; default: flatten, or cls for tokens; with -ranks gap or cls",
    )
    ranks: tuple[int, ...] = flag(
        (),
        "-ranks",
        check=at_least(0),
        help="ranks: features are restricted to this many leading directions of the layer's channels, one "
        "probe for each rank",
    )
    rank_basis: str = flag(
        "fixed",
        choices=("fixed", "per-batch"),
        help="basis of -ranks: directions fitted once on the training images, or on every batch of images by "
        "itself, as the stitching paper's code does",
    )
    protocol: str = flag(
        "",
        choices=PROTOCOLS,
        label="{}",
        help="what the probes learn from: id and zero-shot: in-distribution images; few-shot: some OOD "
        "images; full-ood: all OOD images that are not tested on; default: zero-shot with -ood, else id",
    )
    roles: str = flag(
        "clean",
        choices=("clean", "paper"),
        help="how images are divided: clean: training of probes, validation of settings, validation of the "
        "layer and test share no image; paper: as in the notebooks, where some do",
    )
    shots: int | None = flag(
        None, check=at_least(1), help="images per class that a probe learns from, for --protocol few-shot", group="data"
    )
    fraction: tuple[float, ...] = flag(
        (),
        check=cli.fraction,
        help="shares of the OOD set that a probe learns from, for --protocol few-shot; default: 0.1",
        group="data",
    )
    tuning: str = flag(
        "per-shift",
        choices=("per-shift", "shared"),
        help="whether settings, layer and few-shot images are chosen for each OOD set, or once for all",
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
        help="accuracy that the rules of --select compare; auto: worst-group where there are groups, else accuracy",
    )
    solver: str = flag(
        "adam",
        choices=SOLVERS,
        help="solver of the probes: adam, sgd; lbfgs and ridge (--l2 only); prox (exact zeros for --l1)",
        group="training",
    )
    epochs: int = flag(
        10,
        "-e",
        check=at_least(0),
        help="epochs of --solver adam and sgd; maximum of iterations of lbfgs and prox",
        group="training",
    )
    batch_size: int = flag(64, "-b", help="images per batch", group="machine", check=at_least(1))
    learning_rate: tuple[float, ...] = flag(
        (1e-3,), "-lr", check=above(0), help="learning rates, one probe for each", group="training"
    )
    l1: tuple[float, ...] = flag(
        (0.0,), "-l1", check=at_least(0), help="weights of the L1 penalty, one probe for each", group="training"
    )
    l2: tuple[float, ...] = flag(
        (0.0,),
        check=at_least(0),
        help="weights of the L2 penalty (half the squared norm), one probe for each",
        group="training",
    )
    l2_norm: tuple[float, ...] = flag(
        (0.0,),
        check=at_least(0),
        help="weights of a penalty on the L2 norm, not squared, as in the intermediate-layers notebook, one probe for each",
        group="training",
    )
    weight_decay: float = flag(
        0.0, "-wd", check=at_least(0), help="weight decay of --solver adam and sgd, on biases too", group="training"
    )
    momentum: float = flag(0.9, check=cli.fraction, help="momentum of sgd", group="training")
    milestones: tuple[int, ...] = flag(
        (), "-rlre", check=at_least(1), help="epochs after which the learning rate is multiplied by 0.1", group="training"
    )
    keep_epochs: tuple[int, ...] = flag(
        (), check=at_least(1), help="epochs whose probes are candidates beside those of the last epoch", group="training"
    )
    augment: int = flag(
        0,
        check=at_least(0),
        help="number of augmented views of each in-distribution image to learn from, one per epoch in turn; "
        "0: the images as they are",
        group="data",
    )
    standardise: bool = flag(False, help="standardise features by the mean and deviation of the probes' training images")
    class_balance: str = flag(
        "none", choices=("none", "groups", "classes"), help="learn from equally many images of every group or class"
    )
    warm_start: bool = flag(False, help="start the probe of the last layer at the network's own head", group="training")
    baselines: tuple[str, ...] = flag(
        (),
        commas=True,
        choices=(*BASELINES, "all"),
        help="baselines that probes are compared with: " + ", ".join(BASELINES) + "; all",
        selects=True,
    )
    sensitivity: bool = flag(
        False, help="measure how far each OOD set lies from the training images at every layer", selects=True
    )
    null: int = flag(
        0,
        check=at_least(0),
        help="number of exchanges of the answers of every layer and of the last one, on the same images for all layers, "
        "for what each gain is by chance; 0: none",
        selects=True,
    )
    export: str = flag(
        "",
        metavar="DIR",
        help="write the probe chosen by the first rule and seed, with the network up to its layer, to "
        "models/DIR/probe.pt, a checkpoint like any other",
        group="output",
        selects=True,
    )
    untrained: bool = flag(False, help="probe a network with fresh weights as well", group="network", selects=True)
    seed: tuple[int, ...] = flag(
        (0,), "-s", help="seeds of roles, draws, order and initial weights, one study for each", label="s{}"
    )
    cache_gib: float = flag(
        2.0,
        check=above(0),
        identity=False,
        help="GiB of memory for features and probes; larger features are memory-mapped",
        group="machine",
    )
    cache_limit: float = flag(
        50.0,
        check=at_least(0),
        identity=False,
        help="GiB of features that all runs together keep on disk: the oldest are removed, and a run that "
        "needs more computes its own anew for every epoch",
        group="machine",
    )
    cache_type: str = flag(
        "fp16",
        choices=("fp16", "bf16", "fp32"),
        help="number type in which features are kept, with a scale per layer",
        group="machine",
    )
    verbose: bool = flag(False, help="print every row", group="output", identity=False)

    # 2: layers that put out the same are one, and the first weights depend on seed and dimension alone; intervals of gains
    # over seeds as well as images, and for worst groups without their bias; id-val images that the network has not learnt
    # from, where there are any; --roles paper tests and draws as the notebooks do; dfr penalises its intercept; tvd_debiased
    # depended on the order of images and on single outliers, tvd weighed images of odd numbers unequally
    # as well: images of 16 bits and floats as bright as their type says, own images upright; id-val knows what was learnt of
    # own folders; a row per image of layers whose first axis is another
    # as well: the head answers by the names of classes
    revision: ClassVar[int] = 2
    aside: ClassVar[tuple[str, ...]] = ("--export", "")
    columns: ClassVar[Columns] = COLUMNS
    summary: ClassVar[Summary | None] = Summary.of(
        "data variant protocol fraction selected_by group",
        "accuracy baseline gain gain_low gain_high gain_bound",
        lambda row: row.get("probe") == "gain",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        null_flags.refuse_too_few(self.null, "exchanges")
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
            (*self._training_images(), self.dataset, *self.ood),
            f"one over each data set; then {self.epochs} epochs of {settings} probes per layer over its kept features",
            besides="fitting and evaluating the probes",
            values=self._values,
            kept={"fp32": 4}.get(self.cache_type, 2),
        )

    def _training_images(self) -> list[str]:
        """The split that probes learn from, by name, where they learn from in-distribution images."""
        name = self.dataset or input_files.trained_on(self, self.model_path)
        return [f"{name}:train"] if name and ":" not in name and "=" not in name and self.how in ("id", "zero-shot") else []

    def _values(self, layer) -> int:
        """How many numbers the reducers make of a layer's output for an image."""
        import math

        import torch

        from lib.models import reducers
        from lib.models.reducer_names import parse
        from lib.probing.layers import usual

        total = 0
        for word in self.reduce or (usual(layer.shape, bool(self.ranks)),):
            kind, number = parse(word)
            whole = math.prod(layer.shape)
            if kind in ("pca", "random"):
                total += min(number, whole) if kind == "pca" else number
            else:
                total += reducers.reducer(word)(torch.zeros(1, *layer.shape)).shape[1]
        return total

    def inputs(self) -> dict[str, list[Path]]:
        shifts = [name for word in self.ood for name in names.expand(word)]
        return super().inputs() | input_files.data_files(self, *[name for name in (self.dataset, *shifts) if name])
