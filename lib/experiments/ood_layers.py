"""Layers as detectors of out-of-distribution images: `exec_ood_layers.py`.

Guglielmo & Masana, "Leveraging Intermediate Representations for Better Out-of-Distribution Detection", CVWW 2025. The
paper's figure turns every AUROC below 0.5 round; rows here carry the raw one, and the turned one as that of an oracle
that knows the sign. A row belongs to one (layer, OOD set, temperature, score) and says what data its score needs.
"""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lib import inputs
from lib.cli import above, at_least, flag
from lib.datasets import names, openood
from lib.detectors.aggregate import AGGREGATORS
from lib.detectors.choice import CHOICES
from lib.detectors.last_layer import BASELINES, NEEDS, TEMPERATURES
from lib.errors import UsageError, UserError
from lib.inputs import NetworkConfig
from lib.lazy import lazy
from lib.results import Result

if TYPE_CHECKING:
    from lib.checkpoints import Description
    from lib.graph import Layer

aggregate = lazy("lib.detectors.aggregate")
choice = lazy("lib.detectors.choice")
classification = lazy("lib.metrics.classification")
comparison = lazy("lib.detectors.comparison")
early_exit = lazy("lib.detectors.early_exit")
energies = lazy("lib.energies")
graph = lazy("lib.graph")
last_layer = lazy("lib.detectors.last_layer")
np = lazy("numpy")
overlap = lazy("lib.datasets.overlap")
plots = lazy("lib.plots.ood_layers")
torch = lazy("torch")


@dataclass(frozen=True, kw_only=True)
class OodLayersConfig(NetworkConfig):
    """AUROC of every layer's energy between in- and out-of-distribution images, and of scores made from several."""

    dataset: str = flag("", "-d", label="{}", help="in-distribution data; default: the test split of the one it was trained "
                                                   "on")
    ood: tuple[str, ...] = flag((), "-ood", label="{}", help="out-of-distribution data sets; near, far: OpenOOD's groups "
                                                             "for -d; NAME-c: every corruption and severity")
    layers: tuple[str, ...] = flag((), "-l", commas=True, help="names or globs, cuts, all; default: every Conv2d, Linear "
                                                               "and BatchNorm2d")
    temperature: tuple[float, ...] = flag((1.0,), "-T", check=above(0), help="temperatures of the energy")
    aggregate: tuple[str, ...] = flag((), commas=True, choices=AGGREGATORS, help="scores from the energies of all layers: "
                                                                                 + ", ".join(AGGREGATORS))
    baselines: tuple[str, ...] = flag((), commas=True, choices=(*BASELINES, "all"),
                                      help="scores of the last layer: " + ", ".join(BASELINES) + "; all")
    choose: tuple[str, ...] = flag((), commas=True, choices=CHOICES,
                                   help="choose one layer by " + ", ".join(f"{name} ({what})" for name, what in
                                                                           CHOICES.items()))
    early_exit: float | None = flag(None, help="stop the forward pass at the first layer that flags an image, with this "
                                               "rate of false alarms over all exits together")
    exits: tuple[str, ...] = flag((), commas=True, help="cuts at which it may stop; default: the last before each further "
                                                        "convolution or linear map")
    fit_on: str = flag("", help="in-distribution images that scales, detectors and thresholds are fitted on; default: the "
                                "training split of -d")
    fit_examples: int = flag(5000, check=at_least(2), help="at most so many of them")
    val_ood: tuple[str, ...] = flag((), help="validation outliers for --aggregate logreg, other images than those of -ood")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ood and not self.list_layers:
            raise UsageError("-ood is required: one or more out-of-distribution data sets")
        if "logreg" in self.aggregate and not self.val_ood:
            raise UsageError("--aggregate logreg needs --val-ood: outliers to fit it on")
        if self.val_ood and "logreg" not in self.aggregate:
            raise UsageError("--val-ood is for --aggregate logreg")
        if self.early_exit is not None and not 0 < self.early_exit < 1:
            raise UsageError(f"--early-exit {self.early_exit}: a rate of false alarms lies between 0 and 1")
        if self.exits and self.early_exit is None:
            raise UsageError("--exits is for --early-exit")

    def inputs(self) -> dict[str, list[Path]]:
        named = [name for name in (self.dataset, self.fit_on, *self.val_ood) if name]
        return super().inputs() | inputs.data_files(self, *named, *openood.expand(self.ood, self.dataset, self.data_root))


