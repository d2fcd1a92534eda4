"""Do indices of similarity see what probes see? Specificity and sensitivity of indices, from records.

The stitching paper, experiments E5 and E6, by the protocol of Ding, Denain & Steinhardt, "Grounding Representation
Similarity with Statistical Testing", NeurIPS 2021: of the pairs (A, reference) an index should call dissimilar those whose
probing accuracies differ. The reference is, at every depth, the network with the best probing accuracy there. Specificity
takes all layers of all networks for A; sensitivity takes the reference's layer with its channels limited to some ranks.

Reads rows of `exec_similarity.py`, `exec_stitch.py` and `exec_probe.py`; checkpoints are told apart by their content.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lib.lazy import lazy

np = lazy("numpy")
rank_correlation = lazy("lib.metrics.rank_correlation")

TESTS = ("specificity", "sensitivity")
SIMILARITIES = ("cka", "cka_debiased", "svcca", "mean_cca", "rsa", "knn_jaccard")  # dissimilarity is 1 - index
DISTANCES = ("pwcca", "procrustes")
SIDES = {"similarity": ("model1_path", "model2_path"), "stitch": ("front_path", "end_path")}


class Representation(NamedTuple):
    """A layer of a network, by the hash of its file, with its channels limited to a rank unless None."""

    network: str
    layer: str
    rank: int | None


class Pair(NamedTuple):
    """How dissimilar an index calls a representation and the reference; `gap` is how far their probing accuracies lie apart.

    setting   what the index depends on: images, epochs
    """

    test: str
    data: str
    index: str
    setting: str
    reference: Representation
    other: Representation
    dissimilarity: float
    gap: float


def rows(records: Iterable[dict]) -> list[dict]:
    """A row per test, data set, index and reference layer, and one with layer "mean" of the mean over these.

    spearman, kendall: in [-1, 1], high where the index agrees with the probes; spearman_p, kendall_p: one-sided, as if pairs
    were independent of one another. n: pairs. None where there are fewer than three pairs, or all are alike.
    """
    records = list(records)
    names = {found["sha256"]: name for record in records for name, found in record["inputs"].items() if "sha256" in found}
    groups = defaultdict(list)
    for pair in pairs(records):
        groups[pair.test, pair.data, pair.index, pair.setting, pair.reference].append(pair)
    found, means = [], defaultdict(list)
    for (test, data, index, setting, reference), members in groups.items():
        gaps, distances = (np.array([getattr(pair, name) for pair in members]) for name in ("gap", "dissimilarity"))
        row = {"test": test, "data": data, "index": index, "setting": setting, "reference": names[reference.network],
               "layer": reference.layer, "n": len(members)}
        for name, function in (("spearman", rank_correlation.spearman_one_sided),
                               ("kendall", rank_correlation.kendall_one_sided)):
            row[name], row[f"{name}_p"] = function(distances, gaps)
        found.append(row)
        means[test, data, index, setting].append(row)
    for (test, data, index, setting), members in means.items():
        mean = {"test": test, "data": data, "index": index, "setting": setting, "reference": None, "layer": "mean",
                "n": sum(row["n"] for row in members)}
        for name in ("spearman", "spearman_p", "kendall", "kendall_p"):
            values = [row[name] for row in members if row[name] is not None]
            mean[name] = statistics.fmean(values) if values else None
        found.append(mean)
    return found


def pairs(records: Iterable[dict]) -> list[Pair]:
    """What the tests compare: all pairs of a reference with both indices and probing accuracies."""
    records = list(records)
    accuracies, measured = _probing(records), defaultdict(list)
    for data, index, setting, other, reference, dissimilarity in _dissimilarities(records):
        if reference.rank is None and other != reference and {(data, other), (data, reference)} <= accuracies.keys():
            measured[data, index, setting, other, reference].append(dissimilarity)
    best = {}
    for data, _, _, _, reference in measured:
        known = best.get((data, reference.layer))
        if known is None or accuracies[data, reference] > accuracies[data, known]:
            best[data, reference.layer] = reference
    found = []
    for (data, index, setting, other, reference), values in measured.items():
        if best[data, reference.layer] != reference:
            continue
        gap = abs(accuracies[data, other] - accuracies[data, reference])
        about = data, index, setting, reference, other, statistics.fmean(values), gap
        if other.rank is None:
            found.append(Pair("specificity", *about))
        elif other.layer == reference.layer:
            found.append(Pair("sensitivity", *about))
    return found


def _probing(records: list[dict]) -> dict[tuple[str, Representation], float]:
    """Test accuracy of the probes of a representation on the data they are trained for: the mean over seeds and settings."""
    found = defaultdict(list)
    for record in records:
        networks = _networks(record, "model_path") if record["experiment"] == "probe" else None
        if networks:
            for row in record["rows"]:
                if (row["probe"], row["network"], row["protocol"], row["group"]) == ("probe", "trained", "id", "all"):
                    found[row["data"], Representation(*networks, row["layer"], row["rank"])].append(row["accuracy"])
    return {key: statistics.fmean(values) for key, values in found.items()}


def _dissimilarities(records: list[dict]) -> Iterator[tuple]:
    """(data, index, setting, A, reference, dissimilarity) of all rows; the reference is on the second side."""
    for record in records:
        networks = _networks(record, *SIDES[record["experiment"]]) if record["experiment"] in SIDES else None
        if networks is None:
            continue
        one, two = networks
        if record["experiment"] == "similarity":
            for row in record["rows"]:
                sides = (Representation(one, row["layer1"], row["rank1"]), Representation(two, row["layer2"], row["rank2"]))
                for name in (*SIMILARITIES, *DISTANCES):
                    if row.get(name) is not None:
                        value = row[name] if name in DISTANCES else 1 - row[name]
                        yield row["data"], name, f"{row['n']} images", *sides, value
        else:
            for row in record["rows"]:
                if row.get("null") or row["pinv_rank"] not in (None, row["stitch_rank"]):
                    continue
                sides = (Representation(one, row["front_layer"], row["stitch_rank"]),
                         Representation(two, row["end_layer"], None))
                name, setting = _matching(row)
                yield row["data"], name, setting, *sides, 1 - row["accuracy"]
                if name == "dm" and row["normalized_difference"] is not None:
                    yield row["data"], "dm_struct", setting, *sides, row["normalized_difference"]


def _networks(record: dict, *names: str) -> tuple[str, ...] | None:
    """The hashes of the checkpoints in these settings; None where the record does not have them."""
    known = [record["inputs"].get(record["config"].get(name), {}).get("sha256") for name in names]
    return tuple(known) if all(known) else None


def _matching(row: dict) -> tuple[str, str]:
    """What the paper calls the index that is the accuracy of this stitch, and what it depends on."""
    epochs = f"{row['epochs']} epochs"
    if row["init"] == "pinv":
        images = f"{row['samples']} images, {row['solver']}"
        if row["stitch_rank"] is not None and row["pinv_rank"] is None:
            images += ", matched at full rank"
        return ("tlm_from_dm", f"{images}, {epochs}") if row["trained"] else ("dm", images)
    return ("tlm" if row["init"] == "rand" and row["trained"] else f"stitch_{row['init']}"), epochs
