"""The recorded budget: requested and kept parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Interval

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Every parameter of a model belongs to one of them.
PARTS = ("embeddings", "encoder_linear", "encoder_other", "heads")

#: The parts that a budget of each scope counts.
SCOPES: Mapping[str, tuple[str, ...]] = {
    "encoder_linear": ("encoder_linear",),
    "encoder": ("embeddings", "encoder_linear", "encoder_other"),
    "total": PARTS,
}

Count = Annotated[int, Interval(ge=0, lt=2**53)]


@dataclass(frozen=True, kw_only=True)
class BudgetOutcome:
    """How many parameters a budget allowed and how many a model has kept, of those in its scope.

    Attributes:
        scope: what is counted, as ``encoder_linear``.
        dense: parameters in scope before pruning.
        asked: those that may stay.
        kept: those that have stayed.
    """

    scope: str
    dense: Annotated[Count, Ge(1)]
    asked: Count
    kept: Count

    @property
    def density(self) -> float:
        """Kept / dense."""
        return self.kept / self.dense

    def __str__(self) -> str:
        return (
            f"Asked for {self.asked:,} and kept {self.kept:,} of {self.dense:,} parameters "
            f"({self.scope}), a density of {self.density:.4f}."
        )


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """How many parameters a part of the model had, and how many it has kept."""

    part: str
    dense: Count
    kept: Count
    in_scope: bool = False


def parts_of(scope: str) -> tuple[str, ...]:
    """Return the parts that a budget of a scope counts.

    Raises:
        ValueError: if there is no such scope.
    """
    if scope not in SCOPES:
        raise ValueError(f"A budget must count `of` one of {', '.join(SCOPES)}, but is {scope!r}.")
    return SCOPES[scope]