@dataclass(frozen=True)
class _Subject:
    """The network, and what the energies are of."""

    config: OodLayersConfig
    network: "torch.nn.Module"
    description: "Description"
    listed: "list[Layer]"
    layers: list[str]  # those of the rows
    exits: list[str]
    head: str  # the last linear layer, where something needs it
    size: int  # of the images


class _Passed(NamedTuple):
    """What a pass over a split left: energies (n, columns, T), logits (n, k), scores of the last layer (n,) by name."""

    columns: list[str]
    energies: "np.ndarray"
    logits: "torch.Tensor"
    scores: dict[str, "np.ndarray"]

    def of(self, layers: list[str]) -> "np.ndarray":
        """The energies of these layers, in the order of the columns."""
        return self.energies[:, [column.partition("@")[0] in layers for column in self.columns]]


def ood_layers(config: OodLayersConfig) -> Result:
    """Rows per (layer, OOD set, temperature, score); every image's energies in the arrays; figures."""
    device = inputs.device(config)
    checkpoint = inputs.load_checkpoint(config, config.model_path, config.model_type, device)
    network, description = checkpoint.network, checkpoint.description
    name = inputs.dataset_name(config.dataset, checkpoint)
    inside = inputs.load_split(config, name, image_size=description.image_size)
    size = description.image_size or max(inside.height, inside.width)
    outliers = openood.expand(config.ood, config.dataset, config.data_root)

    def load(other):
        """A set by name: one at a time, because many corrupted sets would not fit into memory together."""
        return inside if other == "id" else inputs.load_split(config, other.removeprefix("validation "), image_size=size)
    fitted = inputs.fitting_images(config, name, size)
    keys = _check_outliers(config, description, inside, outliers, load)
    listed = graph.layers(network, torch.zeros(1, description.channels, size, size, device=device))
    subject = _Subject(config, network, description, listed, choose_layers(network, listed, config.layers),
                       _exits(config, network, listed), _head(network, listed) if config.baselines else "", size)
    seconds = {}
    fit, detectors = _fit(subject, fitted, seconds)
    passes = {other: _measure(subject, load(other), other, seconds, detectors) for other in ("id", *outliers)}
    passes |= {other: _measure(subject, load(other), other, seconds) for other in (f"validation {other}" for other in
                                                                                  config.val_ood)}
    if "jigsaw" in config.choose:
        passes["jigsaw"] = _measure(subject, choice.jigsaw(fitted, config.seed), "shuffled images", seconds)
    exits = _leave(subject, fit, outliers, load, passes, seconds) if subject.exits else {}

    begin = time.perf_counter()
    known = {"id": inside.name, "id_split": inside.split, "n_id": len(inside),
             "id_accuracy": (classification.accuracy(passes["id"].logits, inside.labels)
                             if _same_classes(inside, description) else None),
             "fit_on": f"{fitted.name}:{fitted.split}", "n_fit": len(fitted)}
    facts = _facts(network, listed, [column for column in fit.columns if column.partition("@")[0] in subject.layers])
    rows = [{**known, **keys[other], **row} for other, row in _rows(subject, list(facts.values()), fit, passes, outliers)]
    rows += [{**known, **keys[other], **row} for other, found in exits.items() for row in found.rows]
    for word in ("near", "far"):
        rows += comparison.group_rows(rows, word) if word in config.ood else []
    arrays = {"layers": np.array(list(facts)), "temperatures": np.array(config.temperature), "energies_fit":
              fit.of(subject.layers), "predictions_id": passes["id"].logits.argmax(1).numpy(), "labels_id":
              inside.labels.numpy()}
    for other, passed in passes.items():
        arrays |= {f"energies_{other}": passed.of(subject.layers)}
        arrays |= {f"{score}_{other}": values for score, values in passed.scores.items()}
    figures = plots.figures([row for row in rows if row["T"] in (None, config.temperature[0])], keys,
                            description.architecture)
    if exits:
        left = {other: found.outside for other, found in exits.items()}
        arrays |= {"exit_layers": np.array(subject.exits), "exits_id": exits[outliers[0]].inside}
        arrays |= {f"exits_{other}": values for other, values in left.items()}
        figures["exits"] = plots.exits(subject.exits, arrays["exits_id"], left, f"{description.architecture}: exits of "
                                       f"{inside.name} and outliers, false alarms calibrated to {config.early_exit:g}")
    seconds["scoring"] = time.perf_counter() - begin
    variants = ("variant",) if any(key["variant"] for key in keys.values()) else ()
    return Result(rows, arrays, figures, seconds, columns=(
        "layer", "ood", *variants, "T", "score", "mac_fraction", "auroc", "ci_low", "ci_high", "vs_final", "p_holm",
        "auroc_two_sided", "fpr95", "needs"))


