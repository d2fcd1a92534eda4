"""One network under a probing configuration: its places, who learns from what, the fitted probes and their scores.

`config` is `ProbeConfig` or anything with its fields. Intermediate-layers paper, section 2.
"""

import time
import warnings
from dataclasses import dataclass

import torch

from lib import graph, low_rank, truncated
from lib.datasets.split import Split
from lib.errors import UsageError, UserError
from lib.features import Collected, Features, Tap, collect, fit_pca
from lib.models.normalized import Normalized
from lib.probes import study
from lib.probes.fit import Directions, Recipe
from lib.probes.roles import ID_VAL, ROLES, draw_balanced, draw_fraction, draw_shots, refuse_overlap
from lib.probes.stack import Linear, Setting
from lib.probes.study import Metric, Place, Shift, Unit
from lib.randomness import generator


@dataclass(frozen=True)
class Data:
    """What the run reads: the training split and its labels' classes, OOD sets, and how images are given."""

    name: str
    train: Split
    train_origin: str
    shifts: list[Shift]
    classes: tuple[str, ...]
    channels: int
    size: int


class Run:
    """One network, all its places, units and scores."""

    def __init__(self, config, label: str, network: Normalized, data: Data, seconds: dict) -> None:
        self.config, self.label, self.network, self.data, self.seconds = config, label, network, data, seconds
        self.shares = {(number, seed): shift.shares(config.how, config.roles, seed)
                       for number, shift in enumerate(data.shifts) for seed in config.seed}
        self.learns_inside = config.how in ("id", "zero-shot")
        self.inner = {seed: self._inner(seed) for seed in config.seed}
        self._refuse_overlap()
        self._choose_taps()
        self.chosen = []  # what each rule chose: (places, units, choices by seed and OOD set)
        self.settings = [Setting(lr if config.solver in ("adam", "sgd") else None, l1, l2)
                         for lr in (config.learning_rate if config.solver in ("adam", "sgd") else (None,))
                         for l1 in config.l1 for l2 in config.l2]
        self.recipe = Recipe(
            solver=config.solver, epochs=config.epochs, batch_size=config.batch_size, momentum=config.momentum,
            weight_decay=config.weight_decay, milestones=config.milestones, keep=config.keep_epochs,
            standardise=config.standardise, gib=config.cache_gib)
        count = max(len(data.train.group_names), 1)
        self.sizes = torch.bincount(data.train.groups, minlength=count)
        grouped = count > 1 and all(shift.test.group_names == data.train.group_names for shift in data.shifts)
        metric = config.metric if config.metric != "auto" else "worst-group" if grouped else "accuracy"
        if metric != "accuracy" and not grouped:
            raise UserError(f"--metric {metric}: {data.name} and the OOD sets have no groups in common")
        self.metric = Metric(metric, self.sizes)

    def fit_and_score(self) -> None:
        """Passes, probes and scores; everything that rows are made from."""
        self._fit()
        self.scores = [self._score(number) for number in range(len(self.data.shifts))]
        self._warn_of_missing_groups()

    # --- what is read

    def _inner(self, seed: int):
        """(positions that train, positions that validate) in the in-distribution training split."""
        n = len(self.data.train)
        wanted = self.config.roles == "clean" and (self.learns_inside or "id-val" in self.config.select)
        order = torch.randperm(n, generator=generator(seed, "id-val"))
        count = round(ID_VAL * n) if wanted else 0
        return order[count:].sort().values, order[:count].sort().values

    def _refuse_overlap(self) -> None:
        for seed in self.config.seed:
            found = {role: {} for role in ROLES}

            def add(role, origin, split, positions, found=found):
                found[role].setdefault(origin, set()).update(split.indices[positions].tolist())
            add("id-val", self.data.train_origin, self.data.train, self.inner[seed][1])
            if self.learns_inside:
                add("probe-train", self.data.train_origin, self.data.train, self.inner[seed][0])
            for number, shift in enumerate(self.data.shifts):
                for role in ("probe-train", "probe-val", "layer-val", "test"):
                    which, positions = shift.role(role, self.shares[number, seed])
                    origin = shift.origin if which == "test" else shift.val_origin
                    add(role, origin, shift.test if which == "test" else shift.val, positions)
            shared = (("probe-val", "layer-val"),) if self.config.roles == "paper" else ()
            refuse_overlap(found, shared)

    def _choose_taps(self) -> None:
        config, data = self.config, self.data
        device = next(self.network.parameters()).device
        listed = graph.layers(self.network, torch.zeros(1, data.channels, data.size, data.size, device=device))
        shapes = {layer.name: layer.shape for layer in listed if layer.shape}
        chosen = graph.select(list(shapes), config.layers, {"all": list(shapes),
                                                            "cuts": [layer.name for layer in listed if layer.cut]})
        last = listed[-1].name
        self.head = Tap(last, "flatten") if len(shapes.get(last, ())) == 1 else None
        chosen = [name for name in chosen if name != last or len(chosen) == 1]
        self.taps = []
        for name in chosen:
            shape = shapes[name]
            usual = "gap" if len(shape) == 3 and config.ranks else "cls" if len(shape) == 2 else "flatten"
            for reduce in config.reduce or (usual,):
                if config.ranks and len(shape) > 1 and reduce not in ("gap", "cls", "mean-token"):
                    raise UsageError(f"-ranks: --reduce {reduce} does not keep the channels of layer {name} apart; gap does")
                self.taps.append(Tap(name, reduce))
        if config.export:
            for tap in self.taps:
                truncated.check(tap, self.network)
        self.ranks = self._possible_ranks({name: shapes[name][-1 if len(shapes[name]) == 2 else 0] for name in chosen})

    def _possible_ranks(self, channels: dict[str, int]) -> tuple[int, ...]:
        """The ranks that every layer has; larger ones are an error alone and dropped from a list."""
        asked = self.config.ranks
        least = min(channels, key=channels.get)
        beyond = [rank for rank in asked if rank > channels[least]]
        if beyond and len(beyond) == len(asked):
            raise UserError(f"-ranks {' '.join(map(str, asked))}: layer {least} has {channels[least]} channels")
        if beyond:
            warnings.warn(f"-ranks {' '.join(map(str, beyond))}: left out, layer {least} has {channels[least]} channels",
                          stacklevel=2)
        return tuple(dict.fromkeys(rank for rank in asked if rank not in beyond))

    def collect(self, split: Split, head: bool = False, moments: bool = False) -> Collected:
        """The features of a split at all taps, and at the head."""
        begin, config = time.perf_counter(), self.config
        head_tap = (self.head,) if head and self.head else ()
        found = collect(
            self.network, split, [*self.taps, *[tap for tap in head_tap if tap not in self.taps]], reducers=self.fitted,
            moments=moments, exact=head_tap, cache_dir=config.cache_dir, cache_gib=config.cache_gib,
            dtype=config.cache_type, seed=config.seed[0], label=f"{split.name} {split.variant}".strip(), **self._options())
        self.count("passes", begin)
        return found

    def _options(self) -> dict:
        config = self.config
        return dict(batch_size=max(config.batch_size, 128), channels=self.data.channels, size=self.data.size,
                    workers=config.workers, prefetch=config.prefetch, quiet=config.quiet)

    def count(self, stage: str, begin: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begin

    # --- fitting

    def _fit(self) -> None:
        config, data = self.config, self.data
        self.fitted = fit_pca(self.network, data.train, self.taps, **self._options())
        self.loo, self.inner_correct, self.dims = {}, {}, {}
        inner = self.collect(data.train, moments=bool(self.ranks)) if self._needs_inner() else None
        self.units, sources = self._units(inner)
        if len({len(unit.positions) for unit in self.units} - {0}) == 0:
            raise UserError("there is no image to learn from")
        begin = time.perf_counter()
        self.probes, self.means = {}, {}
        for tap in self.taps:
            directions = None
            if self.ranks:
                moments = inner.moments[tap.layer]
                directions = Directions(moments.mean, low_rank.basis(moments.covariance))
            mine = [source[tap] for source in sources]
            warm = self._warm(tap, mine[0].dim) if config.warm_start and tap == self.taps[-1] else None
            found = study.fit_units(tap, mine, self.units, self.settings, self.ranks, len(data.classes), self.recipe,
                                    directions, warm)
            for (place, number), (linear, stack, group) in found.items():
                self.probes[place, number] = linear
                self.candidates = stack.candidates
                if stack.left_out is not None:
                    self.loo[place, number] = stack.left_out[group]
                if inner is not None and len(self.inner[self.units[number].seed][1]):
                    held = self.inner[self.units[number].seed][1]
                    part = Features(inner.features[tap].stored[held], inner.features[tap].scale)
                    self.inner_correct[place, number] = study.correct(linear, part, data.train.labels[held])
            if not self.ranks:
                for number, unit in enumerate(self.units):
                    self.means[tap, number] = study.class_means(mine[unit.source], unit, len(data.classes))
        self.count("fitting", begin)

    def _needs_inner(self) -> bool:
        return self.learns_inside or any(len(held) for _, held in self.inner.values())

    def _units(self, inner):
        """What learns, and the features by tap that each source stands for."""
        config, data = self.config, self.data
        if self.learns_inside:
            units = [Unit(seed, 0, rows, data.train.labels[rows])
                     for seed in config.seed for rows in [self._balanced(data.train, self.inner[seed][0], seed)]]
            return units, [inner.features]
        shared = config.tuning == "shared"
        units, sources = [], []
        collected = [self.collect(shift.test if shift.val is None else shift.val) for shift in data.shifts]
        for number, shift in enumerate(data.shifts):
            split = shift.test if shift.val is None else shift.val
            sources.append(collected[number].features)
            for seed in config.seed:
                _, pool = shift.role("probe-train", self.shares[number, seed])
                for share in (config.fraction or (None,)):
                    rows = self._drawn(split, pool, share, seed, number if shared else None)
                    rows = self._balanced(split, rows, seed)
                    units.append(Unit(seed, number, rows, split.labels[rows], share, None if shared else number))
        if not shared:
            return units, sources
        return self._pooled(units, sources)

    def _drawn(self, split, pool, share: float | None, seed: int, part: int | None):
        """The rows that a probe learns from; `part` is the shift's number where all shifts share one probe."""
        config = self.config
        if config.how == "full-ood":
            return pool
        if config.shots:
            return draw_shots(split.labels, pool, len(self.data.classes), config.shots, seed)
        if part is None:
            count = round((share or 0.1) * len(split)) if config.roles == "clean" or share else len(pool)
            return draw_fraction(pool, count, seed)
        # every image of the pool under one corruption only, as many under each
        each = (len(pool) if share is None else round(share * len(split))) // len(self.data.shifts)
        chosen = draw_fraction(pool, each * len(self.data.shifts), seed) if each else pool[:0]
        if not each:
            raise UserError(f"--tuning shared: {len(pool)} images are too few for {len(self.data.shifts)} OOD sets")
        order = torch.randperm(len(chosen), generator=generator(seed, "parts"))
        return chosen[order[part * each:(part + 1) * each]].sort().values

    def _pooled(self, units, sources):
        """One unit per seed and share from the units of all shifts, on features that are put behind one another."""
        joined, found = [], []
        for key in dict.fromkeys((unit.seed, unit.fraction) for unit in units):
            parts = [unit for unit in units if (unit.seed, unit.fraction) == key]
            joined.append({tap: Features(torch.cat([sources[unit.source][tap].rows(unit.positions)
                                                             for unit in parts])) for tap in self.taps})
            labels = torch.cat([unit.labels for unit in parts])
            found.append(Unit(key[0], len(joined) - 1, torch.arange(len(labels)), labels, key[1]))
        return found, joined

    def _balanced(self, split, positions, seed: int):
        if self.config.class_balance == "none":
            return positions
        values = split.groups if self.config.class_balance == "groups" else split.labels
        return draw_balanced(positions, values, seed)

    def _warm(self, tap, dim: int):
        head = self.head and self.network.body.get_submodule(self.head.layer)
        if not isinstance(head, torch.nn.Linear) or head.in_features != dim:
            raise UserError(f"--warm-start: the head does not read the {dim} features of layer {tap.layer}; choose the "
                            "layer before it as the last, or another --reduce")
        if head.out_features != len(self.data.classes):
            raise UserError(f"--warm-start: the head has {head.out_features} classes, {self.data.name} has "
                            f"{len(self.data.classes)}")
        return Linear(head.weight.detach().cpu(), head.bias.detach().cpu())

    # --- scoring

    def applies(self, unit, number: int) -> bool:
        return unit.shift is None or unit.shift == number

    def _score(self, number: int):
        shift, scores = self.data.shifts[number], study.Scores()
        splits = {"test": shift.test} | ({"val": shift.val} if shift.val is not None else {})
        for which, split in splits.items():
            collected = self.collect(split, head=which == "test")
            begin = time.perf_counter()
            for (place, unit), linear in self.probes.items():
                if self.applies(self.units[unit], number):
                    kept = scores.correct.setdefault((place, unit), {})
                    kept[which] = study.correct(linear, collected.features[place.tap], split.labels)
            if which == "test":
                for (tap, unit), linear in self.means.items():
                    if self.applies(self.units[unit], number):
                        scores.means[tap, unit] = study.correct(linear, collected.features[tap], split.labels)[0]
                if self.head and len(self.data.classes) == collected.features[self.head].dim:
                    scores.head["test"] = study.head_predictions(collected, self.head) == split.labels
            self.count("scoring", begin)
            self.dims |= {tap: kept.dim for tap, kept in collected.features.items()}
        return scores

    def table(self, number: int, places, units: dict[int, int], seed: int, role: str) -> list[list[float]]:
        """Scores (places, candidates) of a role's images."""
        unit, table = units[number], []
        for place in places:
            if role == "loo":
                correct, groups = self.loo.get((place, unit)), self.data.train.groups[self.units[unit].positions]
            elif role == "id-val":
                correct, groups = self.inner_correct.get((place, unit)), self.data.train.groups[self.inner[seed][1]]
            else:
                which, positions = self.data.shifts[number].role(role, self.shares[number, seed])
                correct = self.scores[number].correct[place, unit][which][:, positions]
                split = self.data.shifts[number].test if which == "test" else self.data.shifts[number].val
                groups = split.groups[positions]
            if correct is None or not correct.shape[1]:
                return []
            table.append(self.metric.values(correct, groups))
        return table

    def exported(self) -> tuple[Place, Linear]:
        """The place and the probe (k, d) that the first rule chose for the first seed.

        Raises `UserError` where several were chosen, or none.
        """
        seed, picked = self.config.seed[0], []
        for places, units, chosen in self.chosen[:1]:
            for number in range(len(self.data.shifts)):
                choice = chosen[seed, number]
                picked.append((places[choice.place], units[seed, number], choice.candidates[choice.place]))
        if not picked:
            raise UserError("--export: no rule chose among the layers and settings; --select one, or leave one of each")
        if len(set(picked)) > 1:
            raise UserError("--export: the OOD sets choose different probes; --tuning shared chooses one for all")
        place, unit, candidate = picked[0]
        linear = self.probes[place, unit]
        return place, Linear(linear.weights[candidate], linear.biases[candidate])

    def _warn_of_missing_groups(self) -> None:
        for shift in self.data.shifts:
            absent = [name for number, name in enumerate(shift.test.group_names) if not (shift.test.groups == number).any()]
            if absent:
                warnings.warn(f"{shift.name}: no test image of group {', '.join(absent)}; the worst group is one of the "
                              "others", stacklevel=2)
