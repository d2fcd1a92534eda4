"""A bank of probes: those of all sites and training sets, and the candidates that a rule may choose."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lib.core.progress import bar
from lib.datasets.batching import Batching
from lib.probing.feature_sources import CachedSource, ProbeSite
from lib.probing.feature_transform import Directions
from lib.probing.fit import Candidate, FittedProbes, ProbeRecipe, fit
from lib.probing.stacked_probes import Linear, Probes, Setting
from lib.probing.training_sets import TrainingSet
from lib.representations.feature_cache import GIB
from lib.representations.features import Tap

ProbeKey = tuple[ProbeSite, int]  # a site, and the number of a training set
UPDATE_BYTES = 16  # per weight: itself, its gradient and two moments


@dataclass(frozen=True)
class ProbeBank:
    """Fitted probes, none of which depends on another.

    probes      weights (c, k, d) of the candidates of a site and training set
    candidates  what the c candidates are, by kind of probe
    sweeps      by kind, lists of sites in execution order that a rule chooses from
    left_out    (c, n): whether each example of the training set is right when left out, where the solver says so
    strengths   the C that deep feature reweighting chose
    """

    probes: dict[ProbeKey, Probes] = field(default_factory=dict)
    candidates: dict[str, list[Candidate]] = field(default_factory=dict)
    sweeps: dict[str, list[list[ProbeSite]]] = field(default_factory=dict)
    left_out: dict[ProbeKey, Tensor] = field(default_factory=dict)
    strengths: dict[ProbeKey, float] = field(default_factory=dict)


def joined(banks: Iterable[ProbeBank]) -> ProbeBank:
    """All of them as one, in order."""
    whole = ProbeBank()
    for bank in banks:
        sweeps = {kind: whole.sweeps.get(kind, []) + sweeps for kind, sweeps in bank.sweeps.items()}
        whole = ProbeBank(
            whole.probes | bank.probes,
            whole.candidates | bank.candidates,
            whole.sweeps | sweeps,
            whole.left_out | bank.left_out,
            whole.strengths | bank.strengths,
        )
    return whole


def of_stack(fitted: FittedProbes, keys: Sequence[ProbeKey]) -> ProbeBank:
    """The probes of a stack, whose groups are those of the keys in turn."""
    return ProbeBank(
        {key: fitted.of_group(group) for group, key in enumerate(keys)},
        {site.kind: fitted.candidates for site, _ in keys},
        left_out={} if fitted.left_out is None else dict(zip(keys, fitted.left_out, strict=True)),
    )


def fit_cached(
    tap: Tap,
    sources: Sequence[CachedSource],
    sets: Sequence[TrainingSet],
    settings: list[Setting],
    classes: int,
    recipe: ProbeRecipe,
    *,
    ranks: tuple[int, ...] = (),
    directions: Directions | None = None,
    warm: Linear | None = None,
    kind: str = "probe",
) -> ProbeBank:
    """The probes of one tap for all training sets and ranks, from cached features.

    Those that learn from equally many images are stacked, as many as memory allows.
    """
    keys = [(ProbeSite(tap, rank, kind), number) for number in range(len(sets)) for rank in ranks or (None,)]
    groups = {key: sets[key[1]].group(key[0].rank) for key in keys}
    features, banks = [source.features[tap] for source in sources], []
    each = len(settings) * (recipe.hidden or classes) * features[0].dim * UPDATE_BYTES
    together = max(1, int(recipe.gib / 4 * GIB // each))
    for n in sorted({len(group.rows) for group in groups.values()}):
        alike = [key for key in keys if len(groups[key].rows) == n]
        for begin in range(0, len(alike), together):
            part = alike[begin : begin + together]
            fitted = fit(tap, features, [groups[key] for key in part], settings, classes, recipe, directions, warm)
            banks.append(of_stack(fitted, part))
    return joined(banks)


def fit_each(taps: Sequence[Tap], fit_one: Callable[[Tap], ProbeBank], batching: Batching) -> ProbeBank:
    """The probes of all taps, none of which depends on another: of several processes each fits its share of the taps."""
    banks = batching.processes.shared(len(taps), lambda number: fit_one(taps[number]))
    return joined(bar(banks, total=len(taps), label="fitting probes", unit="layer", quiet=batching.quiet))