def choose_layers(network, listed, patterns: tuple[str, ...]) -> list[str]:
    """The layers that `--layers` names, in registration order; those without an energy are refused only by name."""
    usable = {layer.name for layer in listed if layer.shape}
    order = [name for name, _ in (network.body.named_modules()) if name]
    default = [name for name in energies.default_layers(network) if name in usable]
    if not patterns:
        return default
    for pattern in patterns:
        if pattern in order and pattern not in usable:
            raise UserError(f"--layers {pattern}: it puts out no tensor in a forward pass, so it has no energy")
    groups = {"all": [name for name in order if name in usable], "cuts": [layer.name for layer in listed if layer.cut]}
    return graph.select([name for name in order if name in usable], patterns, groups)


def _exits(config: OodLayersConfig, network, listed) -> list[str]:
    """The cuts at which `--early-exit` may stop, in execution order."""
    if config.early_exit is None:
        return []
    if not config.exits:
        return early_exit.default_exits(listed)
    cuts = early_exit.possible_exits(listed)
    try:
        return graph.select(cuts, config.exits, {"cuts": cuts, "all": cuts})
    except UserError:
        raise UserError(f"--exits {' '.join(config.exits)}: a pass can stop at {', '.join(cuts)}") from None


def _head(network, listed) -> str:
    """The last linear layer, whose input the baselines look at."""
    last = max((layer for layer in listed if not list(network.body.get_submodule(layer.name).children())),
               key=lambda layer: layer.index)
    if not isinstance(network.body.get_submodule(last.name), torch.nn.Linear):
        raise UserError(f"--baselines: the network ends in {last.name}, a {last.kind}; they need a linear layer there")
    return last.name


def _check_outliers(config: OodLayersConfig, description, inside, outliers: list[str], load) -> dict[str, dict]:
    """What the rows of each OOD set say of it.

    Warns of sets that make a measure meaningless, and refuses those that make it a lie, before any pass.
    """
    validation = {other: load(other) for other in config.val_ood}
    seen, found = _training_outliers(config, description), {}
    for other in outliers:
        split = load(other)
        found[other] = _key(inside, split)
        if (split.name, split.split, split.variant) == (inside.name, inside.split, inside.variant):
            warnings.warn(f"-ood {other} is the in-distribution set itself: every AUROC is 0.5", stacklevel=3)
        for name, chosen in validation.items():
            if count := overlap.shared(split, chosen):
                raise UserError(f"--val-ood {name}: {count} of its images are also in -ood {other}; what is fitted on must "
                                "not be tested on")
        if seen is not None and (count := overlap.shared(seen, split)):
            warnings.warn(f"-ood {other}: {count} of its images are outliers that the network was trained on", stacklevel=3)
    return found


