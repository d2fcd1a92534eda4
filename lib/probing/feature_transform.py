"""Transforms of features before a probe: projection on leading directions, then standardisation.

Both are linear, so that they are folded into the weights at the end and fitted probes always take features as they are.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib.probing.stacked_probes import Linear, Probes

FLAT = 1e-6  # a deviation below this share of the mean is that of a feature that never changes


@dataclass(frozen=True)
class Restriction:
    """x -> (x - mean) P + mean for features (b, d): mean (d,), P the projector (d, d) on some directions."""

    mean: Tensor
    projector: Tensor


@dataclass(frozen=True)
class Standardisation:
    """x -> (x - mean) / deviation for features (b, d): both (d,)."""

    mean: Tensor
    deviation: Tensor


@dataclass(frozen=True)
class Directions:
    """The mean (d,) and the principal directions (d, d) of a layer's channels, as columns, the first explaining most."""

    mean: Tensor
    basis: Tensor

    def restriction(self, rank: int, device: torch.device) -> Restriction:
        """To the first directions, of features on a device."""
        leading = self.basis[:, :rank]
        return Restriction(self.mean.to(device), (leading @ leading.T).to(device))


@dataclass(frozen=True)
class FeatureTransform:
    """First the restriction, then the standardisation, where there are any."""

    restriction: Restriction | None = None
    standardisation: Standardisation | None = None

    def apply(self, rows: Tensor) -> Tensor:
        """(b, d) in float32."""
        if self.restriction is not None:
            mean = self.restriction.mean.to(rows)
            rows = (rows - mean) @ self.restriction.projector.to(rows) + mean
        if self.standardisation is not None:
            rows = (rows - self.standardisation.mean) / self.standardisation.deviation
        return rows

    def folded(self, probes: Probes) -> Probes:
        """Probes of transformed features as they act on the features themselves."""
        if self.standardisation is not None:
            probes = probes.before_standardising(self.standardisation.mean, self.standardisation.deviation)
        if self.restriction is not None:
            probes = probes.before_projecting(self.restriction.projector, self.restriction.mean)
        return probes

    def unfolded(self, linear: Linear) -> Linear:
        """A probe (k, d) of the features as one of standardised features, which `folded` undoes."""
        if self.standardisation is None:
            return linear
        return linear.after_standardising(self.standardisation.mean, self.standardisation.deviation)


class FeatureSpread:
    """Mean and standard deviation per feature of rows that come in batches, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total = torch.zeros((), dtype=torch.float64)
        self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Takes in rows (b, d)."""
        rows = rows.double()
        self.count += len(rows)
        self.total, self.squares = self.total + rows.sum(0), self.squares + rows.square().sum(0)

    def standardising(self, transform: FeatureTransform) -> FeatureTransform:
        """The transform whose rows were taken in, standardised by them; a feature that never changes is only shifted."""
        mean = self.total / self.count
        deviation = (self.squares / self.count - mean.square()).clamp_min(0).sqrt()
        flat = deviation <= FLAT * (1e-12 + mean.abs())
        standardisation = Standardisation(mean.float(), torch.where(flat, 1.0, deviation).float())
        return replace(transform, standardisation=standardisation)
