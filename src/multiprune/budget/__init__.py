"""Parameter budgets, and the ledger of parameters that they are checked against."""

from multiprune.budget.budget import Budget, CountBudget, FractionBudget, FullBudget
from multiprune.budget.ledger import ParameterLedger

__all__ = ["Budget", "CountBudget", "FractionBudget", "FullBudget", "ParameterLedger"]
