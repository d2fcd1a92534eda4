"""The measures of all experiments for the layers of one network, and their rank correlations.

Ours: no paper has this table. A row is a layer at which the network is cut; filters are inside layers, and theirs are the
means over the filters' layers within. Every number is the mean over the data sets and runs that the records hold, of those
runs of an experiment that share their settings.
"""

import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np

from lib.core import trusted_files
from lib.core.errors import UserError
from lib.core.registry import near
from lib.metrics import rank_correlation
from lib.metrics.multiple_testing import holm
from lib.plots import network_page as plots
from lib.runs import command_lines
from lib.runs.command_lines import Experiments
from lib.tables import layer_order, record_library, summaries
from lib.tables.formats import PrintedTable
from lib.tables.papers.spec import satisfies
from lib.tables.record_library import Library, Network, RecordedRun

IMAGES = ("data", "variant", "split", "protocol", "fraction", "selected_by", "seed")  # what paired probes share in a run
AVERAGED = ("dataset", "ood", "layer")  # flags in which runs of one column may differ
PAIR = 2  # networks that a run is of at most, unless it compares checkpoints
FEWEST = 5  # layers that a correlation has at least


@dataclass(frozen=True)
class Measure:
    """A measure of layers: the rows it is from, which layer a row is of, and its number; `roles` the network may have."""

    experiment: str
    where: dict
    layer: str
    value: Callable[[dict], float | None]
    command: Callable[["MissingMeasure"], list[str]]
    roles: tuple[str, ...] = ("net",)
    inside: bool = False  # of filters inside the layers
    each: bool = False  # a run is of one layer


@dataclass(frozen=True)
class MissingMeasure:
    """The network, its siblings of other seeds among the records, and the cuts of which a measure is lacking."""

    network: Network
    siblings: list[str]
    cuts: list[str]
    experiments: Experiments

    @property
    def data(self) -> str:
        """What it was trained on; "" if no record tells."""
        return self.network.training.get("dataset", "")

    def run(self, experiment: str, **flags) -> str:
        """The command line of an experiment; it trusts the Python files that the network's type and data are from."""
        training = self.network.training
        files = trusted_files.named(training[name] for name in ("model_type", "dataset") if name in training)
        return command_lines.command(self.experiments, experiment, {**flags, "trust": files})


def _with_sibling(experiment: str, first: str, second: str, **flags) -> Callable[[MissingMeasure], list[str]]:
    """The command for two networks; before it, where there is none, the training of the sibling."""

    def commands(subject: MissingMeasure) -> list[str]:
        before, training = [], subject.network.training
        sibling = next(iter(subject.siblings), "")
        if not sibling:
            if not training:
                return [f"# {experiment}: needs a network of the same kind with another seed"]
            folder = f"{training['directory'].removeprefix('models/')}-sibling"
            flags_ = {
                name: value
                for name, value in training.items()
                if name in subject.experiments["train"].fields
                and subject.experiments["train"].fields[name].metadata.get("identity", True)
            }
            before = [
                command_lines.command(
                    subject.experiments, "train", {**flags_, "directory": folder, "seed": training["seed"] + 1}
                )
            ]
            sibling = f"models/{folder}/{PurePath(subject.network.path).name}"
        given = {first: sibling, second: subject.network.path, **flags}
        if experiment == "stitch" and subject.data:
            given["dataset"] = subject.data
        return [*before, subject.run(experiment, **given)]

    return commands


def _alone(experiment: str, **flags) -> Callable[[MissingMeasure], list[str]]:
    return lambda subject: [subject.run(experiment, model_path=subject.network.path, **flags)]


def _probe(subject: MissingMeasure) -> list[str]:
    """A command where the data set's name has corrupted versions; one that is named by its path has none."""
    if "=" in (subject.data or ""):
        return []
    return _alone("probe", ood=[f"{subject.data or 'digits'}-c"], reduce=["gap"])(subject)


def _ncg(subject: MissingMeasure) -> list[str]:
    """A command per cut, or one for the last cut where no cut is known."""
    return [
        command
        for layer in subject.cuts or [""]
        for command in _alone("ncg", space=["feature"], layer=layer, ood=["patches"])(subject)
    ]


