"""Rows about the network itself: its head, its adapted head, class means, neural collapse."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from lib.core.randomness import generator
from lib.datasets.split import Split
from lib.metrics import neural_collapse
from lib.probing import evaluation
from lib.probing.batchnorm_adaptation import adapted
from lib.probing.feature_provider import FeatureProvider
from lib.probing.roles import spread
from lib.probing.rows import common, of_tap
from lib.probing.scores import Scores
from lib.probing.study import ProbeStudy
from lib.representations.features import Tap
from lib.representations.passes import refuse_not_finite

MOST_IMAGES = 2000  # behind a collapse index, evenly spread; fewer where they take more than half of --cache-gib


def rows(study: ProbeStudy, provider: FeatureProvider, scores: list[Scores]) -> list[dict]:
    """The network's own head, and nearest class means at every layer; what `--baselines` adds about the network."""
    rows = []
    for number, of_shift in enumerate(scores):
        for seed in study.seeds:
            if of_shift.head is not None and study.layout.head is not None:
                rows += _accuracies(study, provider, number, seed, of_shift.head, "head", study.layout.head)
            for (tap, learnt), correct in of_shift.means.items():
                if study.sets[learnt].seed == seed:
                    of_means = _accuracies(study, provider, number, seed, correct, "class-means", tap)
                    about = {"fraction": study.sets[learnt].fraction, "n_learnt": len(study.sets[learnt].positions)}
                    rows += [row | about for row in of_means]
            if "batch-norm" in study.baselines and study.layout.head is not None:
                correct = _adapted(study, number, seed)
                rows += _accuracies(study, provider, number, seed, correct, "batch-norm", study.layout.head)
    return rows + (_collapse_rows(study, provider) if "collapse" in study.baselines else [])


def _accuracies(
    study: ProbeStudy,
    provider: FeatureProvider,
    number: int,
    seed: int,
    correct: Tensor,
    probe: str,
    tap: Tap,
) -> list[dict]:
    """Of an OOD set by number, whose test images are right or not (n,)."""
    about = common(study, number, None, probe=probe, **of_tap(study, tap), dim=provider.dims[tap], seed=seed)
    test = study.data.shifts[number].test
    measured = evaluation.accuracy_rows(correct, test, study.tested(number, seed), study.group_sizes(test))
    return [about | one for one in measured]


def _adapted(study: ProbeStudy, number: int, seed: int) -> Tensor:
    """Whether the adapted network is right on each test image, (n,); it adapts on those of other roles."""
    shift, positions, batching = study.data.shifts[number], study.tested(number, seed), study.options.batching
    free = [study.role(number, seed, role)[1] for role in ("probe-train", "probe-val", "layer-val")]
    order = torch.arange(len(shift.learnt)) if shift.val is not None else torch.cat(free).unique()
    order = order[torch.randperm(len(order), generator=generator(seed, "adaptation"))]  # folders come class by class
    whole = len(order) // batching.batch_size * batching.batch_size  # statistics of a few images would count as much
    quiet = replace(batching, quiet=True)
    others = quiet.with_positions(shift.learnt, "adapting", order=order[:whole] if whole else order)
    with adapted(study.network, (images for images, _, _ in others)), torch.no_grad():
        tested = quiet.with_positions(shift.test, "testing", order=positions)
        answers = []
        for images, _, chosen in tested:
            logits = study.network(images)
            refuse_not_finite({"the adapted head": logits}, shift.test, chosen)
            answers.append(logits.argmax(1).cpu())
    correct = torch.zeros(len(shift.test), dtype=torch.bool)
    correct[positions] = torch.cat(answers) == shift.test.labels[positions]
    return correct


def _collapse_rows(study: ProbeStudy, provider: FeatureProvider) -> list[dict]:
    """NC1 of every layer on the network's training images and on each OOD set."""
    train = study.data.train
    abouts = [common(study, None, None) | _named(train)]
    abouts += [common(study, number, None) for number in range(len(study.data.shifts))]
    rows = []
    for about, split in zip(abouts, [train, *[shift.test for shift in study.data.shifts]], strict=True):
        source = provider.source(split)
        for tap in study.layout.taps:
            chosen = spread(torch.arange(len(split)), provider.affordable(tap, MOST_IMAGES, copies=1))
            chosen = chosen[split.labels[chosen] >= 0]
            value = neural_collapse.within_over_between(source.rows(tap, chosen), split.labels[chosen])
            rows.append(
                about
                | {
                    "probe": "collapse",
                    **of_tap(study, tap),
                    "dim": provider.dims[tap],
                    "group": "all",
                    "n": len(chosen),
                    "nc1": None if math.isnan(value) else value,
                }
            )
    return rows


def _named(split: Split) -> dict:
    """A split as rows name it."""
    return {"data": split.name, "variant": split.variant, "origin": split.origin, "split": split.split}
