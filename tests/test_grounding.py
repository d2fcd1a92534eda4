"""The statistical tests compare what they should, and their coefficients and p-values are those of their definitions."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import script

from lib.experiments import EXPERIMENTS
from lib.metrics import rank_correlation
from lib.metrics.similarity import WEIGHING
from lib.tables import papers, record_library, similarity_validity
from lib.tables.papers import spec

LAYERS = ("one", "two", "three")
PROBES = {"p": (0.4, 0.61, 0.9), "q": (0.5, 0.55, 0.953), "r": (0.447, 0.652, 0.858)}
RANKS = {4: 0.0, 2: -0.1, 1: -0.3}  # what the probe loses


def accuracy(network, layer, rank=None):
    return PROBES[network][LAYERS.index(layer)] + RANKS.get(rank, 0.0)


def record(experiment, config, rows):
    names = [value for key, value in config.items() if key.endswith("path")]
    return {
        "experiment": experiment,
        "config": config,
        "rows": rows,
        "environment": {},
        "started": "",
        "inputs": {name: {"sha256": Path(name).name[0], "bytes": 1, "files": 1} for name in names},
    }


def runs(records):
    return record_library.Library(
        ((Path(f"{number}.json"), record) for number, record in enumerate(records)), EXPERIMENTS
    ).runs


def probe(name, **changes):
    row = {"probe": "probe", "network": "trained", "protocol": "id", "group": "all", "data": "d"}
    return record(
        "probe",
        {"model_path": f"{name}.pt"},
        [
            row | {"layer": layer, "rank": rank, "accuracy": accuracy(name, layer, rank)} | changes
            for layer in LAYERS
            for rank in (None, *RANKS)
        ],
    )


def cka(one, two, ranks=(None,)):
    """Rows whose dissimilarity grows with the gap between probing accuracies."""
    return record(
        "similarity",
        {"model1_path": f"{one}.pt", "model2_path": f"{two}.pt"},
        [
            {
                "layer1": a,
                "layer2": b,
                "rank1": rank,
                "rank2": None,
                "n": 10,
                "data": "d",
                "cka": 1 - (accuracy(one, a, rank) - accuracy(two, b)) ** 2,
                "procrustes": 0.5,
            }
            for a in LAYERS
            for b in LAYERS
            for rank in ranks
        ],
    )


def stitch(one, two, **changes):
    row = {
        "null": None,
        "init": "pinv",
        "trained": False,
        "samples": 100,
        "solver": "exact",
        "epochs": 0,
        "data": "d",
        "stitch_rank": None,
        "pinv_rank": None,
        "normalized_difference": 0.3,
    }
    return record(
        "stitch",
        {"front_path": f"{one}.pt", "end_path": f"{two}.pt"},
        [
            {**row, "front_layer": a, "end_layer": b, "accuracy": abs(accuracy(one, a) - accuracy(two, b)), **changes}
            for a in LAYERS
            for b in LAYERS
        ],
    )


def by(rows, **wanted):
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_an_index_that_follows_the_probes_is_specific_and_one_that_opposes_them_is_not():
    records = [probe(name) for name in "pqr"]
    records += [make(one, two) for one, two in itertools.product("pqr", repeat=2) for make in (cka, stitch)]
    rows = similarity_validity.rows(runs(records))
    for layer, best in zip(LAYERS, ("q.pt", "r.pt", "q.pt"), strict=True):
        row = by(rows, test="specificity", index="cka", layer=layer)[0]
        assert row["reference"] == best and row["n"] == 8 and row["setting"] == "10 images"  # all but the reference itself
        assert row["spearman"] == pytest.approx(1) and row["kendall"] == pytest.approx(1)
        assert [row[name] for name in ("spearman_p", "kendall_p", "p_least")] == pytest.approx([1 / math.factorial(8)] * 3)
        functional = by(rows, test="specificity", index="dm", layer=layer)[0]
        assert functional["spearman"] == pytest.approx(-1) and functional["kendall_p"] > 0.999
        assert by(rows, test="specificity", index="procrustes", layer=layer)[0]["spearman"] is None  # the same everywhere
    mean = by(rows, index="cka", layer="mean")[0]
    assert mean["spearman"] == pytest.approx(1) and mean["n"] == 24 and mean["reference"] is None
    assert not by(rows, test="sensitivity") and {row["index"] for row in rows} == {"cka", "procrustes", "dm", "dm_struct"}


def test_sensitivity_limits_the_source_of_the_references_layer():
    records = [probe("p"), probe("q"), cka("p", "q", tuple(RANKS)), cka("q", "q", tuple(RANKS))]
    pairs = [pair for pair in similarity_validity.pairs(runs(records)) if pair.index == "cka"]
    assert {pair.test for pair in pairs} == {"sensitivity"} and {pair.reference.network for pair in pairs} == {"q"}
    assert all(pair.other.layer == pair.reference.layer and pair.other.rank in RANKS for pair in pairs)
    assert len(pairs) == 3 * 2 * 3
    for pair in pairs:
        other = accuracy({"p": "p", "q": "q"}[pair.other.network], pair.other.layer, pair.other.rank)
        assert pair.gap == pytest.approx(abs(other - accuracy("q", pair.reference.layer)))
        assert pair.dissimilarity == pytest.approx(pair.gap**2)


def test_indices_are_compared_by_the_reference_that_most_of_them_have():
    records = [probe("p"), probe("q"), cka("q", "p"), stitch("q", "p"), stitch("q", "q")]  # q is better at two layers
    pairs = similarity_validity.pairs(runs(records))
    assert {pair.index for pair in pairs} == {"cka", "procrustes", "dm", "dm_struct"}
    assert {pair.reference.network for pair in pairs} == {"p"}


@pytest.mark.parametrize("column", ["pinv_rank", "accuracy", "front_layer", "normalized_difference", "samples"])
def test_a_row_without_a_column_is_passed_over(column):
    made = [probe("p"), probe("q"), cka("p", "q"), stitch("p", "q")]
    for record in made:
        record["rows"] = [{key: value for key, value in row.items() if key != column} for row in record["rows"]]
    similarity_validity.rows(runs(made))


def test_stitches_of_limited_rank_count_at_the_rank_that_passes():
    records = [
        probe("p"),
        probe("q"),
        stitch("p", "q", stitch_rank=2, pinv_rank=2),
        stitch("p", "q", stitch_rank=4, pinv_rank=2),
        stitch("p", "q", stitch_rank=1),
    ]
    pairs = [pair for pair in similarity_validity.pairs(runs(records)) if pair.index == "dm"]
    assert {(pair.other.rank, pair.setting) for pair in pairs} == {
        (2, "100 images, exact"),
        (1, "100 images, exact, matched at full rank"),
    }
    assert {pair.test for pair in pairs} == {"sensitivity"}


def test_pwcca_under_a_rank_limit_is_told_apart_from_the_papers_which_whitens_rounding():
    """In the tables: "other set-up"; and so is a first side of more directions than the second."""
    records = [probe("p"), probe("q"), cka("p", "q", tuple(RANKS)), cka("q", "q", tuple(RANKS))]
    for made in records[2:]:
        for row in made["rows"]:
            row["pwcca"] = 1 - row["cka"]
    rows = similarity_validity.rows(runs(records))
    told = {(row["test"], row["index"]): row["whitening"] for row in rows}
    assert told["sensitivity", "pwcca"] == "of the directions that are left" and told["sensitivity", "cka"] is None
    (table,) = papers.chosen(("stitching/e6",)).values()
    (cell, *_) = [cell for cell in spec.cells(table) if "PWCCA" in cell.labels]
    assert not spec.satisfies({"whitening": told["sensitivity", "pwcca"]}, cell.setup)
    (grid,) = papers.chosen(("stitching/e4",)).values()
    (cell, *_) = [cell for cell in spec.cells(grid) if "PWCCA" in cell.labels]
    assert cell.setup == {"pwcca_weighs": WEIGHING[0]}


def test_null_rows_other_probes_and_other_data_do_not_count():
    records = [probe("p"), probe("q"), stitch("p", "q", null="shuffled"), cka("p", "q")]
    assert {pair.index for pair in similarity_validity.pairs(runs(records))} == {"cka", "procrustes"}
    for changes in ({"network": "untrained"}, {"protocol": "few-shot"}, {"group": "worst"}, {"data": "e"}):
        assert not similarity_validity.pairs(runs([probe("p", **changes), probe("q", **changes), cka("p", "q")]))
    assert similarity_validity.rows([]) == []


def test_probes_of_other_settings_are_tests_of_their_own():
    records = [cka(one, two) for one, two in itertools.product("pq", repeat=2)]
    plain = [probe(name, reduce="gap", solver="adam", epoch=10, lr=0.001, selected_by="none") for name in "pq"]
    for change in ({"reduce": "gmp"}, {"solver": "lbfgs"}, {"epoch": 20}, {"lr": 0.1}, {"selected_by": "id-val"}):
        settings = {"reduce": "gap", "solver": "adam", "epoch": 10, "lr": 0.001, "selected_by": "none", **change}
        others = [probe(name, **settings, accuracy=value) for name, value in zip("pq", (0.2, 0.1), strict=True)]
        rows = by(similarity_validity.rows(runs([*records, *plain, *others])), index="cka", layer="one", test="specificity")
        assert sorted(row["reference"] for row in rows) == ["p.pt", "q.pt"] and len({row["probes"] for row in rows}) == 2
    found = similarity_validity.pairs(runs([*records, plain[0], others[1]]))
    assert found and all(pair.reference.network == pair.other.network for pair in found)


def test_references_are_of_the_type_that_is_compared():
    def trained(name, model_type):
        return record("train", {"directory": name, "model_type": model_type, "dataset": "d", "epochs": 1, "seed": 0}, [])

    def made(make, *names):
        return make(*(f"models/{name}/{name}" for name in names))

    PROBES.update({f"models/{name}/{name}": PROBES[name] for name in "pqr"})
    records = [trained("p", "resnet18"), trained("q", "resnet18"), trained("r", "vgg11")]
    records += [made(probe, name) for name in "pqr"]
    records += [made(cka, one, two) for one, two in itertools.product("pqr", repeat=2)]
    rows = by(similarity_validity.rows(runs(records)), index="cka", test="specificity", layer="two")
    assert {(row["model_type"], Path(row["reference"]).stem, row["n"]) for row in rows} == {
        ("resnet18", "p", 5),
        ("vgg11", "r", 2),
    }


def test_stitches_are_called_by_what_made_them():
    settings = [
        ({}, "dm", "100 images, exact"),
        ({"solver": "reference"}, "dm", "100 images, reference"),
        ({"init": "rand", "trained": True, "epochs": 3, "samples": None}, "tlm", "3 epochs"),
        ({"trained": True, "epochs": 2}, "tlm_from_dm", "100 images, exact, 2 epochs"),
        ({"init": "eye", "samples": None}, "stitch_eye", "0 epochs"),
    ]
    for changes, index, setting in settings:
        found = similarity_validity.pairs(runs([probe("p"), probe("q"), stitch("p", "q", **changes)]))
        assert (index, setting) in {(pair.index, pair.setting) for pair in found}
        assert ("dm_struct" in {pair.index for pair in found}) == (index == "dm")


def test_one_sided_coefficients_equal_counting_pairs_and_orders():
    generator = np.random.default_rng(0)
    x = generator.normal(size=6)
    y = x + generator.normal(size=6)
    signs = [np.sign((x[i] - x[j]) * (y[i] - y[j])) for i, j in itertools.combinations(range(6), 2)]
    tau, (p, _) = rank_correlation.kendall_one_sided(x, y)
    assert tau == pytest.approx(np.mean(signs))

    def count(order):
        return sum(np.sign((x[order[i]] - x[order[j]]) * (y[i] - y[j])) for i, j in itertools.combinations(range(6), 2))

    orders = [count(order) for order in itertools.permutations(range(6))]
    assert p == pytest.approx(np.mean(np.array(orders) >= sum(signs) - 1e-9))  # exact
    rho, (p, _) = rank_correlation.spearman_one_sided(x, y)
    assert rho == pytest.approx(rank_correlation.spearman(x, y))
    assert p == pytest.approx(rank_correlation.spearman_p(x, y).p / 2, abs=0.03)
    assert rank_correlation.spearman_one_sided(x, -y)[1].p == pytest.approx(1 - p, abs=1e-12)
    assert rank_correlation.kendall_one_sided(x, 0 * y) == (None, (None, None))


def test_the_tests_come_from_records_of_the_scripts(trained):
    layers, both = "features.0,features.3", ("models/a/model_1.pt", "models/a/model_2.pt")
    place = "--results-dir", "grounding", "--max-examples", 300
    for path in both:
        done = script("exec_probe.py", path, "-d", "digits", "-l", layers, "--reduce", "gap", "-e", 1, *place, cwd=trained)
        assert done.returncode == 0, done.stderr
    done = script("exec_similarity.py", *both, "auto", "auto", layers, "all", "-n", 100, *place, cwd=trained)
    assert done.returncode == 0, done.stderr
    done = script("exec_tables.py", "specificity", "sensitivity", "--results-dir", "grounding", cwd=trained)
    assert done.returncode == 0, done.stderr
    assert "## specificity" in done.stdout and "procrustes" in done.stdout and "## sensitivity" not in done.stdout
    assert [path.name for path in (trained / "grounding" / "tables").glob("*.png")] == ["specificity.png"]
    done = script("exec_tables.py", "specificity", "--seeds", 0, cwd=trained)
    assert done.returncode == 2 and "compare networks of all seeds" in done.stderr