def _of_energies(measure: str) -> Measure:
    return Measure(
        "ood_layers",
        {"score": ("energy", None), "T": 1.0},
        "layer",
        lambda row: row.get(measure),
        _alone("ood_layers", ood=["patches"]),
        inside=True,
    )


WHOLE, TWO = {"same_network": False}, ("front", "end")
MEASURES = {
    "OOD probe gain": Measure(
        "probe",
        {
            "probe": "probe",
            "network": "trained",
            "group": ("all", None),
            "rank": None,
            "selected_by": ("ood-val", "none"),
            "protocol": ("zero-shot", "few-shot", "full-ood"),
        },
        "layer",
        lambda row: row.get("accuracy"),
        _probe,
    ),
    "energy AUROC": _of_energies("auroc"),
    "two-sided AUROC": _of_energies("auroc_two_sided"),
    "similarity (CKA)": Measure(
        "similarity",
        {"rank1": None, "rank2": None, **WHOLE},
        "front_layer",
        lambda row: row.get("cka"),
        _with_sibling("similarity", "model1_path", "model2_path"),
        TWO,
    ),
    "stitching penalty": Measure(
        "stitch",
        {"stitch_rank": None, "pinv_rank": None, "null": None, **WHOLE},
        "front_layer",
        lambda row: row.get("penalty"),
        _with_sibling("stitch", "front_path", "end_path", init="pinv", epochs=0),
        TWO,
    ),
    "NCG": Measure(
        "ncg",
        {"space": "feature", "subset": "all", "in_distribution": False},
        "layer",
        lambda row: row.get("ncg"),
        _ncg,
        each=True,
    ),
    "filter bias": Measure(
        "projections",
        {"layer": "*", "folded": False},
        "layer",
        lambda row: None if row.get("mass") is None else abs(row["mass"] - 0.5),
        lambda subject: [subject.run("projections", model_path=[subject.network.path], normalize=True)],
        inside=True,
    ),
    "re-initialisation drop": Measure(
        "reinit",
        {"status": ("measured", "unchanged"), "source": "rand"},
        "layer",
        lambda row: row.get("relative_drop"),
        _alone("reinit", rand=3),
        inside=True,
    ),
}


# column -> the measure whose rows say whether a layer may be the best by it, and in which column
SETS = {
    "may be best (probes)": ("OOD probe gain", "in_best_set"),
    "may be best (AUROC)": ("two-sided AUROC", "in_best_set_two_sided"),
}


@dataclass(frozen=True)
class Found:
    """The tables of a network, their name, and for the figure the matrix of correlations, the commands that fill gaps and
    per measure the layers to mark.
    """

    name: str
    tables: list[PrintedTable]
    title: str
    matrix: list[list[float | None]]
    commands: list[tuple[str, str]]
    marked: dict[str, list[str]]

    def figure(self):
        """Every measure over depth, and the correlations."""
        rows = self.tables[0].rows
        columns = {
            name: {str(row["layer"]): float(row[name]) for row in rows if row.get(name) is not None} for name in MEASURES
        }
        layers = [str(row["layer"]) for row in rows]
        return plots.network_page(
            layers, columns, np.array(self.matrix, dtype=float), self.title, self.commands, self.marked
        )


