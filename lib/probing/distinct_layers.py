"""Layers with equal outputs for all training images count as one candidate."""

from dataclasses import replace

import torch

from lib.datasets.split import Split
from lib.probing.clock import Clock
from lib.probing.feature_provider import FeatureProvider
from lib.probing.feature_sources import CachedSource
from lib.probing.study import ProbeStudy
from lib.representations.aliases import FIRST, Partition, settle
from lib.representations.features import TYPES, Tap


def distinct(study: ProbeStudy, provider: FeatureProvider, clock: Clock) -> tuple[ProbeStudy, FeatureProvider]:
    """The study and its features without layers that are copies of others (`lib.representations.aliases`)."""
    if study.layout.ranks and not provider.streams:
        provider.directions()  # from the pass that keeps the features
    partitions = [Partition(sweep) for sweep in study.layout.sweeps]
    for split in _learnt_from(study):
        _divide(partitions, provider, split, clock)
    settled = [
        settle(partition, sweep, lambda tap: tap.layer, study.layout.named)
        for partition, sweep in zip(partitions, study.layout.sweeps, strict=True)
    ]
    aliases: dict[Tap, tuple[str, ...]] = {}
    for one in settled:
        aliases |= one.aliases
    layout = replace(study.layout, sweeps=[one.kept for one in settled], aliases=aliases)
    read = {*layout.taps, layout.head, layout.penultimate}
    dims = {tap: dim for tap, dim in provider.dims.items() if tap in read}
    return replace(study, layout=layout), replace(provider, layout=layout, dims=dims)


def _learnt_from(study: ProbeStudy) -> list[Split]:
    inside = study.options.protocol.learns_inside
    return [study.data.train] if inside else [shift.learnt for shift in study.data.shifts]


def _divide(partitions: list[Partition[Tap]], provider: FeatureProvider, split: Split, clock: Clock) -> None:
    """Divides groups of taps by the images of a split: a few tell most apart, all of them tell whether the rest is alike."""
    source = provider.source(split)
    few = torch.arange(min(FIRST, len(split))) * len(split) // min(FIRST, len(split))
    with clock.stage("telling layers apart"):
        for images in (few, None):
            undecided = [tap for partition in partitions for tap in partition.undecided]
            if not undecided:
                return
            for _, rows in source.batches(undecided, images):
                for partition in partitions:
                    partition.add({tap: rows[tap] for tap in partition.undecided}, _precision(provider, source))


def _precision(provider: FeatureProvider, source: object) -> float:
    """The relative error of kept features."""
    kind = TYPES[provider.storage.dtype]
    return torch.finfo(kind).eps if isinstance(source, CachedSource) and kind != torch.float32 else 0.0
