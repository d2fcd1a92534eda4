"""Rows about the network itself beside those of probes: its head as it is and adapted, class means, neural collapse."""

from dataclasses import replace

import torch
from torch import Tensor

from lib.core.randomness import generator
from lib.metrics import neural_collapse
from lib.probing import evaluation
from lib.probing.batchnorm_adaptation import adapted
from lib.probing.roles import spread
from lib.probing.rows import common
from lib.probing.run import Run

MOST_IMAGES = 2000  # behind a collapse index, evenly spread; fewer where they take more than half of --cache-gib


def rows(run: Run) -> list[dict]:
    """The network's own head, and nearest class means at every layer; what `--baselines` adds about the network."""
    found = []
    for number, shift in enumerate(run.data.shifts):
        for seed in run.config.seed:
            _, positions = shift.role("test", run.shares[number, seed])
            head, means = run.scores[number].head, run.scores[number].means
            if head is not None:
                found += _accuracies(run, number, seed, head, positions, probe="head", tap=run.layout.head)
            for (tap, unit), correct in means.items():
                if run.units[unit].seed == seed:
                    found += _accuracies(
                        run, number, seed, correct, positions, probe="class-means", tap=tap, share=run.units[unit].fraction
                    )
            if "batch-norm" in run.baselines:
                correct = torch.zeros(len(shift.test), dtype=torch.bool)
                correct[positions] = _adapted(run, number, seed, positions)
                found += _accuracies(run, number, seed, correct, positions, probe="batch-norm", tap=run.layout.head)
    return found + (_collapse_rows(run) if "collapse" in run.baselines else [])


def _accuracies(
    run: Run, number: int, seed: int, correct: Tensor, positions: Tensor, *, probe: str, tap, share: float | None = None
) -> list[dict]:
    about = common(run, number, share, probe=probe, layer=tap.layer, reduce=tap.reduce, dim=run.supply.dims[tap], seed=seed)
    test = run.data.shifts[number].test
    return [about | one for one in evaluation.accuracy_rows(correct, test, positions, run.sizes_for(test))]


def _adapted(run: Run, number: int, seed: int, positions: Tensor) -> Tensor:
    """Whether the adapted network is right on the test images at `positions`; it adapts on those that do not test."""
    shift, batching = run.data.shifts[number], replace(run.supply.batching, quiet=True)
    rest = torch.ones(len(shift.learnt), dtype=torch.bool)
    if shift.val is None:
        rest[positions] = False
    order = rest.nonzero().squeeze(1)
    order = order[torch.randperm(len(order), generator=generator(seed, "adaptation"))]  # folders come class by class
    whole = len(order) // batching.batch_size * batching.batch_size  # statistics of a few images would count as much
    others = batching.with_positions(shift.learnt, "adapting", order=order[:whole] if whole else order)
    with adapted(run.network, (images for images, _, _ in others)), torch.no_grad():
        tested = batching.with_positions(shift.test, "testing", order=positions)
        answers = [run.network(images).argmax(1).cpu() for images, _, _ in tested]
    return torch.cat(answers) == shift.test.labels[positions]


def _collapse_rows(run: Run) -> list[dict]:
    """NC1 of every layer on the network's training images and on each OOD set."""
    found = []
    for number, split in enumerate([run.data.train, *[shift.test for shift in run.data.shifts]]):
        source = run.supply.source(split)
        about = common(run, number - 1 if number else None, None)
        if not number:
            about |= {"data": split.name, "variant": split.variant, "origin": split.origin, "split": split.split}
        for tap in run.layout.taps:
            chosen = spread(torch.arange(len(split)), run.affordable(tap, MOST_IMAGES, copies=1))
            chosen = chosen[split.labels[chosen] >= 0]
            value = neural_collapse.within_over_between(source.rows(tap, chosen), split.labels[chosen])
            found.append(
                about
                | {
                    "probe": "collapse",
                    "layer": tap.layer,
                    "reduce": tap.reduce,
                    "dim": run.supply.dims[tap],
                    "group": "all",
                    "n": len(chosen),
                    "nc1": value if value == value else None,
                }
            )
    return found
