"""One network under a probing configuration: its places, the sources of features, the fitted probes and their scores.

`config` is `ProbeConfig` or anything with its fields. Intermediate-layers paper, section 2.
"""

import functools
import time
import warnings
from dataclasses import dataclass

import torch

from lib.core.errors import UserError
from lib.core.randomness import generator
from lib.datasets.batching import Batching
from lib.datasets.split import Split, join
from lib.models.class_groups import padded, pooled
from lib.models.normalized import Normalized
from lib.probing import baselines, evaluation, training_sets
from lib.probing.evaluation import Metric, Shift
from lib.probing.feature_sources import Kept, Live, Place, Unit, class_means, fit_live, scored
from lib.probing.feature_supply import Supply
from lib.probing.fit import Directions, Fitted, Probes, Recipe
from lib.probing.layers import choose, head_of
from lib.probing.roles import ID_VAL, ROLES, refuse_overlap
from lib.probing.stacked_probes import Linear, Setting
from lib.representations.features import Features, Tap, Views


@dataclass(frozen=True)
class PooledHead:
    """The network's own logits, read as answers in classes each of which several outputs answer for.

    The classes' outputs are pooled as in `lib.models.class_groups`.
    """

    members: torch.Tensor

    @property
    def biases(self) -> torch.Tensor:
        """Zeros of the shape that a probe's biases have."""
        return torch.zeros(1, len(self.members))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(n, k) -> (1, n, c)."""
        return pooled(features, self.members)[None]


@dataclass(frozen=True)
class Data:
    """What the run reads: the training split and its labels' classes, OOD sets, and how images are given.

    members    the network's outputs that answer for each class, where they are others than the classes
    """

    name: str
    train: Split
    train_origin: str
    shifts: list[Shift]
    classes: tuple[str, ...]
    channels: int
    size: int
    members: tuple[tuple[int, ...], ...] = ()


class Run:
    """One network, all its places, units and scores.

    probes, candidates and places say what was fitted: (place, number of a unit) -> probes (c, k, d); kind of probe -> what
    its c candidates are; kind -> sweeps, lists of places that a rule chooses from.
    """

    def __init__(self, config, label: str, network: Normalized, data: Data, seconds: dict) -> None:
        self.config, self.label, self.network, self.data, self.seconds = config, label, network, data, seconds
        self.shares = {
            (number, seed): shift.shares(config.how, config.roles, seed)
            for number, shift in enumerate(data.shifts)
            for seed in config.seed
        }
        self.learns_inside = config.how in ("id", "zero-shot")
        self.inner = {seed: self._inner(seed) for seed in config.seed}
        self._refuse_overlap()
        self.layout = choose(config, network, data.channels, data.size)
        batching = Batching(
            device=next(network.parameters()).device,
            batch_size=max(config.batch_size, 128),
            channels=data.channels,
            size=data.size,
            workers=config.workers,
            prefetch=config.prefetch,
            quiet=config.quiet,
        )
        self.supply = Supply(config, network, self.layout, data.train, batching, seconds)
        self.baselines = baselines.possible(self)
        self.chosen = []  # what each rule chose: (places, units, choices by seed and OOD set)
        self.settings = [
            Setting(lr if config.solver in ("adam", "sgd") else None, l1, l2)
            for lr in (config.learning_rate if config.solver in ("adam", "sgd") else (None,))
            for l1 in config.l1
            for l2 in config.l2
        ]
        self.probes, self.candidates, self.places, self.left_out, self.strengths = {}, {}, {}, {}, {}
        self.recipe = Recipe(
            solver=config.solver,
            epochs=config.epochs,
            batch_size=config.batch_size,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            milestones=config.milestones,
            keep=config.keep_epochs,
            standardise=config.standardise,
            gib=config.cache_gib,
        )
        count = max(len(data.train.group_names), 1)
        self.sizes = torch.bincount(data.train.groups, minlength=count)
        grouped = count > 1 and all(shift.test.group_names == data.train.group_names for shift in data.shifts)
        metric = config.metric if config.metric != "auto" else "worst-group" if grouped else "accuracy"
        if metric != "accuracy" and not grouped:
            raise UserError(f"--metric {metric}: {data.name} and the OOD sets have no groups in common")
        self.metric = Metric(metric, self.sizes)

    def fit_and_score(self) -> None:
        """Passes, probes and scores; everything that rows are made from."""
        self.units, parts = self._draw()
        images = (len(self.data.train) * (1 + self.config.augment) if self._needs_inner() else 0) + sum(
            len(shift.test) + len(shift.val or ()) for shift in self.data.shifts
        )
        needing = [name for name in self.baselines if name in baselines.OF_KEPT_FEATURES]
        examples = max(len(unit.positions) * max(1, unit.views) for unit in self.units)
        if not examples:
            raise UserError("there is no image to learn from")
        self.supply.plan(images, examples, self.recipe, f"--baselines {' '.join(needing)}" if needing else "")
        self._fit(parts)
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

    def sizes_for(self, split: Split) -> torch.Tensor:
        """The sizes in training (groups,) of a split's groups; none where training has other groups."""
        return self.sizes if split.group_names == self.data.train.group_names else self.sizes[:0]

    def affordable(self, tap: Tap, most: int, copies: int) -> int:
        """At most how many images' float32 features, so many times, take half of --cache-gib; two at least."""
        each = 4 * copies * self.supply.dims[tap]
        return min(most, max(2, int(self.config.cache_gib / 2 * 2**30 / each)))

    def count(self, stage: str, begin: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begin

    # --- fitting

    def _fit(self, parts: list[list[Unit]]) -> None:
        config, data = self.config, self.data
        # before the features: one pass gives both
        directions = self.supply.directions() if self.layout.ranks and config.rank_basis == "fixed" else {}
        inner = self.supply.source(data.train) if self._needs_inner() else None
        sources = self._sources(inner, parts)
        begin = time.perf_counter()
        if self.supply.streams:
            self._fit_live(sources, directions)
        else:
            for tap in self.layout.taps:
                found = evaluation.fit_units(
                    tap,
                    sources,
                    self.units,
                    self.settings,
                    self.layout.ranks,
                    len(data.classes),
                    self.recipe,
                    directions.get(tap.layer),
                    self._warm().get(tap),
                )
                for (place, number), fitted in found.items():
                    self.keep(place, number, *fitted)
        for sweep in self.layout.sweeps:
            for rank in self.layout.ranks or (None,):
                self.places.setdefault("probe", []).append([Place(tap, rank) for tap in sweep])
        baselines.fit(self, sources, inner)
        self.means = {}
        if not self.layout.ranks:
            for number, unit in enumerate(self.units):
                found = class_means(sources[unit.source], self.layout.taps, unit, len(data.classes))
                self.means |= {(tap, number): linear for tap, linear in found.items()}
        self.inner_correct = {}
        for seed, (_, held) in self.inner.items():
            if len(held):
                mine = {
                    key: (self.supply.reads(key[0]), probe)
                    for key, probe in self.probes.items()
                    if self.units[key[1]].seed == seed
                }
                self.inner_correct |= scored(inner, mine, data.train.labels, held)
        self.count("fitting", begin)

    def _fit_live(self, sources: list[Live], directions: dict[str, Directions]) -> None:
        places = {}
        for tap in self.layout.taps:
            for rank in self.layout.ranks or (None,):
                places.setdefault(self.supply.reads(Place(tap, rank)), []).append(Place(tap, rank))
        for number, unit in enumerate(self.units):
            found = fit_live(
                sources[unit.source],
                unit,
                places,
                self.settings,
                len(self.data.classes),
                self.recipe,
                directions,
                self._warm(),
            )
            for place, fitted in found.items():
                self.keep(place, number, *fitted)

    def keep(self, place: Place, number: int, probes: Probes, fitted: Fitted, group: int) -> None:
        """Takes in the probes of a place and a unit: those of a group of a stack."""
        self.probes[place, number] = probes
        self.candidates[place.kind] = fitted.candidates
        if fitted.left_out is not None:
            self.left_out[place, number] = fitted.left_out[group]

    def _needs_inner(self) -> bool:
        return (
            self.learns_inside
            or any(len(held) for _, held in self.inner.values())
            or any(name in self.baselines for name in baselines.OF_TRAINING_IMAGES)
        )

    def _draw(self) -> tuple[list[Unit], list[list[Unit]]]:
        """The units; with --tuning shared also those of single OOD sets that each is made of."""
        config, data = self.config, self.data
        if self.learns_inside:
            return training_sets.inside(config, data.train, self.inner), []
        found = training_sets.outside(config, data.shifts, self.shares, len(data.classes))
        return training_sets.pooled(found) if config.tuning == "shared" else (found, [])

    def _sources(self, inner: Kept | Live | None, parts: list[list[Unit]]) -> list[Kept | Live]:
        """What the units learn from, by number."""
        config, data, supply = self.config, self.data, self.supply
        if self.learns_inside:
            if not config.augment or supply.streams:
                return [inner]
            views = [
                supply.collect(data.train, view=view, share=config.augment + 1).features for view in range(config.augment)
            ]
            return [supply.kept({tap: Views(tuple(view[tap] for view in views)) for tap in views[0]})]
        if supply.streams and parts:
            return [
                supply.live(
                    functools.reduce(join, [data.shifts[unit.source].learnt.subset(unit.positions) for unit in several])
                )
                for several in parts
            ]
        sources = [supply.source(shift.learnt, share=len(data.shifts)) for shift in data.shifts]
        if not parts:
            return sources
        return [
            supply.kept(
                {
                    tap: Features(torch.cat([sources[unit.source].rows(tap, unit.positions) for unit in several]))
                    for tap in sources[0].features
                    if tap in supply.dims
                }
            )
            for several in parts
        ]

    def _warm(self) -> dict[Tap, Linear]:
        """The network's own head for the last tap of every sweep that it reads, where --warm-start asks for it."""
        if not self.config.warm_start:
            return {}
        head, lasts = head_of(self.network, self.layout.head), [sweep[-1] for sweep in self.layout.sweeps]
        readable = [tap for tap in lasts if head is not None and head.weights.shape[1] == self.supply.dims[tap]]
        if not readable:
            raise UserError(
                f"--warm-start: the head does not read the {self.supply.dims[lasts[-1]]} features of layer "
                f"{lasts[-1].layer}; choose the layer before it as the last, or another --reduce"
            )
        if len(head.biases) != len(self.data.classes):
            raise UserError(
                f"--warm-start: the head has {len(head.biases)} classes, {self.data.name} has {len(self.data.classes)}"
            )
        return dict.fromkeys(readable, head)

    # --- scoring

    def applies(self, unit: Unit, number: int) -> bool:
        return unit.shift is None or unit.shift == number

    def _score(self, number: int) -> evaluation.Scores:
        shift, scores = self.data.shifts[number], evaluation.Scores()
        asked = {
            ("probe", *key): (self.supply.reads(key[0]), probe)
            for key, probe in self.probes.items()
            if self.applies(self.units[key[1]], number)
        }
        answers = {
            ("means", *key): (key[0], linear)
            for key, linear in self.means.items()
            if self.applies(self.units[key[1]], number)
        }
        if self.layout.head and self.data.members:
            answers["head"] = (self.layout.head, PooledHead(padded(self.data.members)))
        elif self.layout.head and len(self.data.classes) == self.supply.dims[self.layout.head]:
            same = torch.eye(self.supply.dims[self.layout.head])[None]
            answers["head"] = (self.layout.head, Linear(same, torch.zeros(same.shape[:2])))
        for which, split in {"val": shift.val, "test": shift.test}.items():
            if split is None:
                continue
            source = self.supply.source(split, head=which == "test")
            begin = time.perf_counter()
            found = scored(source, asked | (answers if which == "test" else {}), split.labels)
            for key in asked:
                scores.correct.setdefault(key[1:], {})[which] = found[key]
            self.count("scoring", begin)
        scores.means = {key[1:]: found[key][0] for key in answers if key != "head"}
        scores.head = found["head"][0] if "head" in found else None
        return scores

    def table(self, number: int, places, units: dict[int, int], seed: int, role: str) -> list[list[float]]:
        """Scores (places, candidates) of a role's images."""
        unit, table = units[number], []
        for place in places:
            if role == "loo":
                correct, groups = self.left_out.get((place, unit)), self.units[unit].groups
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
        for places, of_unit, chosen in self.chosen[:1]:
            for number in range(len(self.data.shifts)):
                choice = chosen[seed, number]
                picked.append((places[choice.place], of_unit[seed, number], choice.candidates[choice.place]))
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
                warnings.warn(
                    f"{shift.name}: no test image of group {', '.join(absent)}; the worst group is one of the others",
                    stacklevel=2,
                )
