"""The figures of a run over the layers, from its rows: which there are, and what each of them shows."""

import numpy as np
from matplotlib.figure import Figure

from lib.datasets.names import parse
from lib.plots import layers as plots


def figures(rows: list[dict], sets: dict[str, dict], architecture: str) -> dict[str, Figure]:
    """A bar figure per OOD set, one map per corrupted set, and the sign table of several sets, by suffix.

    The rows are of one temperature; `sets` has for each OOD set, as it was asked for, what its rows say of it.
    """
    drawn, inside = {}, rows[0]["id"]
    energy = [row for row in rows if row["score"] == "energy" and row.get("index") is not None and "members" not in row]
    layers = list(dict.fromkeys(row["layer"] for row in energy))
    final = max(energy, key=lambda row: row["execution_index"])["layer"]
    plain = {other: key for other, key in sets.items() if key["corruption"] is None}
    for other, key in plain.items():
        scores = [
            {**row, "label": _label(row), "upper_bound": row["score"] == "oracle"}
            for row in rows
            if _about(key, row) and row.get("index") is None and row["score"] != "early exit" and "chosen_on" not in row
        ]
        drawn[suffix(other) if len(sets) > 1 else ""] = plots.layer_bars(
            [row for row in energy if _about(key, row)], scores, final, f"{architecture}: {inside} against {short(other)}"
        )
    itself = (inside, rows[0]["id_split"])  # a set has no sign against itself
    signed = {other: key for other, key in plain.items() if (key["ood"], key["ood_split"]) != itself}
    if len(signed) > 1:
        table = [[row for row in energy if _about(key, row)] for key in signed.values()]
        auroc, certain = (
            np.array([[row[measure] for row in part] for part in table]).T for measure in ("auroc", "sign_certain")
        )
        drawn["signs"] = plots.sign_table(
            layers, [short(other) for other in signed], auroc, certain, f"{architecture}, {inside}: the sign of every layer"
        )
    for name in dict.fromkeys(key["ood"] for key in sets.values() if key["corruption"] is not None):
        drawn[suffix(name)] = _map(
            [row for row in energy if row["ood"] == name], layers, f"{architecture}: {inside} against {name}"
        )
    return drawn


SEPARATE = 6  # more sets than so many are drawn together where they are corruptions of one set


def exits(
    layers: list[str], inside: np.ndarray, outside: dict[str, np.ndarray], sets: dict[str, dict], title: str
) -> Figure:
    """The histogram of the exits (n,) at which images left, len(layers) where they did not."""

    def shares(parts: list[np.ndarray]) -> np.ndarray:
        left = np.concatenate(parts)
        return np.bincount(left, minlength=len(layers) + 1) / len(left)

    together: dict[str, list[np.ndarray]] = {}
    for other, left in outside.items():
        corrupted = len(outside) > SEPARATE and sets[other]["corruption"] is not None
        together.setdefault(
            f"{sets[other]['ood']}, severity {sets[other]['severity']}" if corrupted else short(other), []
        ).append(left)
    return plots.exit_histogram(layers, shares([inside]), {name: shares(parts) for name, parts in together.items()}, title)


def suffix(name: str) -> str:
    """A data set's name as part of a file's name."""
    last = short(name) if "=" in name else name  # of a path only its end
    return "".join(letter if letter.isalnum() else "-" for letter in last).strip("-")


def short(name: str) -> str:
    """A data set's name in a figure: of a path its last part."""
    return parse(name).label if "=" in name else name


def _map(rows: list[dict], layers: list[str], title: str) -> Figure:
    kinds, severities = list(dict.fromkeys(row["corruption"] for row in rows)), sorted({row["severity"] for row in rows})
    values = {(row["layer"], row["corruption"], row["severity"]): row for row in rows}

    def grid(measure: str) -> np.ndarray:
        return np.array(
            [
                [[values.get((layer, kind, severity), {}).get(measure, np.nan) for severity in severities] for kind in kinds]
                for layer in layers
            ]
        )

    return plots.corruption_map(layers, kinds, severities, grid("auroc"), grid("auroc_two_sided"), title)


def _about(key: dict, row: dict) -> bool:
    return all(row.get(field) == key[field] for field in ("ood", "ood_split", "variant"))


def _label(row: dict) -> str:
    """A score's name beneath its bar."""
    if row["score"] == "oracle":
        return f"oracle: {row['chosen_layer']}"
    return row["score"] if row["layer"] == "all layers" else f"{row['score']}: {row['layer']}"
