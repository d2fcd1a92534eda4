"""The rows of probes: candidates, what each rule chose, and what choosing gained."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.metrics import group_accuracy as group_metrics
from lib.metrics import permutation_null
from lib.probing import evaluation
from lib.probing.best_layers import best_layers, gain_null
from lib.probing.feature_provider import FeatureProvider
from lib.probing.feature_sources import ProbeSite
from lib.probing.probe_bank import ProbeBank
from lib.probing.scores import Scores
from lib.probing.study import ProbeStudy
from lib.probing.study_choices import RuleChoices
from lib.representations.features import Tap


@dataclass(frozen=True)
class _Report:
    """What rows of single probes are made of."""

    study: ProbeStudy
    provider: FeatureProvider
    bank: ProbeBank
    scores: list[Scores]


def rows(
    study: ProbeStudy, provider: FeatureProvider, bank: ProbeBank, scores: list[Scores], choices: list[RuleChoices]
) -> list[dict]:
    """What every kind of probe came to, with the columns `evaluation.COLUMNS`."""
    report, rows = _Report(study, provider, bank, scores), []
    for ruled in choices:
        rows += _candidate_rows(report, ruled) if ruled.rule == "none" else _chosen_rows(report, ruled)
        if ruled.rule != "none" and len(ruled.sweep.sites) > 1:
            rows += _gain_rows(report, ruled)
    return rows


def common(study: ProbeStudy, number: int | None, share: float | None, **values) -> dict:
    """A row about an OOD set by number, or about all of them; `share` of its images is learnt from."""
    splits = [shift.test for shift in study.data.shifts] if number is None else [study.data.shifts[number].test]
    variant, part = ("mean", "test") if number is None else (splits[0].variant, splits[0].split)
    return evaluation.row(
        network=study.label,
        data=", ".join(dict.fromkeys(split.name for split in splits)),
        variant=variant,
        origin=", ".join(dict.fromkeys(split.origin for split in splits)),
        split=part,
        protocol=study.options.protocol.name,
        fraction=share,
        **values,
    )


def of_tap(study: ProbeStudy, tap: Tap) -> dict:
    """What rows say of a tap: its layer with its role and the layers that put out the same, and its reducer."""
    aliases, role = " ".join(study.layout.aliases.get(tap, ())), study.layout.roles.get(tap.layer)
    return {"layer": tap.layer, "role": role or None, "aliases": aliases or None, "reduce": tap.reduce}


# --- who learnt, who chose


UPPER_BOUND = "upper bound, chosen on the test images"


def _choice(study: ProbeStudy, ruled: RuleChoices) -> str | None:
    """How settings and layer were chosen, in words: by each seed or once, and on which images; None for no choice."""
    if ruled.rule == "oracle":
        return UPPER_BOUND
    on = " and ".join(dict.fromkeys(_images(study, role) for role in ruled.roles))
    if ruled.rule == "last-but-one":
        on = f"settings on {on}" if on else ""
        return ", ".join(part for part in ("layer fixed beforehand", on) if part)
    return f"{'by each seed' if len(study.seeds) > 1 else 'once'}, on {on}" if on else None


def _images(study: ProbeStudy, role: str) -> str:
    """The images of a role that chooses, in words."""
    if role == "loo":
        return "the images learnt from, each left out"
    if role == "id-val":
        return f"in-distribution images {study.known_of_held_out}".rstrip()
    words = "images of the other OOD sets" if role.startswith("other ") else "OOD images"
    return f"{words} that also test" if study.validates_on_test else words


def _validated(study: ProbeStudy, ruled: RuleChoices, seed: int, numbers: Sequence[int]) -> int | None:
    """How many images chose settings or layer, for OOD sets by number; None where nothing was chosen."""
    every, positions = range(len(study.data.shifts)), {}
    for number in numbers:
        for role in ruled.roles:
            if role == "loo":
                learnt = ruled.sweep.sets[seed, number]
                positions[role, learnt] = [study.sets[learnt].positions]
            elif role == "id-val":
                positions[role, 0] = [study.inner[seed].held_out]
            else:
                apart = role.startswith("other ")
                for one in every if study.options.protocol.shared else [number]:
                    for other in [other for other in every if other != one] if apart else [one]:
                        which, chosen = study.role(other, seed, role.removeprefix("other "))
                        positions.setdefault((which, other), []).append(chosen)
    return sum(len(torch.cat(several).unique()) for several in positions.values()) if positions else None


# --- single probes


def _candidate_rows(report: _Report, ruled: RuleChoices) -> list[dict]:
    """Every candidate of every site, where nothing is chosen."""
    said = _said_of_sites(report, ruled)
    return [
        row
        for seed, number in ruled.sweep.sets
        for at, site in enumerate(ruled.sweep.sites)
        for candidate in range(len(ruled.sweep.candidates))
        for row in _with_said(_test_rows(report, ruled, site, candidate, seed, number), report, said[number][at])
    ]


def _chosen_rows(report: _Report, ruled: RuleChoices) -> list[dict]:
    """The chosen candidate of every site; the chosen site is marked."""
    said = _said_of_sites(report, ruled)
    return [
        {**row, "chosen": at == choice.site, "candidates": choice.searched}
        for (seed, number), choice in ruled.choices.items()
        for at, site in enumerate(ruled.sweep.sites)
        for row in _with_said(_test_rows(report, ruled, site, choice.candidates[at], seed, number), report, said[number][at])
    ]


def _said_of_sites(report: _Report, ruled: RuleChoices) -> dict[int, list[dict]]:
    """For each OOD set what is said of every site after a look at all of them; nothing where nothing can be."""
    return {number: _said(report, ruled, number) for number in {number for _, number in ruled.sweep.sets}}


def _said(report: _Report, ruled: RuleChoices, number: int) -> list[dict]:
    """Whether each site's layer may be the best for an OOD set, and with `--null` what its gain is by chance."""
    best = best_layers(report.study, report.scores, ruled, [number])
    if best is None:
        return [{} for _ in ruled.sweep.sites]
    return [
        {"in_best_set": within, **null} for within, null in zip(best.within, _nulls(report, ruled, [number]), strict=True)
    ]


