"""Do indices of similarity see what probes see? Specificity and sensitivity of indices, from records.

The stitching paper, experiments E5 and E6, by the protocol of Ding, Denain & Steinhardt, "Grounding ComparedLayer
Similarity with Statistical Testing", NeurIPS 2021: of the pairs (A, reference) an index should call dissimilar those whose
probing accuracies differ. The reference is, at every depth, the network with the best probing accuracy there. Specificity
takes all layers of all networks for A; sensitivity takes the reference's layer with its channels limited to some
ranks. Networks of one type are compared, by probes of the same settings, and indices by the same reference: of the networks
for which most indices are known the best one.

Reads rows of `exec_similarity.py`, `exec_stitch.py` and `exec_probe.py`; checkpoints are told apart by their content.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from lib.metrics import rank_correlation
from lib.tables.papers.spec import satisfies
from lib.tables.record_library import RecordedRun

SIMILARITIES = ("cka", "cka_debiased", "svcca", "mean_cca", "rsa", "knn_jaccard")  # dissimilarity is 1 - index
DISTANCES = ("pwcca", "procrustes")
# settings of exec_probe.py that rows tell of; a search changes what is chosen
NO_SETTING = ("layers", "ranks", "reduce", "solver", "epochs", "protocol")
SEARCHED = ("learning_rate", "l1", "l2", "l2_norm", "keep_epochs")
PROBED = {"probe": "probe", "network": "trained", "protocol": "id", "group": "all"}  # rows of probes that accuracies are of
SIDES = {"similarity": ("model1_path", "model2_path"), "stitch": ("front_path", "end_path")}


class ComparedLayer(NamedTuple):
    """A layer of a network, by the hash of its file, with its channels limited to a rank unless None."""

    network: str
    layer: str
    rank: int | None


class Pair(NamedTuple):
    """How dissimilar an index calls a representation and the reference; `gap` is how far their probing accuracies lie apart.

    model_type    of all networks that are compared
    probes        settings of the probes
    setting       what the index depends on: images, epochs
    """

    test: str
    model_type: str
    probes: str
    data: str
    index: str
    setting: str
    reference: ComparedLayer
    other: ComparedLayer
    dissimilarity: float
    gap: float


def rows(runs: Iterable[RecordedRun]) -> list[dict]:
    """A row per test, type of networks, probes, data set, index and reference layer, and one with layer "mean" of these.

    spearman, kendall: in [-1, 1], high where the index agrees with the probes; spearman_p, kendall_p: one-sided, as if pairs
    were independent of one another; p_least: the least that either can be for so many pairs. n: pairs. None where there are
    fewer than three pairs, or all are alike, and p where it cannot reach 0.05; a mean p is over the layers that
    have one, and has no least.
    """
    runs = list(runs)
    names = {known["sha256"]: name for run in runs for name, known in run.record["inputs"].items() if "sha256" in known}
    groups = defaultdict(list)
    for pair in pairs(runs):
        groups[pair[:6], pair.reference].append(pair)
    found, means = [], defaultdict(list)
    for (about, reference), members in groups.items():
        gaps, distances = (np.array([getattr(pair, name) for pair in members]) for name in ("gap", "dissimilarity"))
        row = {
            **_told(about),
            "reference": names[reference.network],
            "layer": reference.layer,
            "n": len(members),
        }
        for name, function in (
            ("spearman", rank_correlation.spearman_one_sided),
            ("kendall", rank_correlation.kendall_one_sided),
        ):
            row[name], (row[f"{name}_p"], row["p_least"]) = function(distances, gaps)
        found.append(row)
        means[about].append(row)
    for about, members in means.items():
        mean = {
            **_told(about),
            "reference": None,
            "layer": "mean",
            "n": sum(row["n"] for row in members),
            "p_least": None,
        }
        for name in ("spearman", "spearman_p", "kendall", "kendall_p"):
            values = [row[name] for row in members if row[name] is not None]
            mean[name] = statistics.fmean(values) if values else None
        found.append(mean)
    return found


def _told(about: tuple) -> dict:
    """The first fields of a pair; of PWCCA under a rank limit also what is whitened, which is more in the paper's code."""
    told = dict(zip(Pair._fields, about, strict=False))
    limited = told["test"] == "sensitivity" and told["index"] == "pwcca"
    return told | {"whitening": "of the directions that are left" if limited else None}


