"""What several numbers are by chance, and how unlikely the best of them is after one has looked at all.

A draw breaks what the numbers speak of by one permutation that all of them share: of the images of one network for
similarities, of the members of two groups for AUROCs. So the distribution of the best of them is known without a word on
how they depend on each other: layers of one network are alike, and a correction for as many tests as layers would be too
strict. The idea of a null for whatever is picked after a look at all layers is that of calibrated similarity
("Aristotelian", ICML 2026); the maximum of standardised numbers is Westfall & Young's (1993).
"""

from dataclasses import dataclass

import numpy as np

COLUMNS = ("null_mean", "null_q95", "p_null", "p_best")
LEVEL = 0.95
ROUNDING = 1e-6  # of a column's scale: less is no deviation
TIE = 1e-4  # deviations: what differs by less does so by rounding


@dataclass(frozen=True)
class Null:
    """Of k numbers, each (k,): the mean and the 95 % quantile by chance, p of each alone, and p after a look at all.

    p       the share of draws that are as high, itself among them: one-sided, at least 1 / (draws + 1)
    p_best  the share of draws whose most outstanding number stands out as far: it holds for whichever was picked, and so
            for the best. At 0.05 one or more of k numbers without any meaning are found in at most 5 % of cases
    """

    mean: np.ndarray
    q95: np.ndarray
    p: np.ndarray
    p_best: np.ndarray

    def columns(self) -> list[dict[str, float | None]]:
        """What rows say of each number, by `COLUMNS`; None where there is no null."""
        numbers = zip(self.mean.tolist(), self.q95.tolist(), self.p.tolist(), self.p_best.tolist(), strict=True)
        return [
            {name: None if np.isnan(value) else value for name, value in zip(COLUMNS, row, strict=True)} for row in numbers
        ]


def calibrate(observed: np.ndarray, drawn: np.ndarray) -> Null:
    """The null of observed numbers (k,), where higher is more, from those of N draws (N, k).

    Columns are compared in units of their own deviation over all N + 1 lines, the observed one among them, so that under the
    null every line is as likely to be the highest: a wide layer whose numbers are high by chance does not hide a narrow one.
    Columns that hold a NaN have no null (NaN); those that do not change have p = 1.
    """
    lines = np.concatenate([np.asarray(observed, float)[None], np.asarray(drawn, float)])
    known = ~np.isnan(lines).any(0)
    missing = np.full(lines.shape[1], np.nan)
    null = Null(missing, missing.copy(), missing.copy(), missing.copy())
    if not known.any():
        return null
    kept = lines[:, known]
    deviation = kept.std(0)
    moves = deviation > ROUNDING * np.abs(kept).max(0)
    standing = np.where(moves, (kept - kept.mean(0)) / np.where(moves, deviation, 1), 0)
    reached = standing[0] - TIE
    count = len(lines)
    null.mean[known], null.q95[known] = kept[1:].mean(0), np.quantile(kept[1:], LEVEL, axis=0)
    null.p[known] = (1 + (standing[1:] >= reached).sum(0)) / count
    null.p_best[known] = (1 + (standing[1:].max(1)[:, None] >= reached).sum(0)) / count
    return null
