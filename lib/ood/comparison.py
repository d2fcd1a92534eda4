"""Detection measures of several scores on the same images, as rows, with tests against the final layer.

Every test is paired (DeLong et al. 1988): the scores are of the same images. Nothing is turned round; `auroc_oracle_sign`
is what an oracle that knows the sign would have.
"""

from dataclasses import dataclass

import numpy as np

from lib.metrics import distribution_free, multiple_testing, ood_detection
from lib.metrics.ood_detection import Placements
from lib.ood import selection

# what a group's row has the mean of
MEANS = ("auroc", "auroc_two_sided", "auroc_oracle_sign", "fpr95", "aupr_in", "aupr_out", "detected", "mac_ood")

# and what it has not
OF_ONE_SET = (
    *("se", "se_delong", "ci_low", "ci_high", "vs_final", "p", "p_holm", "sign", "sign_certain", "n_ood"),
    *selection.COLUMNS,
    *distribution_free.COLUMNS,
)


@dataclass(frozen=True)
class Score:
    """A score that is not one layer's energy: what its row says, and its values of in- and out-of-distribution images.

    Where each half of the images is scored by what was chosen on the other half, `halves` says which half each is in; they
    are then compared within their halves. `best` is the AUROC of the best choice, if there was one to make. What was
    chosen on the very images that it is measured on is not `tested`: it has no interval and no p.
    """

    about: dict
    inside: np.ndarray  # (n,)
    outside: np.ndarray  # (m,)
    halves: tuple[np.ndarray, np.ndarray] | None = None  # (n,) and (m,), 0 or 1
    best: float | None = None
    tested: bool = True


def layer_rows(inside: np.ndarray, outside: np.ndarray, fitted: np.ndarray, final: int, seed: int = 0) -> list[dict]:
    """The measures of every layer, from energies (n, L), (m, L) and, for the two-sided score, (f, L).

    With what holds after a look at all layers: `selection.after_selection`; `seed` is of its permutations.
    """
    deviations = [ood_detection.deviation(part, fitted) for part in (inside, outside)]
    two_sided = ood_detection.placements(*deviations)
    rows = _rows(compare(inside, outside, final) | {"auroc_two_sided": two_sided.auroc})
    for row, more in zip(rows, selection.after_selection(inside, outside, two_sided, final, seed), strict=True):
        row |= more
    return rows


def score_rows(scores: list[Score], inside: np.ndarray, outside: np.ndarray) -> list[dict]:
    """What each score is about and its measures, against the final layer's energies (n,) and (m,)."""
    if not scores:
        return []
    columns = [_measured(score) for score in [*scores, Score({}, inside, outside)]]
    placed = Placements(
        np.stack([column.inside for column, _ in columns], 1),
        np.stack([column.outside for column, _ in columns], 1),
        np.array([column.auroc for column, _ in columns]),
    )
    shares = {name: np.array([measures[name] for _, measures in columns]) for name in SHARES}
    tested = np.array([score.tested for score in scores] + [True])
    compared = []
    for score, row in zip(scores, _rows(_compared(placed, shares, len(scores), tested)), strict=False):
        regret = {"regret": score.best - row["auroc"]} if score.best is not None else {}
        compared.append({**score.about, **row, **regret})
    return compared


def compare(inside: np.ndarray, outside: np.ndarray, final: int) -> dict[str, np.ndarray]:
    """Measures (L,) of scores (n, L) and (m, L); `vs_final`, `p` and `p_holm` are against column `final`.

    Holm's correction is over the other L - 1 columns; the column itself has no p. `se` is Hanley & McNeil's, `se_delong`
    DeLong's. With fewer than 3 images of either side there is no error, interval, sign or p.
    """
    placed = ood_detection.placements(inside, outside)
    shares = {name: measure(inside, outside) for name, measure in SHARES.items()}
    return _compared(placed, shares, final, np.ones(len(placed.auroc), bool))


SHARES = {
    "fpr95": ood_detection.fpr_at_tpr,
    "aupr_in": ood_detection.average_precision_in,
    "aupr_out": ood_detection.average_precision_out,
}


