"""Budgets: a number or fraction of parameters, counted in a part of the model."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from fractions import Fraction
from typing import TYPE_CHECKING

from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.budget.ledger import parts_of
from multiprune.runs.budget_outcome import BudgetOutcome

if TYPE_CHECKING:
    from multiprune.budget.ledger import ParameterLedger


class Budget(ABC):
    """A number of parameters that may stay.

    ``of`` names what is counted: ``encoder_linear`` (weights of the encoder's linear layers, what
    the literature counts), ``encoder`` (with embeddings, biases and LayerNorm) or ``total`` (with
    the heads).
    """

    def __init__(self, *, of: str = "encoder_linear") -> None:
        parts_of(of)
        self.of = of

    @abstractmethod
    def parameters(self, dense: int) -> int:
        """Return how many of ``dense`` parameters may stay."""

    def resolve(self, ledger: ParameterLedger, least: int = 0) -> int:
        """Return how many parameters of the denominator may stay.

        ``least`` is what a pruner has to leave of them, if that is more than what it may not touch.

        Raises:
            ValueError: if what the pruner may not touch alone is larger than the budget.
        """
        dense, fixed = ledger.dense_in(self.of), ledger.fixed_in(self.of)
        asked = self.parameters(dense)
        if asked < fixed:
            raise ValueError(
                f"A budget of {asked:,} of {dense:,} parameters ({self.of}) must hold what is "
                f"never pruned, but that is {fixed:,}: {_largest_fixed(ledger, self.of)}. "
                f"{reachable(max(fixed, least), dense)}; pruners of weights (magnitude, say) can "
                "prune these, too, if `parts` names them, and those of units if `granularity` has "
                "`hidden`."
            )
        return asked

    def outcome(self, ledger: ParameterLedger) -> BudgetOutcome:
        """Return how many parameters were asked for, and how many of them a model has kept."""
        return BudgetOutcome(
            scope=self.of,
            dense=ledger.dense_in(self.of),
            asked=self.resolve(ledger),
            kept=ledger.kept_in(self.of),
        )


def reachable(least: int, dense: int) -> str:
    """Say what the smallest budget is that can be met, as a number and as a fraction."""
    return (
        f"The smallest budget is {least:,}, a fraction of {math.ceil(least * 1000 / dense) / 1000}"
    )


class FullBudget(Budget):
    """Everything stays."""

    @override
    def parameters(self, dense: int) -> int:
        return dense


class FractionBudget(Budget):
    """A fraction in (0, 1] stays, rounded down to whole parameters."""

    def __init__(self, fraction: float, *, of: str = "encoder_linear") -> None:
        super().__init__(of=of)
        check_number("fraction", fraction, above=0, at_most=1)
        self.fraction = fraction

    @override
    def parameters(self, dense: int) -> int:
        # As written: the float 0.29 is a little less than 0.29, and would keep 28 of 100.
        kept = math.floor(Fraction(str(self.fraction)) * dense)
        if dense and not kept:
            raise ValueError(
                f"`fraction` must keep a parameter of {dense:,} ({self.of}), but {self.fraction} "
                f"keeps none; the smallest that does is {_smallest_fraction(dense)}."
            )
        return kept


class CountBudget(Budget):
    """A number of parameters stays."""

    def __init__(self, count: int, *, of: str = "encoder_linear") -> None:
        super().__init__(of=of)
        check_number("count", count, at_least=1, whole=True)
        self.count = count

    @override
    def parameters(self, dense: int) -> int:
        if self.count > dense:
            raise ValueError(
                f"`count` must be at most the {dense:,} parameters that {self.of} has, "
                f"but is {self.count:,}."
            )
        return self.count


def parse_budget(text: str, *, of: str = "encoder_linear") -> Budget:
    """Read a whole number as a count of parameters, and any other number as a fraction.

    ``count=`` or ``fraction=`` may say which of them it is.
    """
    kind, named, value = text.rpartition("=")
    try:
        if named and kind == "fraction":
            return FractionBudget(fraction=float(value), of=of)
        if named and kind == "count":
            return CountBudget(count=int(value), of=of)
        number = float(text)
    except ValueError as error:
        if "`" in str(error):
            raise
        raise ValueError(
            "A budget must be a whole number of parameters or a fraction such as 0.2, but is "
            f"{text!r}."
        ) from None
    whole = text.strip().lstrip("+-").replace("_", "").isdecimal()
    return CountBudget(count=int(text), of=of) if whole else FractionBudget(fraction=number, of=of)


def _smallest_fraction(dense: int) -> str:
    """Return a short fraction that keeps at least one of so many parameters, rounded up."""
    scale = 10 ** (len(str(dense)) + 1)
    return f"{math.ceil(scale / dense) / scale:.3g}"


def _largest_fixed(ledger: ParameterLedger, denominator: str) -> str:
    fixed = {
        part: ledger.dense[part] - ledger.prunable.get(part, 0) for part in parts_of(denominator)
    }
    return ", ".join(f"{part} {count:,}" for part, count in fixed.items() if count)
