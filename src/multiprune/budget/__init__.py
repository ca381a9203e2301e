"""How much may stay, and the ledger that it is counted against."""

from multiprune.budget.budget import Budget, CountBudget, FractionBudget, FullBudget
from multiprune.budget.ledger import ParameterLedger

__all__ = ["Budget", "CountBudget", "FractionBudget", "FullBudget", "ParameterLedger"]
