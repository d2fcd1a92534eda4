"""What every rule chooses among the layers and settings of a study (`lib.probing.selection`)."""

from dataclasses import dataclass

from lib.core.errors import UserError
from lib.probing import selection
from lib.probing.feature_sources import ProbeSite
from lib.probing.fit import Candidate
from lib.probing.probe_bank import ProbeBank
from lib.probing.scores import Scores
from lib.probing.selection import Choice
from lib.probing.stacked_probes import Linear
from lib.probing.study import ProbeStudy
from lib.probing.study_fit import FittedStudy

Table = list[list[float]]  # of scores, (sites, candidates)
Tables = dict[str, Table]  # by the role of the images that give the scores
ROLES = ("loo", "id-val", "probe-val", "layer-val", "test")


@dataclass(frozen=True)
class Sweep:
    """What a rule chooses from.

    kind        of the probes
    sites       in execution order
    candidates  of every site
    share       of the OOD images that is learnt from, as asked for
    sets        the number of the training set by (seed, number of the OOD set)
    """

    kind: str
    sites: list[ProbeSite]
    candidates: list[Candidate]
    share: float | None
    sets: dict[tuple[int, int], int]


@dataclass(frozen=True)
class RuleChoices:
    """What a rule chose in a sweep, by (seed, number of the OOD set).

    The rule "none" chooses nothing where there is something to choose. `roles` are those whose images decided between
    settings or layers, as `lib.probing.selection.roles_of` names them.
    """

    sweep: Sweep
    rule: str
    choices: dict[tuple[int, int], Choice]
    roles: tuple[str, ...] = ()


def choose(study: ProbeStudy, fitted: FittedStudy, scores: list[Scores]) -> list[RuleChoices]:
    """The choices of all rules that were asked for, or that the protocol has images for, in all sweeps."""
    return [
        choices
        for sweep in _sweeps(study, fitted.bank)
        for choices in _in_sweep(study, sweep, _tables(study, fitted, scores, sweep))
    ]


def chosen_probe(study: ProbeStudy, bank: ProbeBank, choices: list[RuleChoices]) -> tuple[ProbeSite, Linear]:
    """The site and the probe (k, d) that the first rule chose for the first seed.

    Raises `UserError` where several were chosen, or none.
    """
    seed, picked = study.seeds[0], []
    for ruled in [ruled for ruled in choices if ruled.choices][:1]:
        for number in range(len(study.data.shifts)):
            choice = ruled.choices[seed, number]
            site, candidate = ruled.sweep.sites[choice.site], choice.candidates[choice.site]
            picked.append((site, ruled.sweep.sets[seed, number], candidate))
    if not picked:
        raise UserError("--export: no rule chose among the layers and settings; --select one, or leave one of each")
    if len(set(picked)) > 1:
        raise UserError("--export: the OOD sets choose different probes; --tuning shared chooses one for all")
    site, number, candidate = picked[0]
    probes = bank.probes[site, number]
    return site, Linear(probes.weights[candidate], probes.biases[candidate])


def _sweeps(study: ProbeStudy, bank: ProbeBank) -> list[Sweep]:
    """All sweeps of all kinds of probes, at every share of images."""
    numbers = [(seed, number) for seed in study.seeds for number in range(len(study.data.shifts))]
    return [
        Sweep(
            kind,
            sites,
            bank.candidates[kind],
            share,
            {(seed, number): _training_set(study, seed, share, number) for seed, number in numbers},
        )
        for kind, sweeps in bank.sweeps.items()
        for sites in sweeps
        for share in dict.fromkeys(one.fraction for one in study.sets)
    ]


def _training_set(study: ProbeStudy, seed: int, share: float | None, shift: int) -> int:
    """The number of the training set whose probes are for an OOD set."""
    return next(
        number for number, one in enumerate(study.sets) if one.seed == seed and one.fraction == share and one.serves(shift)
    )


def _tables(study: ProbeStudy, fitted: FittedStudy, scores: list[Scores], sweep: Sweep) -> dict[tuple[int, int], Tables]:
    """The scores of a sweep under every role that has images for all seeds and OOD sets, by (seed, number of the set)."""
    tables: dict[tuple[int, int], Tables] = {
        key: {role: table for role in ROLES if (table := _table(study, fitted, scores, sweep, key, role))}
        for key in sweep.sets
    }
    available = set.intersection(*[set(by_role) for by_role in tables.values()])
    return {key: {role: by_role[role] for role in available} for key, by_role in tables.items()}