def _training_outliers(config: OodLayersConfig, description):
    """The outliers that the network was trained against, if any."""
    name = description.config.get("outliers")
    if not name:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a set is not divided was said when the network was trained
            return inputs.load_split(config, name, "train", image_size=description.image_size)
    except UserError as error:
        warnings.warn(f"whether -ood shares images with the training's --outliers is unknown: {error}", stacklevel=4)
        return None


def _measure(subject: _Subject, split, stage: str, seconds: dict, detectors: dict | None = None, watch=None) -> _Passed:
    """One pass over a split; `detectors` score the last layer's input and output as they come by."""
    config, scores = subject.config, {name: [] for name in detectors or {}}

    def score(features, logits):
        for name, detector in detectors.items():
            scores[name].append(detector(features, logits).double().cpu())
    begin = time.perf_counter()
    found = energies.layer_energies(
        subject.network, split, list(dict.fromkeys([*subject.layers, *subject.exits])), config.temperature,
        batch_size=config.batch_size, channels=subject.description.channels, size=subject.size, workers=config.workers,
        prefetch=config.prefetch, quiet=config.quiet, head=subject.head, watch=watch or (score if detectors else None))
    seconds[f"pass over {stage}"] = time.perf_counter() - begin
    return _Passed(*found, {name: torch.cat(parts).numpy() for name, parts in scores.items()})


def _fit(subject: _Subject, fitted, seconds: dict):
    """The pass over the fitting images, and the scores of the last layer fitted to it."""
    if not subject.head:
        return _measure(subject, fitted, "fitting images", seconds), {}
    asked, features = subject.config.baselines, []
    if len(subject.description.classes) < 2:
        raise UserError("--baselines: the network has fewer than two classes, so its last layer tells nothing apart")
    fit = _measure(subject, fitted, "fitting images", seconds, watch=lambda seen, logits: features.append(seen.clone()))
    begin = time.perf_counter()
    linear = subject.network.body.get_submodule(subject.head)
    bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(len(linear.weight))
    seen = last_layer.Fitted(linear.weight.detach().float(), bias.detach().float(), torch.cat(features),
                             fit.logits, fitted.labels)
    detectors = {}
    for name in BASELINES:
        if name in asked:
            detectors[name] = last_layer.fit(name, seen)
        elif "all" in asked:
            try:
                detectors[name] = last_layer.fit(name, seen)
            except UserError as error:
                warnings.warn(f"{error}; left out", stacklevel=3)
    seconds["fitting the last layer's scores"] = time.perf_counter() - begin
    return fit, detectors


def _rows(subject: _Subject, facts: list[dict], fit: _Passed, passes: dict[str, _Passed], outliers: list[str]):
    """(OOD set, row) of every layer's energy and every other score."""
    config, layers = subject.config, [fact["layer"] for fact in facts]
    final = max(range(len(facts)), key=lambda number: facts[number]["execution_index"])
    for place, temperature in enumerate(config.temperature):
        def at(passed, place=place):
            return passed.of(subject.layers)[..., place]
        inner, outer, fitted = at(passes["id"]), {other: at(passes[other]) for other in outliers}, at(fit)
        measured = {other: comparison.layer_rows(inner, outer[other], fitted, final) for other in outliers}
        comparison.mark_signs(list(measured.values()))
        validated = [at(passes[f"validation {other}"]) for other in config.val_ood]
        aggregators = {name: aggregate.fit(name, fitted, np.concatenate(validated) if validated else None)
                       for name in config.aggregate if name != "oracle"}
        scored = {name: score(inner) for name, score in aggregators.items()}
        proxies = at(passes["jigsaw"]) if "jigsaw" in config.choose else None
        for other in outliers:
            for fact, row in zip(facts, measured[other], strict=True):
                yield other, {**fact, "T": temperature, "score": "energy", "needs": "nothing", **row}
            scores = [comparison.Score({"layer": "all layers", "score": name, "needs": aggregate.needs(name)}, scored[name],
                                       score(outer[other])) for name, score in aggregators.items()]
            if "oracle" in config.aggregate:
                scores.append(aggregate.oracle(layers, inner, outer[other]))
            scores += choice.scores(config.choose, layers, inner, outer, fitted, proxies, other)
            if place == 0:
                scores += _last_layer(subject, passes["id"], passes[other], layers[final])
            for row in comparison.score_rows(scores, inner[:, final], outer[other][:, final]):
                yield other, {"T": temperature, **row}


