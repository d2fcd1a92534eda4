"""The flags of an attack: how far, and how, it may move an image. Importing this needs no torch."""

from dataclasses import dataclass

from lib.core.errors import UsageError
from lib.runs.cli import RunConfig, above, at_least, flag

NORMS = ("2", "inf")
ATTACKS = ("pgd", "apgd", "aa")  # projected gradient ascent; its version with adaptive steps; AutoAttack


@dataclass(frozen=True, kw_only=True)
class PerturbationConfig(RunConfig):
    """The flags of every script that attacks a network; distances are in [0, 1] units of the images."""

    norm: str = flag("2", choices=NORMS, help="norm of an attack")
    eps: float | None = flag(None, check=above(0), help="radius of an attack, in [0, 1] units of the images")
    attack_steps: int = flag(10, check=at_least(1), help="gradient steps of an attack")
    attack_step_size: float | None = flag(
        None, check=above(0), help="length of a gradient step of an attack; default: 2 eps / steps"
    )

    @property
    def radius(self) -> float:
        """`--eps`; raises `UsageError` where it is not given."""
        if self.eps is None:
            raise UsageError("--eps is required: the radius of an attack, in [0, 1] units of the images")
        return self.eps

    @property
    def step_size(self) -> float:
        """The length of a step."""
        return self.attack_step_size or 2 * self.radius / self.attack_steps