def _table(
    study: ProbeStudy, fitted: FittedStudy, scores: list[Scores], sweep: Sweep, key: tuple[int, int], role: str
) -> Table:
    """The scores of a role's images; none where there are no images."""
    (seed, number), learnt, table = key, sweep.sets[key], []
    for site in sweep.sites:
        if role == "loo":
            correct, groups = fitted.bank.left_out.get((site, learnt)), study.sets[learnt].groups
        elif role == "id-val":
            correct, groups = fitted.held_out.get((site, learnt)), study.data.train.groups[study.inner[seed].held_out]
        else:
            which, positions = study.role(number, seed, role)
            correct = scores[number].correct[site, learnt][which][:, positions]
            groups = study.data.shifts[number].splits[which].groups[positions]
        if correct is None or not correct.shape[1]:
            return []
        table.append(study.metric.values(correct, groups))
    return table


def _in_sweep(study: ProbeStudy, sweep: Sweep, tables: dict[tuple[int, int], Tables]) -> list[RuleChoices]:
    """What the rules choose from tables by (seed, number of the OOD set)."""
    roles = set(next(iter(tables.values())))
    if len(study.data.shifts) > 1:
        roles |= {f"other {role}" for role in roles}
    sites, count = len(sweep.sites), len(sweep.candidates)
    last = study.options.protocol.roles != "paper"  # where the last layer is the baseline alone
    taps = [site.tap for site in sweep.sites[: sites if last else max(1, sites - 1)]]
    copies = len(taps) - study.layout.different(taps)
    ruled = []
    for rule in _rules(study, roles, count):
        if rule == "none":
            only = Choice(0, (0,), 1)
            ruled.append(RuleChoices(sweep, rule, dict.fromkeys(sweep.sets, only) if sites == count == 1 else {}))
            continue
        settings, layer = selection.roles_of(rule, study.options.protocol.name, roles, count)
        decided = dict.fromkeys(role for role, several in ((settings, count > 1), (layer, sites > 1)) if role and several)
        choices = {}
        for seed, number in sweep.sets:
            for_shift = _for_shift(study, tables, seed, number)
            choices[seed, number] = selection.choose(
                rule,
                for_shift[settings] if settings else None,
                for_shift[layer] if layer else None,
                sites,
                last=last,
                copies=copies,
            )
        ruled.append(RuleChoices(sweep, rule, choices, tuple(decided)))
    return ruled


def _rules(study: ProbeStudy, available: set[str], count: int) -> tuple[str, ...]:
    """The rules asked for, or all that the protocol has images for; "none" where there is nothing to choose.

    available    the roles that have scores
    count        the number of candidates
    """
    protocol = study.options.protocol.name
    if study.options.rules:
        for rule in study.options.rules:
            if rule != "none":
                selection.roles_of(rule, protocol, available, count)
        return tuple(sorted(study.options.rules, key=lambda rule: rule == "oracle"))  # honest rules come first
    if study.layout.ranks or protocol == "id" and count == 1:
        return ("none",)
    rules = ["none"] if protocol == "id" else []
    for rule in selection.RULES[:-1]:
        try:
            selection.roles_of(rule, protocol, available, count)
        except UserError:
            continue
        rules.append(rule)
    return tuple(rules)


def _for_shift(study: ProbeStudy, tables: dict[tuple[int, int], Tables], seed: int, number: int) -> Tables:
    """What chooses for an OOD set: its own tables, or the mean over all sets; "other ..." is that over the others."""
    own, everywhere = tables[seed, number], [tables[seed, other] for other in range(len(study.data.shifts))]
    others = [by_role for other, by_role in enumerate(everywhere) if other != number]
    shared = study.options.protocol.shared
    for_shift = {role: _mean([by_role[role] for by_role in everywhere]) for role in own} if shared else own
    return for_shift | {f"other {role}": _mean([by_role[role] for by_role in others]) for role in own if others}


def _mean(tables: list[Table]) -> Table:
    """The mean of several tables."""
    return [[sum(values) / len(values) for values in zip(*rows, strict=True)] for rows in zip(*tables, strict=True)]