def _nulls(report: _Report, ruled: RuleChoices, numbers: list[int]) -> list[dict]:
    """What the gain of every site over the last one is by chance; None for the last one itself."""
    null = gain_null(report.study, report.scores, ruled, numbers, report.study.seeds[0])
    if null is None:
        return [{} for _ in ruled.sweep.sites]
    return [*null.columns(), dict.fromkeys(permutation_null.COLUMNS)]


def _with_said(rows: list[dict], report: _Report, said: dict) -> list[dict]:
    """The rows of a site; that of the metric has what is said after a look at all sites."""
    group = "all" if report.study.metric.name == "accuracy" else "adjusted"
    for row in rows:
        if row["group"] == group:
            row |= said
    return rows


def _test_rows(report: _Report, ruled: RuleChoices, site: ProbeSite, candidate: int, seed: int, number: int) -> list[dict]:
    """How a probe does on the test images of an OOD set, all of them and by group."""
    study, learnt, test = report.study, ruled.sweep.sets[seed, number], report.study.data.shifts[number].test
    setting, epochs = ruled.sweep.candidates[candidate].setting, ruled.sweep.candidates[candidate].epochs
    correct = report.scores[number].correct[site, learnt]["test"][candidate]
    about = common(
        study,
        number,
        ruled.sweep.share,
        probe=site.kind,
        **of_tap(study, site.tap),
        dim=report.provider.dim(site.tap),
        rank=site.rank,
        solver=study.options.recipe.solver,
        lr=setting.lr if setting else None,
        l1=setting.l1 if setting else None,
        l2=setting.l2 if setting else None,
        l2_norm=setting.norm if setting else None,
        seed=seed,
        epoch=epochs,
        selected_by=ruled.rule,
        choice=_choice(study, ruled),
        n_learnt=len(study.sets[learnt].positions),
        n_validated=_validated(study, ruled, seed, [number]),
        strength=report.bank.strengths.get((site, learnt)),
    )
    measured = evaluation.accuracy_rows(correct, test, study.tested(number, seed), study.group_sizes(test))
    return [about | one for one in measured]


# --- what choosing gained


@dataclass(frozen=True)
class _Pair:
    """Whether test images are right by the chosen site's probe and by the last one's; their ids and groups; all (n,)."""

    chosen: Tensor
    last: Tensor
    ids: Tensor
    groups: Tensor


def _gain_rows(report: _Report, ruled: RuleChoices) -> list[dict]:
    """Per OOD set, and for their mean: the chosen layer's metric, the last one's, and the interval of the difference."""
    study, sweep = report.study, ruled.sweep
    shifts, rows, everything = study.data.shifts, [], []
    for number in range(len(shifts)):
        pairs = [_pair(report, ruled, seed, number) for seed in study.seeds]
        everything += pairs
        layers = [sweep.sites[ruled.choices[seed, number].site].tap.layer for seed in study.seeds]
        row = _gain_row(study, ruled, number, pairs, layers, ruled.choices[study.seeds[0], number].searched)
        rows.append(row | _after_selection(report, ruled, [number]))
    if len(shifts) > 1 and len({shift.origin for shift in shifts}) == 1:
        median = statistics.median(row["gain"] for row in rows)
        mean = _gain_row(study, ruled, None, everything, [], rows[0]["candidates"])
        rows.append(mean | {"gain_median": median} | _after_selection(report, ruled, list(range(len(shifts)))))
    return rows


