"""The options of a study of probes."""

from dataclasses import dataclass

from lib.datasets.batching import Batching
from lib.probing.fit import ProbeRecipe
from lib.probing.stacked_probes import Setting
from lib.representations.features import Storage


@dataclass(frozen=True, kw_only=True)
class ProbeProtocol:
    """What probes learn from, and how images are divided among the roles.

    name           "id" or "zero-shot": in-distribution images; "few-shot": some OOD images; "full-ood": all that do not test
    roles          "clean": no image has two; "paper": the notebooks' division
    seeds          of roles, draws, order and initial weights, each
    shots          few-shot: images per class, or None
    fractions      few-shot: shares of an OOD set, each; by default a tenth
    shared         few-shot images, settings and layer once for all OOD sets
    class_balance  "none", "groups" or "classes": of which equally many images are learnt from
    views          augmented views of each in-distribution image that are learnt from in turn; 0: the images as they are
    """

    name: str = "zero-shot"
    roles: str = "clean"
    seeds: tuple[int, ...] = (0,)
    shots: int | None = None
    fractions: tuple[float, ...] = ()
    shared: bool = False
    class_balance: str = "none"
    views: int = 0

    @property
    def learns_inside(self) -> bool:
        """Whether probes learn from in-distribution images."""
        return self.name in ("id", "zero-shot")


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Which probes are fitted, how, and what they are compared with.

    layers      names, globs, "cuts" or "all"
    reduce      reducers by name, each a sweep of its own; by default what suits the layer
    ranks       to which features are restricted, each; none for all directions
    per_batch   directions of ranks are fitted on every batch by itself, instead of once on the training images
    settings    of every probe
    warm_start  the last layer's probe starts at the network's own head
    baselines   names in `lib.probing.baselines`, or "all"
    rules       names in `lib.probing.selection.RULES`, side by side; by default all that there are images for
    metric      what rules choose by: "accuracy", "worst-group", "adjusted", or "auto": worst-group where there are groups
    exported    the chosen probe must be exportable
    draws       exchanges of answers that show what gains are by chance; 0: none
    cache_limit GiB on disk for the features that all runs keep
    """

    protocol: ProbeProtocol
    settings: list[Setting]
    recipe: ProbeRecipe
    batching: Batching
    storage: Storage
    layers: tuple[str, ...] = ("cuts",)
    reduce: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    per_batch: bool = False
    warm_start: bool = False
    baselines: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    metric: str = "auto"
    exported: bool = False
    draws: int = 0
    cache_limit: float = 50.0