def pairs(runs: Iterable[RecordedRun]) -> list[Pair]:
    """What the tests compare: all pairs of a reference with both indices and probing accuracies."""
    runs = list(runs)
    accuracies, measured = _probing(runs), defaultdict(list)
    for model_type, data, index, setting, other, reference, dissimilarity in _dissimilarities(runs):
        test = "specificity" if other.rank is None else "sensitivity"
        compared = other != reference if other.rank is None else other.layer == reference.layer
        if reference.rank is None and compared:
            for probes, known in accuracies.items():
                if {(data, other), (data, reference)} <= known.keys():
                    measured[(test, model_type, probes, data, index, setting), other, reference].append(dissimilarity)
    indices = defaultdict(lambda: defaultdict(set))  # place -> its references -> what is known of them
    for (*place, index, _), _, reference in measured:
        indices[*place, reference.layer][reference].add(index)
    best = {
        (*place, layer): max(known, key=lambda one: (len(known[one]), accuracies[place[2]][place[3], one]))
        for (*place, layer), known in indices.items()
    }
    found = []
    for (about, other, reference), values in measured.items():
        *place, _, _ = about
        if best[*place, reference.layer] == reference:
            known = accuracies[place[2]]
            gap = abs(known[place[3], other] - known[place[3], reference])
            found.append(Pair(*about, reference, other, statistics.fmean(values), gap))
    return found


def _probing(runs: list[RecordedRun]) -> dict[str, dict[tuple[str, ComparedLayer], float]]:
    """By settings of the probes: their test accuracy on the data they are trained for, the mean over seeds."""
    found = defaultdict(lambda: defaultdict(list))
    for run in runs:
        networks = _networks(run.record, "model_path") if run.experiment == "probe" else None
        for row in run.rows:
            if networks and row.get("accuracy") is not None and satisfies(row, PROBED):
                layer = ComparedLayer(networks[0], row.get("layer"), row.get("rank"))
                found[_settings(run, row)][row.get("data"), layer].append(row["accuracy"])
    return {probes: {key: statistics.fmean(values) for key, values in known.items()} for probes, known in found.items()}


def _settings(run: RecordedRun, row: dict) -> str:
    """What made a probe, and what it was chosen from."""
    rule = row.get("selected_by") or "none"
    found = [row.get("reduce"), row.get("solver"), f"{row.get('epoch')} epochs"]
    found += (
        [f"{name} {row.get(name)}" for name in ("lr", "l1", "l2", "l2_norm") if row.get(name)] if rule == "none" else [rule]
    )
    left_out = NO_SETTING + (SEARCHED if rule == "none" else ())
    found += [f"{name} {value}" for name, value in sorted(run.setting.items()) if name not in left_out]
    return ", ".join(str(word) for word in found if word)


def _dissimilarities(runs: list[RecordedRun]) -> Iterator[tuple]:
    """(type, data, index, setting, A, reference, dissimilarity) of all rows; the reference is on the second side."""
    for run in runs:
        networks = _networks(run.record, *SIDES[run.experiment]) if run.experiment in SIDES else None
        types = {network.training.get("model_type", "unknown") for network in run.networks({}).values()}
        if networks is None or len(types) > 1:
            continue
        (one, two), (model_type,) = networks, types
        if run.experiment == "similarity":
            for row in run.rows:
                sides = (
                    ComparedLayer(one, row.get("layer1"), row.get("rank1")),
                    ComparedLayer(two, row.get("layer2"), row.get("rank2")),
                )
                for name in (*SIMILARITIES, *DISTANCES):
                    if row.get(name) is not None:
                        value = row[name] if name in DISTANCES else 1 - row[name]
                        yield model_type, row.get("data"), name, f"{row.get('n')} images", *sides, value
        else:
            for row in run.rows:
                if row.get("null") or row.get("pinv_rank") not in (None, row.get("stitch_rank")):
                    continue
                sides = (
                    ComparedLayer(one, row.get("front_layer"), row.get("stitch_rank")),
                    ComparedLayer(two, row.get("end_layer"), None),
                )
                name, setting = _matching(row)
                if row.get("accuracy") is not None:
                    yield model_type, row.get("data"), name, setting, *sides, 1 - row["accuracy"]
                if name == "dm" and row.get("normalized_difference") is not None:
                    yield model_type, row.get("data"), "dm_struct", setting, *sides, row["normalized_difference"]


def _networks(record: dict, *names: str) -> tuple[str, ...] | None:
    """The hashes of the checkpoints in these settings; None where the record does not have them."""
    known = [record["inputs"].get(record["config"].get(name), {}).get("sha256") for name in names]
    return tuple(known) if all(known) else None


def _matching(row: dict) -> tuple[str, str]:
    """What the paper calls the index that is the accuracy of this stitch, and what it depends on."""
    epochs, init, trained = f"{row.get('epochs')} epochs", row.get("init"), row.get("trained")
    if init == "pinv":
        images = f"{row.get('samples')} images, {row.get('solver')}"
        if row.get("stitch_rank") is not None and row.get("pinv_rank") is None:
            images += ", matched at full rank"
        return ("tlm_from_dm", f"{images}, {epochs}") if trained else ("dm", images)
    return ("tlm" if init == "rand" and trained else f"stitch_{init}"), epochs
