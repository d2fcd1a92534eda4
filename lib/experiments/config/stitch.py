"""The flags of `exec_stitch.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib.core.errors import UsageError
from lib.datasets.catalogue import AUGMENTATIONS
from lib.experiments.columns.stitch import COLUMNS
from lib.runs import input_files, null_flags
from lib.runs.cli import SeedConfig, above, at_least, flag, swallowed
from lib.runs.columns import Columns, Summary
from lib.runs.network_flags import CheckpointsConfig
from lib.training.flags import OptimizationConfig

TYPES = ("c2c", "rc2c_pre", "rc2c_post", "t2t", "c2t", "t2c", "auto")


NOISE = "noise"  # among the senders: no network
INITS = ("rand", "eye", "pinv", "perm")


def _samples(text: str) -> None:
    if text != "all" and not (text.isdigit() and int(text) > 0):
        raise UsageError(f"{text}: a number of images, or all")


@dataclass(frozen=True, kw_only=True)
class StitchConfig(OptimizationConfig, CheckpointsConfig, SeedConfig):
    """Accuracy and geometry of stitched networks, for a pair of layers or a grid of them."""

    common: ClassVar[str] = "dataset init pinv_samples epochs list_layers batch_size gpu seed plan"

    front_path: str = flag(
        "",
        positional=True,
        label="{}",
        help="checkpoint of the front network, which the stitch follows",
        group="network",
        network="front",
        needed=True,
    )
    end_path: str = flag(
        "",
        positional=True,
        label="{}",
        help="checkpoint of the end network, which the stitch leads into",
        group="network",
        network="end",
        needed=True,
    )
    front_type: str = flag(
        "auto",
        positional=True,
        check=input_files.check_type,
        help="type of the front network; auto: the one that its sidecar states",
        group="network",
        network_type=True,
    )
    end_type: str = flag(
        "auto",
        positional=True,
        check=input_files.check_type,
        help="type of the end network; auto: the one that its sidecar states",
        group="network",
        network_type=True,
    )
    front_layer: str = flag(
        "cuts",
        positional=True,
        check=input_files.check_layers,
        help="layers of the front network: names or globs joined by commas, or cuts",
        group="network",
        selects=True,
    )
    end_layer: str = flag(
        "cuts",
        positional=True,
        check=input_files.check_layers,
        help="layers of the end network whose outputs are replaced: names or globs joined by commas, or cuts",
        group="network",
        selects=True,
    )
    stitching_type: str = flag(
        "auto",
        positional=True,
        choices=TYPES,
        label="{}",
        help="type of the stitch: c2c, rc2c_pre, rc2c_post (maps), t2t (tokens), c2t, t2c; auto: what fits",
    )
    directory: str = flag(
        "", "-dir", label="{}", help="word with which the record's name begins", group="output", selects=True
    )
    init: str = flag(
        "rand",
        "-i",
        choices=INITS,
        label="{}",
        help="initial weights of the stitch: random, the identity, direct matching (least squares), best permutation",
    )
    solver: str = flag(
        "exact", choices=("exact", "reference"), help="solver of -i pinv: float64, or the published float32 one"
    )
    pinv_samples: str = flag(
        "100",
        "-pinv-samples",
        check=_samples,
        help="number of training images that -i pinv matches on, drawn with the seed, or all",
    )
    front_stitch_rank: tuple[int, ...] = flag(
        (), check=at_least(1), help="ranks to which the front activation is limited, one stitch for each", selects=True
    )
    front_pinv_rank: tuple[int, ...] = flag(
        (),
        check=at_least(1),
        help="ranks to which the front activation is limited while -i pinv matches, in the basis of the front "
        "layer's channels; with --solver reference in that of each pair's rows after resizing, as "
        "published",
        selects=True,
    )
    upsample: str = flag(
        "bilinear", "-upsample", choices=("bilinear", "nearest"), help="interpolation with which maps are resized"
    )
    c2t_cls: str = flag(
        "pool", "-c2t-cls", choices=("none", "pool", "learn"), help="class token of tokens that are made from maps (c2t)"
    )
    t2c_cls: str = flag("drop", "-t2c-cls", choices=("drop", "add", "only"), help="what maps keep of a class token (t2c)")
    stitch_norm: str = flag(
        "none", choices=("none", "bn", "ln"), help="normalisation before the stitch's affine map, for -i rand"
    )
    epochs: int = flag(
        30, "-e", label="e{}", check=at_least(0), help="epochs of task-loss matching; 0: none", group="training"
    )
    batch_size: int = flag(256, "-b", check=at_least(1), help="images per batch", group="machine")
    grad_clip: float | None = flag(None, check=above(0), help="largest L2 norm of a step's gradient", group="training")
    l1: float = flag(0.0, "-l1", check=at_least(0), help="weight of the L1 norm of the stitch in the loss", group="training")
    soft_targets: bool = flag(False, help="train on the end network's probabilities instead of the labels", group="training")
    augmentation: str = flag(
        "auto",
        choices=("auto", *AUGMENTATIONS),
        help="augmentation of the training images; auto is the data set's customary one",
        group="data",
    )
    dataset: str = flag(
        "",
        "-d",
        label="{}",
        help="data set on whose training images stitches are made and on whose test images they are measured; "
        "default: the set that the front network was trained on",
        group="data",
        selects=True,
    )
    mod_only_stitch: bool = flag(
        False,
        help="a published spelling without effect: only stitches are trained and saved in any case",
        group="training",
        identity=False,
    )
    save: bool = flag(True, help="store the weights of every stitch in the .npz", group="output", selects=True)
    match_at: str = flag(
        "",
        metavar="LAYER",
        help="later layer of the end network, such as its penultimate one: stitches are trained to give it what it has "
        "there, instead of the labels",
        group="training",
    )
    sender: tuple[str, ...] = flag(
        (),
        metavar="noise|CHECKPOINT",
        help="further baselines of --null, which stitch well without meaning the same: noise clustered by class, and "
        "networks with the front's layers that were trained for another task",
        selects=True,
    )
    null: bool = flag(
        False,
        help="measure null models, too: a stitch behind an untrained front network, and one fitted to the "
        "labels, or activations, of other images",
        selects=True,
    )

    permutations: int = flag(
        0,
        check=at_least(0),
        help="number of permutations of the images on one side, shared by all pairs of layers, for what accuracy and the "
        "residual of -i pinv are by chance; 0: none",
        selects=True,
    )

    # 2: images of 16 bits and floats are as bright as their type says, own images are upright
    # 2 as well: stitches of a study were evaluated in batches that other experiments of it asked for
    # 2 as well: stitches learn the end network's classes by their names
    revision: ClassVar[int] = 2
    columns: ClassVar[Columns] = COLUMNS
    summary: ClassVar[Summary | None] = Summary.of(
        "data split type init epochs null front_layer end_layer stitch_rank pinv_rank",
        "accuracy penalty agreement normalized_difference",
        lambda row: row.get("missing") is None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        null_flags.refuse_too_few(self.permutations, "permutations", "--permutations")
        if not self.dataset and self.front_path:  # filled in, so that it is the same run as with the name
            object.__setattr__(self, "dataset", input_files.trained_on(self, self.front_path))
        if self.stitch_norm != "none" and (self.init != "rand" or self.epochs == 0):
            raise UsageError(
                f"--stitch-norm {self.stitch_norm}: a normalised stitch has to be trained from -i rand; here "
                f"are -i {self.init} -e {self.epochs}"
            )
        if self.solver == "reference" and self.init != "pinv":
            raise UsageError(f"--solver reference: it solves -i pinv, not -i {self.init}")
        if self.front_pinv_rank and self.init != "pinv":
            raise UsageError(f"--front-pinv-rank: it limits what -i pinv matches, not -i {self.init}")
        if self.null and self.soft_targets and self.epochs:
            raise UsageError("--null: it shuffles labels, from which --soft-targets does not learn")
        if self.sender and not self.null:
            raise UsageError(f"--sender {self.sender[0]}: it is for --null")
        if self.match_at and not self.epochs:
            raise UsageError(f"--match-at {self.match_at}: stitches are trained to match there; -e 0 trains none")
        if self.match_at and self.soft_targets:
            raise UsageError(f"--match-at {self.match_at} --soft-targets: one target at a time")
        if ":" in self.dataset and "=" not in self.dataset:
            raise UsageError(f"-d {self.dataset}: a data set without a split is named; its train and test are used")

    def answer(self) -> str | None:
        if not self.front_path or not self.end_path:
            taken = swallowed(self, input_files.SUFFIXES)
            raise UsageError("FRONT_PATH and END_PATH are required: two checkpoints, such as models/a/model_5.pt" + taken)
        return self.layer_tables()

    @property
    def networks(self) -> dict[str, str]:
        return {self.front_path: self.front_type, self.end_path: self.end_type} | dict.fromkeys(self.senders, "auto")

    @property
    def senders(self) -> tuple[str, ...]:
        """The checkpoints among the senders."""
        return tuple(word for word in self.sender if word != NOISE)

    def work(self) -> list[str]:
        from lib.runs import plan
        from lib.stitching import grid as stitching_grid

        def chosen(words, where):
            return lambda checkpoint, listed: stitching_grid.choose(checkpoint, listed, tuple(words.split(",")), where)

        trained = f"; {self.epochs} epochs of the stitches that share a front" if self.epochs else ""
        return plan.of_checkpoints(
            self,
            [
                (self.front_path, self.front_type, chosen(self.front_layer, "FRONT_LAYER")),
                (self.end_path, self.end_type, chosen(self.end_layer, "END_LAYER")),
            ],
            (self.dataset,),
            f"one of each network over the images that are matched on{trained}; over the test images one of each network, "
            "and of what follows END_LAYER for every stitch",
            besides="matching, training and evaluating stitches",
        )

    def inputs(self) -> dict[str, list[Path]]:
        data = input_files.data_files(self, self.dataset) if self.dataset else {}
        return input_files.checkpoint_files(self, self.front_path, self.end_path, *self.senders) | data
