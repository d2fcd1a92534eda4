"""All measures of several scores of the same images, as rows, and whether they differ from the final layer's.

Every test is paired (DeLong et al. 1988): the scores are of the same images. Nothing is turned round; `auroc_oracle_sign`
is what an oracle that knows the sign would have.
"""

from dataclasses import dataclass

import numpy as np

from lib.metrics import multiple_testing, ood_detection

# what a group's row has the mean of
MEANS = ("auroc", "auroc_two_sided", "auroc_oracle_sign", "fpr95", "aupr_in", "aupr_out", "detected", "mac_ood")


@dataclass(frozen=True)
class Score:
    """A score that is not one layer's energy: what its row says, and its values of in- and out-of-distribution images."""

    about: dict
    inside: np.ndarray  # (n,)
    outside: np.ndarray  # (m,)


def layer_rows(inside: np.ndarray, outside: np.ndarray, fitted: np.ndarray, final: int) -> list[dict]:
    """The measures of every layer, from energies (n, L), (m, L) and, for the two-sided score, (f, L)."""
    two_sided = ood_detection.auroc(ood_detection.deviation(inside, fitted), ood_detection.deviation(outside, fitted))
    return _rows(compare(inside, outside, final) | {"auroc_two_sided": two_sided})


def score_rows(scores: list[Score], inside: np.ndarray, outside: np.ndarray) -> list[dict]:
    """What each score is about and its measures, against the final layer's energies (n,) and (m,)."""
    if not scores:
        return []
    inner = np.stack([*(score.inside for score in scores), inside], 1)
    outer = np.stack([*(score.outside for score in scores), outside], 1)
    measured = _rows(compare(inner, outer, len(scores)))[:-1]
    compared = []
    for score, row in zip(scores, measured, strict=True):
        best = score.about.get("best")
        regret = {"regret": best - row["auroc"]} if best is not None else {}
        compared.append({**{key: value for key, value in score.about.items() if key != "best"}, **row, **regret})
    return compared


def compare(inside: np.ndarray, outside: np.ndarray, final: int) -> dict[str, np.ndarray]:
    """Measures (L,) of scores (n, L) and (m, L); `vs_final`, `p` and `p_holm` are against column `final`.

    Holm's correction is over the other L - 1 columns; the column itself has no p. `se` is Hanley & McNeil's, `se_delong`
    DeLong's. With fewer than 3 images of either side there is no error, interval, sign or p.
    """
    placed = ood_detection.placements(inside, outside)
    auroc, n, m = placed.auroc, len(inside), len(outside)
    missing = np.full(len(auroc), np.nan)
    if min(n, m) >= ood_detection.FEWEST:
        error, sign = np.sqrt(np.maximum(np.diag(placed.covariance()), 0)), np.where(auroc >= 0.5, 1, -1)
        difference, p = ood_detection.delong_against(placed, final)
    else:
        error = sign = p = missing
        difference = auroc - auroc[final]
    others = np.arange(len(auroc)) != final
    adjusted = missing.copy()
    adjusted[others] = multiple_testing.holm(p[others])
    low, high = ood_detection.interval(auroc, error, n, m)
    return {
        "auroc": auroc,
        "se": ood_detection.auroc_standard_error(auroc, n, m),
        "se_delong": error,
        "ci_low": low,
        "ci_high": high,
        "sign": sign,
        "auroc_oracle_sign": np.maximum(auroc, 1 - auroc),
        "fpr95": ood_detection.fpr_at_tpr(inside, outside),
        "aupr_in": ood_detection.average_precision_in(inside, outside),
        "aupr_out": ood_detection.average_precision_out(inside, outside),
        "vs_final": difference,
        "p": np.where(others, p, np.nan),
        "p_holm": adjusted,
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
        for measure in ("se", "se_delong", "ci_low", "ci_high", "vs_final", "p", "p_holm", "sign", "sign_certain", "n_ood"):
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
