"""The contract of a design: which mixtures of sources to try. Nothing of a sample is looked at."""

from pydantic import BaseModel, ConfigDict

from schemas.errors import ContractError
from stages.mixture.designs.region import Doubles, Region


class Design(BaseModel):
    """One way to choose mixtures; its settings are its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str

    def least(self, size: int) -> int:
        """The fewest mixtures of `size` sources that it makes sense for."""
        return 2

    def mixtures(self, region: Region, count: int, seed: int) -> Doubles:
        """(count, S) distinct mixtures of the region."""
        raise ContractError(f"{type(self).__name__} does not implement mixtures()")
