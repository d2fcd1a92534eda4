"""The rows of probes: candidates, what each rule chose, and what choosing gained."""

import statistics
import time

from lib.core.errors import UserError
from lib.metrics import group_accuracy as group_metrics
from lib.metrics.classification import standard_error
from lib.probing import evaluation, selection
from lib.probing.feature_sources import Place
from lib.probing.run import Run


def rows(run: Run) -> list[dict]:
    """What every kind of probe came to: see `study.COLUMNS`. `Run.fit_and_score` comes first."""
    begin, found = time.perf_counter(), []
    for kind, sweeps in run.places.items():
        for places in sweeps:
            for share in dict.fromkeys(unit.fraction for unit in run.units):
                found += _rows_of(run, kind, places, share)
    run.count("choosing", begin)
    return found


def _rules(run: Run, available: set[str], count: int) -> tuple[str, ...]:
    """The rules asked for, or all that the protocol has images for; "none" where there is nothing to choose."""
    config = run.config
    if config.select:
        for rule in config.select:
            if rule != "none":
                selection.roles_of(rule, config.how, available, count)
        return config.select
    if config.ranks or config.how == "id" and count == 1:
        return ("none",)
    found = ["none"] if config.how == "id" else []
    for rule in selection.RULES[:-1]:
        try:
            selection.roles_of(rule, config.how, available, count)
        except UserError:
            continue
        found.append(rule)
    return tuple(found)


def _rows_of(run: Run, kind: str, places: list[Place], share: float | None) -> list[dict]:
    """The rows of one sweep and share of images: candidates, what the rules chose, and what that gained."""
    config, shifts, count = run.config, run.data.shifts, len(run.candidates[kind])
    units = {
        (seed, number): next(
            place
            for place, unit in enumerate(run.units)
            if unit.seed == seed and unit.fraction == share and run.applies(unit, number)
        )
        for seed in config.seed
        for number in range(len(shifts))
    }
    tables = {
        (seed, number): {
            role: table
            for role in ("loo", "id-val", "probe-val", "layer-val", "test")
            if (table := run.table(number, places, {number: units[seed, number]}, seed, role))
        }
        for seed in config.seed
        for number in range(len(shifts))
    }
    available = set.intersection(*[set(found) for found in tables.values()])
    tables = {key: {role: found[role] for role in available} for key, found in tables.items()}
    if len(shifts) > 1:
        available |= {f"other {role}" for role in available}
    rows = []
    for rule in _rules(run, available, count):
        if rule == "none":
            rows += [
                found
                for seed, number in units
                for place in places
                for candidate in range(count)
                for found in _test_rows(run, place, units[seed, number], candidate, number, seed, share, "none")
            ]
            if len(places) == count == 1:
                run.chosen.append((places, units, dict.fromkeys(units, selection.Choice(0, (0,), 1))))
            continue
        chosen = {}
        for seed, number in units:
            table = _table(run, tables, seed, number)
            chosen[seed, number] = evaluation.choice_of(rule, config, available, table, len(places), count)
            for at, place in enumerate(places):
                choice = chosen[seed, number]
                found = _test_rows(run, place, units[seed, number], choice.candidates[at], number, seed, share, rule)
                rows += [{**one, "chosen": at == choice.place, "candidates": choice.searched} for one in found]
        run.chosen.append((places, units, chosen))
        if len(places) > 1:
            rows += _gain_rows(run, kind, rule, places, units, chosen, share)
    return rows


def _table(run: Run, tables: dict, seed: int, number: int) -> dict[str, list[list[float]]]:
    """Scores by role that choose for an OOD set: its own, or the mean over all sets; "other ..." is that over the others."""
    own, everywhere = tables[seed, number], [tables[seed, other] for other in range(len(run.data.shifts))]
    others = [table for other, table in enumerate(everywhere) if other != number]
    found = own
    if run.config.tuning == "shared":
        found = {role: _mean([table[role] for table in everywhere]) for role in own}
    return found | {f"other {role}": _mean([table[role] for table in others]) for role in own if others}


def common(run: Run, number: int | None, share: float | None, **values) -> dict:
    """A row about an OOD set by number, or about all of them."""
    splits = [shift.test for shift in run.data.shifts] if number is None else [run.data.shifts[number].test]
    data, origin = (", ".join(dict.fromkeys(getattr(split, name) for split in splits)) for name in ("name", "origin"))
    variant, part = ("mean", "test") if number is None else (splits[0].variant, splits[0].split)
    return evaluation.row(
        network=run.label,
        data=data,
        variant=variant,
        origin=origin,
        split=part,
        protocol=run.config.how,
        fraction=share,
        **values,
    )


