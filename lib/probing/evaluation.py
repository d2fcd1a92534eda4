"""OOD sets, the probes of one layer, their scores under every role, and the rows that a record keeps.

Places of one kind, reducer and rank, in execution order, are what a rule chooses from.
"""

from dataclasses import dataclass, field

from torch import Tensor

from lib.datasets.split import Split
from lib.metrics import group_accuracy as group_metrics
from lib.metrics.classification import standard_error
from lib.probing import selection
from lib.probing.feature_sources import Kept, Place, Unit
from lib.probing.fit import Directions, Fitted, Probes, Recipe, fit
from lib.probing.roles import Shares, divide
from lib.probing.stacked_probes import Linear, Setting
from lib.representations.features import Tap

COLUMNS = (
    "probe",
    "network",
    "layer",
    "reduce",
    "dim",
    "rank",
    "data",
    "variant",
    "origin",
    "group",
    "split",
    "protocol",
    "solver",
    "lr",
    "l1",
    "l2",
    "seed",
    "epoch",
    "fraction",
    "selected_by",
    "chosen",
    "n",
    "correct",
    "accuracy",
    "se",
    "baseline",
    "gain",
    "gain_low",
    "gain_high",
    "gain_median",
    "candidates",
    "strength",
    "nc1",
)


@dataclass(frozen=True)
class Shift:
    """An OOD set as it is tested; `val` is its validation split, where it has one of its own."""

    name: str
    test: Split
    origin: str
    val: Split | None = None
    val_origin: str = ""

    @property
    def learnt(self) -> Split:
        """Where images that are not for testing come from."""
        return self.test if self.val is None else self.val

    def role(self, role: str, shares: dict[str, Shares]) -> tuple[str, Tensor]:
        """Which split ("test" or "val") a role's images are in, and their positions; `shares` by split."""
        which = "test" if self.val is None or role == "test" else "val"
        split = self.test if which == "test" else self.val
        return which, shares[which].positions(split, role)

    def shares(self, protocol: str, roles: str, seed: int) -> dict[str, Shares]:
        """Who is what among the ids of either split."""
        if self.val is None:
            return {"test": divide(self.test.indices, protocol, roles, seed)}
        return {
            "test": Shares({"test": self.test.indices}),
            "val": divide(self.val.indices, protocol, roles, seed, validation=True),
        }


@dataclass
class Scores:
    """Whether each image is classified correctly: (place, unit) -> split -> (candidates, n)."""

    correct: dict[tuple[Place, int], dict[str, Tensor]] = field(default_factory=dict)
    head: Tensor | None = None  # the network's own answers to the test images, (n,)
    means: dict[tuple[Tap, int], Tensor] = field(default_factory=dict)  # nearest class mean, test images (n,)


def fit_units(
    tap: Tap,
    sources: list[Kept],
    units: list[Unit],
    settings: list[Setting],
    ranks: tuple[int, ...],
    classes: int,
    recipe: Recipe,
    directions: Directions | None = None,
    warm: Linear | None = None,
    kind: str = "probe",
) -> dict[tuple[Place, int], tuple[Probes, Fitted, int]]:
    """The probes of one tap: (place, unit) -> (its probes (c, k, d), the stack they come from, their place in it)."""
    listed = [
        (Place(tap, rank, kind), number, unit.group(rank))
        for number, unit in enumerate(units)
        for rank in (ranks or (None,))
    ]
    mine, found = [source.features[tap] for source in sources], {}
    for n in sorted({len(group.rows) for _, _, group in listed}):
        alike = [item for item in listed if len(item[2].rows) == n]
        each = len(settings) * (recipe.hidden or classes) * mine[0].dim * 16  # weights, gradients and two moments
        size = max(1, int(recipe.gib / 4 * 2**30 // each))
        for begin in range(0, len(alike), size):
            part = alike[begin : begin + size]
            fitted = fit(tap, mine, [group for _, _, group in part], settings, classes, recipe, directions, warm)
            for number, (place, unit, _) in enumerate(part):
                found[place, unit] = (fitted.of_group(number), fitted, number)
    return found


@dataclass(frozen=True)
class Metric:
    """What is compared: "accuracy", "worst-group" or "adjusted", by training group sizes (groups,)."""

    name: str
    sizes: Tensor

    def values(self, correct: Tensor, groups: Tensor) -> list[float]:
        """The metric of candidates (c, n) over images with these groups (n,)."""
        if not correct.shape[-1]:
            return [float("nan")] * len(correct)
        if self.name == "accuracy":
            return correct.double().mean(-1).tolist()
        accuracies, _ = group_metrics.group_accuracies(correct, groups, len(self.sizes))
        if self.name == "worst-group":
            return group_metrics.worst_group(accuracies)[0].tolist()
        return group_metrics.adjusted_average(accuracies, self.sizes).tolist()


def accuracy_rows(correct: Tensor, split: Split, positions: Tensor, sizes: Tensor) -> list[dict]:
    """One row for all images; with groups also one per group and the worst group's.

    With the groups' sizes in training (groups,) also their adjusted average; there are none where training has others.
    """
    right, where = correct[positions], split.groups[positions]
    rows = [_measured("all", int(right.sum()), len(right))]
    if len(split.group_names) < 2:
        return rows
    accuracies, tested = group_metrics.group_accuracies(right, where, len(split.group_names))
    for number, name in enumerate(split.group_names):
        rows.append(_measured(name, int(right[where == number].sum()), int(tested[number])))
    worst = int(group_metrics.worst_group(accuracies)[1])
    rows.append({**rows[1 + worst], "group": f"worst: {split.group_names[worst]}"})
    if len(sizes) != len(split.group_names):
        return rows
    adjusted = group_metrics.adjusted_average(accuracies, sizes).item()
    rows.append(
        {
            "group": "adjusted",
            "n": len(right),
            "correct": None,
            "accuracy": adjusted,
            "se": group_metrics.adjusted_standard_error(accuracies, sizes, tested),
        }
    )
    return rows


def _measured(group: str, right: int, n: int) -> dict:
    accuracy = right / n if n else None
    return {"group": group, "n": n, "correct": right, "accuracy": accuracy, "se": standard_error(accuracy, n)}


def row(**values) -> dict:
    """A row with every column."""
    return dict.fromkeys(COLUMNS) | values


def choice_of(
    rule: str, config, available: set[str], tables: dict[str, list[list[float]]], places: int, candidates: int
) -> selection.Choice:
    """What a rule chooses from tables (places, candidates) by role; of the paper's roles the last place is no candidate."""
    settings, layer = selection.roles_of(rule, config.how, available, candidates)
    return selection.choose(
        rule, tables[settings] if settings else None, tables[layer] if layer else None, places, last=config.roles != "paper"
    )