def _measured(score: Score) -> tuple[Placements, dict[str, float]]:
    """Where one score places each image, (n,) and (m,), its AUROC, and its other measures.

    Of halves the AUROC and the other measures are the means over both, weighed by their in-distribution images; an image's
    placement is that among the others of its half, which DeLong's covariance takes as it does all placements.
    """
    n, m = len(score.inside), len(score.outside)
    of_halves = score.halves or (np.zeros(n, int), np.zeros(m, int))
    inside, outside, auroc = np.empty(n), np.empty(m), 0.0
    measures = dict.fromkeys(SHARES, 0.0)
    for half in np.unique(of_halves[0]):
        inner, outer = (part == half for part in of_halves)
        placed = ood_detection.placements(score.inside[inner, None], score.outside[outer, None])
        inside[inner], outside[outer] = placed.inside[:, 0], placed.outside[:, 0]
        auroc += inner.mean() * placed.auroc[0]
        for name, measure in SHARES.items():
            measures[name] += inner.mean() * measure(score.inside[inner], score.outside[outer])
    return Placements(inside, outside, np.asarray(auroc)), measures


def _compared(placed: Placements, shares: dict[str, np.ndarray], final: int, tested: np.ndarray) -> dict[str, np.ndarray]:
    """All measures (L,), from placements of L scores: against column `final`, with intervals and p of those `tested`."""
    auroc, n, m = placed.auroc, len(placed.inside), len(placed.outside)
    missing = np.full(len(auroc), np.nan)
    if min(n, m) >= ood_detection.FEWEST:
        error, sign = np.sqrt(np.maximum(np.diag(placed.covariance()), 0)), np.where(auroc >= 0.5, 1, -1)
        difference, p = ood_detection.delong_against(placed, final)
    else:
        error = sign = p = missing
        difference = auroc - auroc[final]
    p = np.where(tested & (np.arange(len(auroc)) != final), p, np.nan)
    low, high = (np.where(tested, end, np.nan) for end in ood_detection.interval(auroc, error, n, m))
    return {
        "auroc": auroc,
        "se": ood_detection.auroc_standard_error(auroc, n, m),
        "se_delong": error,
        "ci_low": low,
        "ci_high": high,
        "sign": sign,
        "auroc_oracle_sign": np.maximum(auroc, 1 - auroc),
        **shares,
        "vs_final": difference,
        "p": p,
        "p_holm": multiple_testing.holm(p),
    }


def mark_signs(measured: list[list[dict]]) -> None:
    """Says in every layer's row, of one list of rows per OOD set, whether its sign holds for all the sets.

    `sign_certain`: the 95 % interval of this set leaves out 0.5. `sign_agrees`: the certain signs of all sets are the same;
    None where fewer than two are certain.
    """
    for layer in zip(*measured, strict=True):
        for row in layer:
            row["sign_certain"] = row["ci_low"] is not None and not row["ci_low"] <= 0.5 <= row["ci_high"]
        certain = [row["sign"] for row in layer if row["sign_certain"]]
        for row in layer:
            row["sign_agrees"] = len(set(certain)) == 1 if len(certain) > 1 else None


def group_rows(rows: list[dict], group: str) -> list[dict]:
    """For every layer, temperature and score the mean over the sets of a group, as OpenOOD reports it."""
    members: dict[tuple, list[dict]] = {}
    for row in rows:
        if row["group"] == group and "chosen_on" not in row:
            members.setdefault((row["layer"], row["T"], row["score"]), []).append(row)
    means_of_group = []
    for same in members.values():
        kept = {key: value for key, value in same[0].items() if all(row.get(key) == value for row in same)}
        means = {
            key: float(np.mean([row[key] for row in same])) for key in MEANS if all(row.get(key) is not None for row in same)
        }
        for measure in OF_ONE_SET:
            kept.pop(measure, None)
        means_of_group.append({**kept, "ood": group, "members": "+".join(row["ood"] for row in same), **means})
    return means_of_group


def _rows(measures: dict[str, np.ndarray]) -> list[dict]:
    """One dictionary per column; None where a measure does not exist."""
    count = len(measures["auroc"])
    return [
        {key: None if np.isnan(values[column]) else values[column].item() for key, values in measures.items()}
        for column in range(count)
    ]