def _test_rows(run: Run, place, unit: int, candidate: int, number: int, seed: int, share, rule: str) -> list[dict]:
    shift = run.data.shifts[number]
    setting, epoch = run.candidates[place.kind][candidate]
    _, positions = shift.role("test", run.shares[number, seed])
    found = evaluation.accuracy_rows(
        run.scores[number].correct[place, unit]["test"][candidate], shift.test, positions, run.sizes_for(shift.test)
    )
    about = common(
        run,
        number,
        share,
        probe=place.kind,
        layer=place.tap.layer,
        reduce=place.tap.reduce,
        dim=run.supply.dim(place.tap),
        rank=place.rank,
        solver=run.config.solver,
        lr=setting.lr,
        l1=setting.l1,
        l2=setting.l2,
        seed=seed,
        epoch=epoch,
        selected_by=rule,
        strength=run.strengths.get((place, unit)),
    )
    return [about | one for one in found]


def _gain_rows(run: Run, kind: str, rule: str, places, units, chosen, share) -> list[dict]:
    """Per OOD set, and for their mean: the chosen layer's metric, the last one's, and the interval of the difference."""
    rows, everything = [], []
    shifts = run.data.shifts
    for number, shift in enumerate(shifts):
        entries = []
        for seed in run.config.seed:
            choice, unit = chosen[seed, number], units[seed, number]
            _, positions = shift.role("test", run.shares[number, seed])
            pair = [
                run.scores[number].correct[places[at], unit]["test"][choice.candidates[at]][positions]
                for at in (choice.place, len(places) - 1)
            ]
            entries.append((*pair, shift.test.indices[positions], shift.test.groups[positions]))
        everything.append(entries)
        layers = [places[chosen[seed, number].place].tap.layer for seed in run.config.seed]
        rows.append(
            _gain_row(run, kind, rule, number, share, places, entries, layers, chosen[run.config.seed[0], number].searched)
        )
    if len(shifts) > 1 and len({shift.origin for shift in shifts}) == 1:
        median = statistics.median(row["gain"] for row in rows)
        mean = _gain_row(
            run,
            kind,
            rule,
            None,
            share,
            places,
            [entry for entries in everything for entry in entries],
            [],
            rows[0]["candidates"],
        )
        rows.append(mean | {"gain_median": median})
    return rows


def _gain_row(
    run: Run, kind: str, rule: str, number: int | None, share, places, entries, layers: list[str], searched: int
) -> dict:
    first, second, ids, groups = (list(column) for column in zip(*entries, strict=True))
    measure, grouped = run.metric.name, run.metric.name != "accuracy"
    values = [
        [run.metric.values(correct[None], where)[0] for correct, where in zip(column, groups, strict=True)]
        for column in (first, second)
    ]
    gain, low, high = group_metrics.paired_gain(
        first, second, ids, groups=groups if grouped else None, sizes=run.sizes if measure == "adjusted" else None
    )
    best, base = (statistics.fmean(column) for column in values)
    return common(
        run,
        number,
        share,
        probe="gain" if kind == "probe" else f"{kind}-gain",
        layer=" ".join(dict.fromkeys(layers)),
        reduce=" ".join(dict.fromkeys(place.tap.reduce for place in places)),
        rank=places[0].rank,
        group={"accuracy": "all", "worst-group": "worst"}.get(measure, measure),
        solver=run.config.solver,
        selected_by=rule,
        n=sum(map(len, first)),
        accuracy=best,
        se=_standard_error(run, values[0], first),
        baseline=base,
        gain=gain,
        gain_low=low,
        gain_high=high,
        candidates=searched,
    )


def _standard_error(run: Run, values: list[float], correct: list) -> float | None:
    """That of the mean of the values of all seeds (and OOD sets, seeds running faster): between seeds, else binomial."""
    seeds = len(run.config.seed)
    if seeds > 1:
        return statistics.stdev([statistics.fmean(values[seed::seeds]) for seed in range(seeds)]) / seeds**0.5
    if run.metric.name != "accuracy":
        return None
    errors = [standard_error(value, len(one)) for value, one in zip(values, correct, strict=True)]
    return sum(error**2 for error in errors) ** 0.5 / len(errors)


def _mean(tables: list[list[list[float]]]) -> list[list[float]]:
    """The mean table of several (places, candidates)."""
    return [[sum(values) / len(values) for values in zip(*rows, strict=True)] for rows in zip(*tables, strict=True)]