def tables(checkpoint: str, library: Library, group_by: str = "") -> Found:
    """The layers with their measures, the rank correlations between these, and the commands that fill empty columns.

    With `group_by`, `role`, a further table has the means of the measures over the layers that share it.
    """
    path = _path(checkpoint)
    network = library.network(path)
    runs = {
        name: [(run, row) for run in library.present(column.experiment) for row in _rows(run, column, network)]
        for name, column in MEASURES.items()
    }
    if not any(runs.values()):
        known = sorted(
            {_path(network.path) for run in library.runs for row in run.rows[:1] for network in run.networks(row).values()}
        )
        others = [other for other in known if other != path]
        raise UserError(f"--network {checkpoint}: no record is of the layers of this network; {near(path, others)}")
    notes = []
    for name, found in runs.items():
        runs[name], told = _of_one_setting(found)
        notes += [f"{name}: {told}"] if told else []
    orders = _orders(runs)
    of_cuts = [layers for name, of_runs in orders.items() if not MEASURES[name].inside for layers in of_runs]
    cuts = list(dict.fromkeys(layer for layers in of_cuts for layer in layers))
    layers = layer_order.units([layers for of_runs in orders.values() for layers in of_runs], cuts)
    columns = {name: _values(MEASURES[name], found, layers) for name, found in runs.items()}
    columns["OOD probe gain"] = _gains(MEASURES["OOD probe gain"], runs["OOD probe gain"], layers)
    sets = {title: _values(_truth(*said), runs[said[0]], layers) for title, said in SETS.items()}
    siblings = _siblings(network, library)
    roles = {
        _named(run, row, MEASURES[name]): row["role"]
        for name, found in runs.items()
        for run, row in found
        if row.get("role") is not None
    }
    shown = columns | {title: values for title, values in sets.items() if values}
    rows = [
        {"layer": layer, "role": roles.get(layer), **{name: values.get(layer) for name, values in shown.items()}}
        for layer in layers
    ]
    pairs, matrix = _correlations(columns, layers)
    empty = []
    for name, values in columns.items():
        lacking = [layer for layer in layers if layer in cuts and layer not in values]
        if not values or MEASURES[name].each and lacking:
            commands = MEASURES[name].command(MissingMeasure(network, siblings, lacking, library.experiments))
            empty += [{"column": name, "command": command} for command in commands]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(PurePath(path).with_suffix("")).removeprefix("models/"))
    made = [
        PrintedTable(f"{name}-layers", f"layers of {path} ({network})", rows, rows, "\n".join([NOTE, *notes])),
        PrintedTable(
            f"{name}-correlations", "Spearman's rank correlation over layers, with 95 % intervals", pairs, pairs, PAIRS
        ),
    ]
    if group_by:
        groups = summaries.grouped(rows, tuple(columns), group_by)
        made.insert(1, PrintedTable(f"{name}-{group_by}", f"means over layers of the same {group_by}", groups, groups))
    made += [PrintedTable(f"{name}-missing", "commands that fill the empty columns", empty, empty)] if empty else []
    marked = {SETS[title][0]: [layer for layer, share in values.items() if share > 0.5] for title, values in sets.items()}
    of = record_library.joined(run.whole_origin for found in runs.values() for run, _ in found)
    origins = [replace(of, networks=(str(network),))]
    made = [replace(table, origins=origins) for table in made if table.rows]
    commands = [(one["column"], one["command"]) for one in empty]
    return Found(name, made, f"{network}: what is measured of its layers", matrix, commands, marked)


def checkpoints(library: Library) -> list[str]:
    """The networks whose layers were measured, by path; those that most experiments measured first.

    Of checkpoints that one run compares, such as the epochs of a training, those that another run is of.
    """
    measured = {column.experiment: column.roles for column in MEASURES.values()}
    found: dict[str, set[str]] = {}
    alone: set[str] = set()
    for experiment, roles in measured.items():
        for run in library.present(experiment):
            for path in {net.path for row in run.rows for role, net in run.networks(row).items() if role in roles}:
                found.setdefault(path, set()).add(experiment)
                if len(run.checkpoints) <= PAIR:
                    alone.add(path)
    return sorted(filter(alone.__contains__, found), key=lambda path: -len(found[path]))


NOTE = (
    "OOD probe gain: accuracy of the layer's probe less that of the deepest one, on the same images; energy AUROC: of "
    "the raw energy, unturned, so that outlier sets below and above 1/2 cancel, unlike in the two-sided one; "
    "similarity, stitching penalty: with the same layer of a sibling; filter bias: |mass - 1/2|; "
    "re-initialisation drop: relative, to fresh draws; may be best: the share of data sets and runs in which the layer is "
    "in the set that holds the best one with 95 %. Means over data sets, siblings and modules."
)
PAIRS = (
    "n: layers; p_holm: Holm's over all pairs that have a p; partial: given the layer's place; no p where so few "
    "layers could not bring it to 0.05 (p_least)."
)


