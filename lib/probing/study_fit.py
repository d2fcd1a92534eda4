"""Fits the probes, baselines and class means of a study, and scores them on held-out images."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.core.errors import UserError
from lib.datasets.split import join
from lib.probing import baseline_probes
from lib.probing.clock import Clock
from lib.probing.evaluation import right_answers
from lib.probing.feature_provider import FeatureProvider
from lib.probing.feature_sources import CachedSource, FeatureName, FeatureSource, ProbeSite, StreamedSource
from lib.probing.feature_transform import Directions
from lib.probing.layers import head_of
from lib.probing.probe_bank import ProbeBank, ProbeKey, fit_cached, fit_each, joined, of_stack
from lib.probing.stacked_probes import Linear, Setting
from lib.probing.streamed_fit import fit_streamed
from lib.probing.study import ProbeStudy
from lib.probing.training_sets import TrainingSet
from lib.representations.features import Features, Tap, Views


@dataclass(frozen=True)
class FittedStudy:
    """What a study's probes became.

    bank        plain probes and baselines
    held_out    (c, n): whether held-out in-distribution images are right, by site and training set
    means       nearest class means as linear probes (1, k, d), by tap and training set
    """

    bank: ProbeBank
    held_out: dict[ProbeKey, Tensor]
    means: dict[tuple[Tap, int], Linear]


def fit(study: ProbeStudy, provider: FeatureProvider, clock: Clock) -> FittedStudy:
    """Fits everything that learns."""
    warm = _warm_starts(study, provider)
    # before the features: one pass gives both
    directions = provider.directions() if study.layout.ranks and not study.options.per_batch else {}
    if provider.streams:
        train, sources = _streamed(study, provider)
        with clock.stage("fitting"):
            bank = _fit_streamed(study, provider, sources, directions, warm)
            return _completed(study, provider, bank, sources, train)
    train, sources = _cached(study, provider)
    with clock.stage("fitting"):
        plain = _fit_cached(study, sources, directions, warm)
        bank = joined([plain, baseline_probes.fit(study, plain, sources, train)])
        return _completed(study, provider, bank, sources, train)


def class_means(source: FeatureSource, taps: list[Tap], learnt: TrainingSet, classes: int) -> dict[Tap, Linear]:
    """The nearest class mean (Euclidean) as a linear probe (1, k, d); a class without images is never the nearest."""
    totals = {tap: torch.zeros(classes, source.dim(tap)) for tap in taps}
    labels = torch.full((int(learnt.positions.max()) + 1,), -1)
    labels[learnt.positions] = learnt.labels
    for positions, rows in source.batches(taps, learnt.positions):
        for tap in taps:
            totals[tap].index_add_(0, labels[positions], rows[tap].cpu())
    count = torch.bincount(learnt.labels, minlength=classes)
    means = {tap: total / count.clamp_min(1)[:, None] for tap, total in totals.items()}
    return {
        tap: Linear(mean[None], torch.where(count > 0, -0.5 * mean.square().sum(1), -torch.inf)[None])
        for tap, mean in means.items()
    }


# --- what is learnt from


def _cached(study: ProbeStudy, provider: FeatureProvider) -> tuple[CachedSource | None, list[CachedSource]]:
    """The in-distribution training images, where they are needed, and what the training sets are positions in."""
    train, shifts, views = study.data.train, study.data.shifts, study.options.protocol.views
    if study.options.protocol.learns_inside:
        whole = provider.cached(train)
        if not views:
            return whole, [whole]
        seen = [provider.collect(train, view=view, share=views + 1).features for view in range(views)]
        return whole, [provider.of_features({tap: Views(tuple(view[tap] for view in seen)) for tap in seen[0]})]
    whole = provider.cached(train) if study.reads_train else None
    sources = [provider.cached(shift.learnt, share=len(shifts)) for shift in shifts]
    if not study.parts:
        return whole, sources
    pooled = []
    for parts in study.parts:
        taps = [tap for tap in sources[0].features if tap in provider.dims]
        rows = {tap: torch.cat([sources[one.source].rows(tap, one.positions) for one in parts]) for tap in taps}
        pooled.append(provider.of_features({tap: Features(whole_rows) for tap, whole_rows in rows.items()}))
    return whole, pooled


def _streamed(study: ProbeStudy, provider: FeatureProvider) -> tuple[StreamedSource | None, list[StreamedSource]]:
    """The same as sources that are computed whenever they are read."""
    shifts = study.data.shifts
    if study.options.protocol.learns_inside:
        whole = provider.streamed(study.data.train)
        return whole, [whole]
    whole = provider.streamed(study.data.train) if study.reads_train else None
    if not study.parts:
        return whole, [provider.streamed(shift.learnt) for shift in shifts]
    pooled = [
        functools.reduce(join, [shifts[one.source].learnt.subset(one.positions) for one in parts]) for parts in study.parts
    ]
    return whole, [provider.streamed(split) for split in pooled]


# --- plain probes


def _sweeps(study: ProbeStudy) -> ProbeBank:
    """The plain probes' sites that are compared with one another: those of one reducer at one rank."""
    sweeps = [[ProbeSite(tap, rank) for tap in sweep] for sweep in study.layout.sweeps for rank in _ranks(study)]
    return ProbeBank(sweeps={"probe": sweeps})