def _last_layer(subject: _Subject, inner: _Passed, outer: _Passed, final: str) -> list:
    """The scores of the last layer; its energy at T = 1 only where that is no row already."""
    there = final == subject.head and 1.0 in subject.config.temperature
    return [comparison.Score({"layer": subject.head, "score": name, "needs": NEEDS[name], "T": TEMPERATURES.get(name)},
                             values, outer.scores[name])
            for name, values in inner.scores.items() if not (there and name == "energy")]


class _Exits(NamedTuple):
    """The rows of early exits on one OOD set, and the exit of every image."""

    rows: list[dict]
    inside: "np.ndarray"
    outside: "np.ndarray"


def _leave(subject: _Subject, fit: _Passed, outliers: list[str], load, passes: dict[str, _Passed],
           seconds: dict) -> dict[str, _Exits]:
    """Early exits that were made and timed, per OOD set."""
    config, network, layers = subject.config, subject.network, subject.exits
    order = [fit.columns.index(layer) for layer in layers]
    rule = early_exit.calibrate(fit.energies[:, order, 0], config.early_exit, layers)
    pieces = early_exit.segments(network, layers)
    before = graph.macs_before(subject.listed)
    macs = np.array([before[layer] for layer in layers])
    made = {}
    for other in ("id", *outliers):
        batches = load(other).batches(config.batch_size, device=next(network.parameters()).device,
                                      channels=subject.description.channels, size=subject.size, workers=config.workers,
                                      prefetch=config.prefetch)
        made[other] = early_exit.timed(network, pieces, rule, (images for images, _, _ in batches), config.temperature[0])
        seconds[f"early exits of {other}"], seconds[f"whole passes over {other}"] = made[other][1:]
    found = {}
    for other in outliers:
        rows = early_exit.report(rule, passes["id"].energies[:, order, 0], passes[other].energies[:, order, 0], macs)
        names = [*layers, f"{len(layers)} exits"]
        about = {"T": config.temperature[0], "score": "early exit", "needs": "ID images"}
        rows[-1] |= {f"time_{side}": made[key][1] / made[key][2] for side, key in (("id", "id"), ("ood", other))}
        found[other] = _Exits([{"layer": layer, **about, **row} for layer, row in zip(names, rows, strict=True)],
                              made["id"][0], made[other][0])
    return found


def _key(inside, split) -> dict:
    """What a row says of its OOD set."""
    kind, severity = names.corruption(names.parse(f"{split.name}/{split.variant}")) if split.variant else (None, None)
    return {"ood": split.name, "ood_split": split.split, "variant": split.variant, "origin": split.origin,
            "group": openood.group(inside.name, split.name), "corruption": kind, "severity": severity, "n_ood": len(split)}


def _facts(network, listed, columns: list[str]) -> dict[str, dict]:
    """What each column's layer is: place in registration and execution order, kind, size, share of the cost."""
    by_name = {layer.name: layer for layer in listed}
    spent = graph.macs_before(listed)
    order = {name: number for number, (name, _) in enumerate(network.body.named_modules())}
    ranked = sorted({column.partition("@")[0] for column in columns}, key=order.get)
    facts = {}
    for column in columns:
        layer = by_name[column.partition("@")[0]]
        facts[column] = {"layer": column, "index": ranked.index(layer.name), "execution_index": layer.index,
                         "kind": layer.kind, "dim": int(np.prod(layer.shape)), "mac_fraction": spent[layer.name]}
    return facts


def _same_classes(split, description) -> bool:
    return len(split.classes) == len(description.classes) and bool((split.labels >= 0).any())