def _of_one_setting(found: list[tuple[RecordedRun, dict]]) -> tuple[list[tuple[RecordedRun, dict]], str]:
    """The rows of runs with the same settings, and a sentence on the others: a trial on few images is no part of a mean.

    Of different settings those of most images count, then of most layers, then of the latest run.
    """
    groups: dict[str, list[tuple[RecordedRun, dict]]] = {}
    settings: dict[str, dict] = {}
    for run, row in found:
        setting = {name: value for name, value in run.setting.items() if name not in AVERAGED}
        settings[key := record_library.key(setting)] = setting
        groups.setdefault(key, []).append((run, row))
    if len(groups) < 2:
        return found, ""

    def rank(key: str) -> tuple:
        rows = groups[key]
        images = settings[key].get("max_examples") or settings[key].get("examples") or math.inf
        layers = {run.facts(row).get("front_layer", row.get("layer")) for run, row in rows}
        return images, len(layers), max(run.record["started"] for run, _ in rows)

    first, *others = sorted(groups, key=rank, reverse=True)
    words = record_library.differences([settings[key] for key in (first, *others)])
    told = [
        f"{len({id(run) for run, _ in groups[key]})} with {word or 'defaults'}"
        for key, word in zip(others, words[1:], strict=True)
    ]
    return groups[first], f"runs with {words[0] or 'defaults'}; left out are {', '.join(told)}"


def _truth(measure: str, column: str) -> Measure:
    """The measure with a truth of the same rows for its number: 1 or 0."""
    return replace(MEASURES[measure], value=lambda row: None if row.get(column) is None else float(row[column]))


def _path(text: str) -> str:
    path = record_library.below_here(text)
    return path if path.startswith(("models/", "/")) else f"models/{path}"


def _rows(run: RecordedRun, column: Measure, network: Network) -> Iterable[dict]:
    """The rows of a run that are of the network and the column; of pairs only those of equal layers of it and a sibling."""
    if run.checkpoints.isdisjoint((network.path, network.path.removeprefix("models/"))):
        return
    counts: dict[int, bool] = {}  # the networks of a row, which are the same object for all rows of the same -> whether
    for row in run.rows:
        networks = run.networks(row)
        if id(networks) not in counts:
            counts[id(networks)] = _is_of(networks, column, network)
        if not counts[id(networks)]:
            continue
        facts = run.facts(row)
        if (
            satisfies(facts, column.where)
            and facts.get(column.layer) is not None
            and column.value(row) is not None
            and (column.layer == "layer" or facts["front_layer"] == facts["end_layer"])
        ):
            yield row


def _is_of(networks: Mapping[str, Network], column: Measure, network: Network) -> bool:
    """Whether of the networks that a row is of, by role, one is this one, and the others are its siblings."""
    known = [other for role, other in networks.items() if role in column.roles]
    own = [_path(other.path) == network.path and other.training == network.training for other in known]
    return any(own) and all(mine or _alike(other, network) for other, mine in zip(known, own, strict=True))


def _named(run: RecordedRun, row: dict, column: Measure) -> str:
    return str(run.facts(row)[column.layer]).partition("@")[0]


def _orders(runs: dict[str, list]) -> dict[str, list[list[str]]]:
    """The layers of each column, by run and in the order of its rows; not that of a whole network."""
    orders: dict[str, dict[int, dict[str, None]]] = {name: {} for name in runs}
    for name, found in runs.items():
        for run, row in found:
            if (layer := _named(run, row, MEASURES[name])) != "net":
                orders[name].setdefault(id(run), {})[layer] = None
    return {name: [list(layers) for layers in of_runs.values()] for name, of_runs in orders.items()}


def _values(column: Measure, found: list[tuple[RecordedRun, dict]], layers: list[str]) -> dict[str, float]:
    """layer -> mean. A module's number counts for the layer that holds it, unless the layer has one of its own."""
    own: dict[str, list[float]] = {}
    held: dict[str, list[float]] = {}
    for run, row in found:
        name, value = _named(run, row, column), column.value(row)
        if value is None:
            continue
        if name in layers:
            own.setdefault(name, []).append(value)
        elif column.inside and (holder := layer_order.within(name, layers)):
            held.setdefault(holder, []).append(value)
    return {layer: sum(values) / len(values) for layer, values in (held | own).items()}


