"""OOD sets, and the roles of their images."""

from dataclasses import dataclass

from torch import Tensor

from lib.datasets.split import Split
from lib.probing.roles import Shares, divide


@dataclass(frozen=True)
class Shift:
    """An OOD set as it is tested; `val` is its validation split, where it has one of its own."""

    name: str
    test: Split
    origin: str
    val: Split | None = None
    val_origin: str = ""

    @property
    def learnt(self) -> Split:
        """Where images that are not for testing come from."""
        return self.test if self.val is None else self.val

    @property
    def learnt_origin(self) -> str:
        """Where the ids of those images come from."""
        return self.origin if self.val is None else self.val_origin

    @property
    def splits(self) -> dict[str, Split]:
        """Both splits by name, "val" first, or the test split alone."""
        return {"test": self.test} if self.val is None else {"val": self.val, "test": self.test}

    def role(self, role: str, shares: dict[str, Shares]) -> tuple[str, Tensor]:
        """Which split ("test" or "val") a role's images are in, and their positions; `shares` by split."""
        which = "test" if self.val is None or role == "test" else "val"
        return which, shares[which].positions(self.splits[which], role)

    def shares(self, protocol: str, roles: str, seed: int) -> dict[str, Shares]:
        """Who is what among the ids of either split."""
        if self.val is None:
            return {"test": divide(self.test.indices, protocol, roles, seed)}
        return {
            "test": Shares({"test": self.test.indices}),
            "val": divide(self.val.indices, protocol, roles, seed, validation=True),
        }
