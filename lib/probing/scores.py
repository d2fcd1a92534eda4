"""Whether the images of every OOD set are classified correctly: by probes, by class means, by the network itself."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.models.class_groups import padded, pooled
from lib.probing.clock import Clock
from lib.probing.evaluation import right_answers
from lib.probing.feature_provider import FeatureProvider
from lib.probing.feature_sources import FeatureName
from lib.probing.probe_bank import ProbeKey
from lib.probing.stacked_probes import FeatureClassifiers, Linear
from lib.probing.study import ProbeStudy
from lib.probing.study_fit import FittedStudy
from lib.representations.features import Tap


@dataclass(frozen=True)
class Scores:
    """Whether each image of an OOD set is right.

    correct    (site, training set) -> split -> (candidates, n)
    means      by nearest class mean, (tap, training set) -> test images (n,)
    head       the network's own answers to the test images, (n,); None where it has other classes
    """

    correct: dict[ProbeKey, dict[str, Tensor]]
    means: dict[tuple[Tap, int], Tensor]
    head: Tensor | None


@dataclass(frozen=True)
class PooledHead:
    """The network's own logits, read as answers in classes each of which several outputs answer for.

    The classes' outputs are pooled as in `lib.models.class_groups`.
    """

    members: Tensor

    @property
    def biases(self) -> Tensor:
        """Zeros of the shape that a probe's biases have."""
        return torch.zeros(1, len(self.members))

    def logits(self, features: Tensor) -> Tensor:
        """(n, k) -> (1, n, c)."""
        return pooled(features, self.members)[None]


def score(study: ProbeStudy, provider: FeatureProvider, fitted: FittedStudy, clock: Clock) -> list[Scores]:
    """The scores of every OOD set, in order; warns of groups without test images."""
    scores = [_of_shift(study, provider, fitted, clock, number) for number in range(len(study.data.shifts))]
    for shift in study.data.shifts:
        absent = [name for number, name in enumerate(shift.test.group_names) if not (shift.test.groups == number).any()]
        if absent:
            warnings.warn(
                f"{shift.name}: no test image of group {', '.join(absent)}; the worst group is one of the others",
                stacklevel=2,
            )
    return scores


def _of_shift(study: ProbeStudy, provider: FeatureProvider, fitted: FittedStudy, clock: Clock, number: int) -> Scores:
    shift, head = study.data.shifts[number], _head(study, provider)
    probes = {key: one for key, one in fitted.bank.probes.items() if study.sets[key[1]].serves(number)}
    means = {key: one for key, one in fitted.means.items() if study.sets[key[1]].serves(number)}
    correct: dict[ProbeKey, dict[str, Tensor]] = {key: {} for key in probes}
    of_means, of_head = {}, None
    for which, split in shift.splits.items():
        tests = which == "test"
        source = provider.source(split, head=tests)
        asked: list[tuple[FeatureName, FeatureClassifiers]] = [
            (provider.reads(site), one) for (site, _), one in probes.items()
        ]
        if tests:
            asked += [(tap, one) for (tap, _), one in means.items()]
            asked += head
        with clock.stage("scoring"):
            answers = iter(right_answers(source, asked, split.labels))  # in the order in which they were asked for
        for key in probes:
            correct[key][which] = next(answers)
        if tests:
            of_means = {key: next(answers)[0] for key in means}
            of_head = next(answers)[0] if head else None
    return Scores(correct, of_means, of_head)


def _head(study: ProbeStudy, provider: FeatureProvider) -> list[tuple[FeatureName, FeatureClassifiers]]:
    """What answers for the network itself, and what it reads: its logits; none where it has other classes."""
    tap = study.layout.head
    if tap is None:
        return []
    if study.data.members:
        return [(tap, PooledHead(padded(study.data.members)))]
    if study.classes != provider.dims[tap]:
        return []
    same = torch.eye(study.classes)[None]
    return [(tap, Linear(same, torch.zeros(same.shape[:2])))]