def _gains(column: Measure, found: list[tuple[RecordedRun, dict]], layers: list[str]) -> dict[str, float]:
    """layer -> how much more its probes get right than those of the deepest layer on the same images, the mean."""
    deepest = max((_named(run, row, column) for run, row in found), key=layers.index, default="")
    probed: dict[tuple, dict[str, list[float]]] = {}
    for run, row in found:
        images = run, *(row.get(name) for name in IMAGES)
        if (value := column.value(row)) is not None:
            probed.setdefault(images, {}).setdefault(_named(run, row, column), []).append(value)
    gains: dict[str, list[float]] = {}
    for of_layer in probed.values():
        for layer in of_layer if deepest in of_layer else ():
            gains.setdefault(layer, []).append(statistics.fmean(of_layer[layer]) - statistics.fmean(of_layer[deepest]))
    return {layer: statistics.fmean(values) for layer, values in gains.items()}


def _siblings(network: Network, library: Library) -> list[str]:
    """Checkpoints of networks that differ from this one in their seed only."""
    known = dict.fromkeys(
        found.path
        for run in library.runs
        for row in run.rows[:1]
        for found in run.networks(row).values()
        if found.training and _alike(found, network) and found.path != network.path
    )
    return list(known) if network.training else []


def _alike(one: Network, other: Network) -> bool:
    """Whether networks differ in their seed only, as far as records of their trainings tell."""
    return one.identity == other.identity if one.training else not other.training


def _correlations(columns: dict[str, dict[str, float]], layers: list[str]) -> tuple[list[dict], list[list[float | None]]]:
    """A row per pair of measures, and the matrix of all of them; None where fewer than FEWEST layers have both.

    n: layers that have both; low, high: the 95 % interval; p_value: two-sided, by orders of the layers; p_least: the least
    that it could be; p_holm: adjusted over all pairs that have a p. partial: given the layer's place, as most measures rise
    or fall with depth, with a p, a least one and an adjusted one of its own.
    """
    names = list(columns)
    matrix: list[list[float | None]] = [[None] * len(names) for _ in names]
    rows = []
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            both = [layer for layer in columns[first] if layer in columns[second]]
            if j < i or len(both) < FEWEST:
                continue
            x, y = (np.array([columns[name][layer] for layer in both]) for name in (first, second))
            depth = np.array([layers.index(layer) for layer in both])
            rho = rank_correlation.spearman(x, y)
            matrix[i][j] = matrix[j][i] = rho
            if i < j and rho is not None:
                low, high = interval(rho, len(both)) or (None, None)
                chance, partial = rank_correlation.spearman_p(x, y), rank_correlation.partial_spearman_p(x, y, depth)
                rows.append(
                    {
                        "measure": first,
                        "and": second,
                        "n": len(both),
                        "spearman": rho,
                        "low": low,
                        "high": high,
                        "p_value": chance.p,
                        "p_least": chance.least,
                        "p_holm": None,
                        "partial": rank_correlation.partial_spearman(x, y, depth),
                        "partial_p": partial.p,
                        "partial_p_least": partial.least,
                        "partial_p_holm": None,
                    }
                )
    for p, adjusted in (("p_value", "p_holm"), ("partial_p", "partial_p_holm")):
        tested = [row for row in rows if row[p] is not None]
        for row, value in zip(tested, holm(np.array([row[p] for row in tested])), strict=True):
            row[adjusted] = float(value)
    return rows, matrix


def interval(rho: float, n: int) -> tuple[float, float] | None:
    """The 95 % interval of Spearman's correlation of n > 3 things: Fisher's z, variance of Bonett & Wright (2000).

    None for a perfect correlation, of whose error it says nothing.
    """
    if abs(rho) == 1:
        return None
    half = 1.959964 * math.sqrt((1 + rho**2 / 2) / (n - 3))
    return math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)
