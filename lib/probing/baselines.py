"""What probes on single layers have to be compared with, on the same images and with the same search.

Intermediate-layers paper, section 6.3 and its appendices. Each is a kind of probe with places of its own; settings, epochs,
seeds and rules are those of the plain probes, but for DFR, whose recipe says how it chooses its penalty.

    mlp             a hidden layer of 256 rectified units at every layer
    concatenated    one linear probe on the features of all layers together
    averaged        the mean of the logits of the linear probes of all layers
    last-layer      the head learnt anew on what it reads, cold and warm (started at the network's own)
    dfr             deep feature reweighting at every layer (`lib.probing.dfr`)
    batch-norm      the network's own head, with batch statistics of OOD images (`lib.probing.batchnorm_adaptation`)
    collapse        no classifier: the neural-collapse index of every layer (`lib.metrics.neural_collapse`)
"""

import warnings
from dataclasses import replace

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from lib.core.errors import UserError
from lib.probing import dfr, evaluation
from lib.probing.feature_sources import Kept, Place
from lib.probing.feature_supply import together
from lib.probing.fit import STEPWISE, Fitted
from lib.probing.layers import head_of
from lib.probing.stacked_probes import Linear, Setting
from lib.representations.features import Tap

HIDDEN = 256
OF_KEPT_FEATURES = ("mlp", "concatenated", "averaged", "last-layer", "dfr", "collapse")
OF_TRAINING_IMAGES = ("dfr", "collapse")  # whatever the protocol


def possible(run) -> tuple[str, ...]:
    """The baselines that were asked for and are possible; raises `UserError` for one that was named and is not."""
    asked, found = run.config.baselines, []
    problems = _problems(run) if asked else {}
    for name in problems if "all" in asked else asked:
        if problems[name] and name in asked:
            raise UserError(f"--baselines {name}: {problems[name]}")
        if problems[name]:
            warnings.warn(f"--baselines all: {name} is left out: {problems[name]}", stacklevel=2)
        else:
            found.append(name)
    return tuple(dict.fromkeys(found))


def _problems(run) -> dict[str, str | None]:
    config = run.config
    stepwise = None if config.solver in STEPWISE else f"--solver {config.solver} fits no hidden layer; adam and sgd do"
    several = None if len(run.layout.sweeps[0]) > 1 else "it takes two or more layers"
    norms = any(isinstance(module, _BatchNorm) and module.track_running_stats for module in run.network.modules())
    adapts = None if norms else "the network has no batch normalisation with running statistics"
    if config.how == "id":
        adapts = "--protocol id has no OOD images"
    head = None if run.layout.penultimate else "the network does not end in a linear layer that reads the output of a layer"
    linear = head_of(run.network, run.layout.head)
    if linear is not None and len(linear.biases) != len(run.data.classes):
        head = adapts = f"the network has {len(linear.biases)} classes, the data {len(run.data.classes)}"
    return {
        "mlp": stepwise,
        "concatenated": several,
        "averaged": several,
        "last-layer": head,
        "dfr": None,
        "batch-norm": adapts,
        "collapse": None,
    }


def fit(run, sources: list[Kept], inner: Kept | None) -> None:
    """Fits all that are probes, and takes them into the run."""
    names = run.baselines
    for sweep in run.layout.sweeps:
        if "mlp" in names:
            _stacked(run, sources, "mlp", sweep, recipe=replace(run.recipe, hidden=HIDDEN))
        if "concatenated" in names:
            _stacked(run, sources, "concatenated", [together(sweep)])
        if "averaged" in names:
            _averaged(run, sweep)
        if "dfr" in names:
            _reweighted(run, sources, sweep, inner)
    if "last-layer" in names:
        _stacked(run, sources, "last-layer", [run.layout.penultimate])
        if run.config.solver in STEPWISE:  # where the others end does not depend on the start
            _stacked(run, sources, "last-layer-warm", [run.layout.penultimate], warm=head_of(run.network, run.layout.head))


def _stacked(run, sources: list[Kept], kind: str, taps: list[Tap], recipe=None, warm: Linear | None = None) -> None:
    """Probes of one kind at some taps, with the settings of the plain probes."""
    for tap in taps:
        found = evaluation.fit_units(
            tap, sources, run.units, run.settings, (), len(run.data.classes), recipe or run.recipe, warm=warm, kind=kind
        )
        for (place, number), fitted in found.items():
            run.keep(place, number, *fitted)
    run.places.setdefault(kind, []).append([Place(tap, kind=kind) for tap in taps])


def _averaged(run, sweep: list[Tap]) -> None:
    """The mean of logits is one linear probe on all features: weights side by side, over the number of layers."""
    place = Place(together(sweep), kind="averaged")
    for number in range(len(run.units)):
        probes = [run.probes[Place(tap), number] for tap in sweep]
        linear = Linear(
            torch.cat([probe.weights for probe in probes], -1) / len(probes),
            torch.stack([probe.biases for probe in probes]).mean(0),
        )
        run.keep(place, number, linear, Fitted(linear, run.candidates["probe"]), 0)
    run.places.setdefault("averaged", []).append([place])


def _reweighted(run, sources: list[Kept], sweep: list[Tap], inner: Kept) -> None:
    draws, classes = dfr.DRAWS[run.learns_inside], len(run.data.classes)
    for tap in sweep:
        place = Place(tap, kind="dfr")
        for number, unit in enumerate(run.units):
            look = dfr.scale(inner, tap, unit.positions if run.learns_inside else run.inner[unit.seed][0])
            linear, strength = dfr.fit(
                tap, sources[unit.source].features[tap], unit, classes, run.metric, look, draws, run.recipe.gib
            )
            run.keep(place, number, linear, Fitted(linear, [(Setting(None, None, None), 0)]), 0)
            run.strengths[place, number] = strength
    run.places.setdefault("dfr", []).append([Place(tap, kind="dfr") for tap in sweep])