def _after_selection(report: _Report, ruled: RuleChoices, numbers: list[int]) -> dict:
    """The layers that may be the best, and of the chosen one's gain the bound and, with `--null`, what it is by chance.

    Neither where several layers were chosen.
    """
    best = best_layers(report.study, report.scores, ruled, numbers)
    if best is None:
        return {}
    chosen = {ruled.choices[seed, number].site for seed in report.study.seeds for number in numbers}
    if len(chosen) > 1:
        return {"best_set": best.words, "gain_bound": None}
    at = chosen.pop()
    return {"best_set": best.words, "gain_bound": best.bounds[at], **_nulls(report, ruled, numbers)[at]}


def _pair(report: _Report, ruled: RuleChoices, seed: int, number: int) -> _Pair:
    study, sites, choice = report.study, ruled.sweep.sites, ruled.choices[seed, number]
    positions, test = study.tested(number, seed), study.data.shifts[number].test
    correct, learnt = report.scores[number].correct, ruled.sweep.sets[seed, number]
    chosen, last = (
        correct[sites[at], learnt]["test"][choice.candidates[at]][positions] for at in (choice.site, len(sites) - 1)
    )
    return _Pair(chosen, last, test.indices[positions], test.groups[positions])


def _gain_row(
    study: ProbeStudy, ruled: RuleChoices, number: int | None, pairs: list[_Pair], layers: list[str], searched: int
) -> dict:
    """The row of the pairs of all seeds (and OOD sets, seeds running faster); `searched` is among how many was chosen."""
    metric, kind, sites = study.metric, ruled.sweep.kind, ruled.sweep.sites
    chosen, last, groups = [pair.chosen for pair in pairs], [pair.last for pair in pairs], [pair.groups for pair in pairs]
    values, baseline = (
        [metric.values(correct[None], where)[0] for correct, where in zip(column, groups, strict=True)]
        for column in (chosen, last)
    )
    gain, low, high = group_metrics.paired_gain(
        chosen,
        last,
        [pair.ids for pair in pairs],
        groups=None if metric.name == "accuracy" else groups,
        sizes=metric.sizes if metric.name == "adjusted" else None,
        seeds=len(study.seeds),
    )
    numbers, first = range(len(study.data.shifts)) if number is None else [number], study.seeds[0]
    learnt = {ruled.sweep.sets[first, one] for one in numbers}
    repeated = len(study.seeds) > 1 or ruled.rule == "last-but-one"  # each seed chooses for itself, or nothing is chosen
    return common(
        study,
        number,
        ruled.sweep.share,
        probe="gain" if kind == "probe" else f"{kind}-gain",
        layer=" ".join(dict.fromkeys(layers)),
        reduce=" ".join(dict.fromkeys(site.tap.reduce for site in sites)),
        rank=sites[0].rank,
        group={"accuracy": "all", "worst-group": "worst"}.get(metric.name, metric.name),
        solver=study.options.recipe.solver,
        selected_by=ruled.rule,
        choice="; ".join(filter(None, (_choice(study, ruled), "" if repeated else "not repeated in the interval"))),
        n_learnt=sum(len(study.sets[one].positions) for one in learnt),
        n_validated=_validated(study, ruled, first, numbers),
        n=sum(len(correct) for correct in chosen[:: len(study.seeds)]),
        accuracy=statistics.fmean(values),
        se=_standard_error(study, values, pairs),
        baseline=statistics.fmean(baseline),
        gain=gain,
        gain_low=low,
        gain_high=high,
        over="images" if len(study.seeds) == 1 else "seeds and images",
        n_seeds=len(study.seeds),
        candidates=searched,
    )


def _standard_error(study: ProbeStudy, values: list[float], pairs: list[_Pair]) -> float | None:
    """That of the mean of the values of all seeds (and OOD sets, seeds running faster), for the pairs that they are of.

    Between seeds, where there are several; else over images, whose versions in several OOD sets go together.
    """
    seeds = len(study.seeds)
    if seeds > 1:
        return statistics.stdev([statistics.fmean(values[seed::seeds]) for seed in range(seeds)]) / seeds**0.5
    if study.metric.name != "accuracy" or not all(len(pair.chosen) for pair in pairs):
        return None
    ids = torch.cat([pair.ids for pair in pairs]).unique()
    moved = torch.zeros(len(ids), dtype=torch.float64)  # by each image, the mean of the values
    for pair, value in zip(pairs, values, strict=True):
        moved.index_add_(
            0, torch.searchsorted(ids, pair.ids), (pair.chosen.double() - value) / len(pair.chosen) / len(pairs)
        )
    return moved.square().sum().sqrt().item()