def _ranks(study: ProbeStudy) -> tuple[int | None, ...]:
    return study.layout.ranks or (None,)


def _fit_cached(
    study: ProbeStudy, sources: Sequence[CachedSource], directions: dict[str, Directions], warm: dict[Tap, Linear]
) -> ProbeBank:
    options = study.options

    def of_tap(tap: Tap) -> ProbeBank:
        return fit_cached(
            tap,
            sources,
            study.sets,
            options.settings,
            study.classes,
            options.recipe,
            ranks=study.layout.ranks,
            directions=directions.get(tap.layer),
            warm=warm.get(tap),
        )

    return joined([fit_each(study.layout.taps, of_tap, options.batching), _sweeps(study)])


def _fit_streamed(
    study: ProbeStudy,
    provider: FeatureProvider,
    sources: Sequence[StreamedSource],
    directions: dict[str, Directions],
    warm: dict[Tap, Linear],
) -> ProbeBank:
    sites: dict[FeatureName, list[ProbeSite]] = {}
    for tap in study.layout.taps:
        for rank in _ranks(study):
            site = ProbeSite(tap, rank)
            sites.setdefault(provider.reads(site), []).append(site)
    banks, options = [], study.options
    for number, learnt in enumerate(study.sets):
        source = sources[learnt.source]
        fitted = fit_streamed(source, learnt, sites, options.settings, study.classes, options.recipe, directions, warm)
        banks += [of_stack(fitted[name], [(site, number) for site in sites[name]]) for name in sites]
    return joined([*banks, _sweeps(study)])


def _warm_starts(study: ProbeStudy, provider: FeatureProvider) -> dict[Tap, Linear]:
    """The network's own head for the last tap of every sweep that it reads, where warm starts are asked for."""
    if not study.options.warm_start:
        return {}
    head, lasts = head_of(study.network, study.layout.head), [sweep[-1] for sweep in study.layout.sweeps]
    readable = [tap for tap in lasts if head is not None and head.weights.shape[1] == provider.dims[tap]]
    if head is None or not readable:
        raise UserError(
            f"--warm-start: the head does not read the {provider.dims[lasts[-1]]} features of layer "
            f"{lasts[-1].layer}; choose the layer before it as the last, or another --reduce"
        )
    if len(head.biases) != study.classes:
        raise UserError(f"--warm-start: the head has {len(head.biases)} classes, {study.data.name} has {study.classes}")
    return dict.fromkeys(readable, head)


# --- the rest


def _completed(
    study: ProbeStudy,
    provider: FeatureProvider,
    bank: ProbeBank,
    sources: Sequence[FeatureSource],
    train: FeatureSource | None,
) -> FittedStudy:
    """The bank with class means, where there are no ranks, and what held-out images say.

    Raises `UserError` where a probe did not stay finite.
    """
    for (site, _), probes in bank.probes.items():
        wrong = torch.stack([~value.flatten(1).isfinite().all(1) for value in vars(probes).values()]).any(0)
        if bool(wrong.any()):
            setting = _words(bank.candidates[site.kind][int(wrong.nonzero()[0])].setting)
            raise UserError(
                f"layer {site.tap.layer}: the probe at {setting} did not stay finite; a smaller -lr or --standardise helps"
            )
    means = {}
    if not study.layout.ranks:
        for number, learnt in enumerate(study.sets):
            of_set = class_means(sources[learnt.source], study.layout.taps, learnt, study.classes)
            means |= {(tap, number): linear for tap, linear in of_set.items()}
    held_out = {}
    for seed, division in study.inner.items():
        if train is not None and len(division.held_out):
            probes = {key: probes for key, probes in bank.probes.items() if study.sets[key[1]].seed == seed}
            reading = [(provider.reads(site), one) for (site, _), one in probes.items()]
            held_out |= dict(
                zip(probes, right_answers(train, reading, study.data.train.labels, division.held_out), strict=True)
            )
    return FittedStudy(bank, held_out, means)


def _words(setting: Setting | None) -> str:
    """A setting as the flags have it."""
    if setting is None:
        return "its own settings"
    flags = {"-lr": setting.lr, "-l1": setting.l1, "--l2": setting.l2, "--l2-norm": setting.norm}
    return " ".join(f"{flag} {value:g}" for flag, value in flags.items() if value)
