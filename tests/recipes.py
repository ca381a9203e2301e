"""Makes recipes of specialists: what their file says, with changes."""

from __future__ import annotations

from typing import Any

import yaml

from multiprune.budget.budget import FractionBudget
from multiprune.specialize import CONF
from multiprune.specialize.recipe import Recipe


def recipe(fraction: float = 0.5, **changes: Any) -> Recipe:
    """Return how half of the encoder's matrices go, if nothing else is said."""
    said = yaml.safe_load((CONF / "recipe.yaml").read_text())
    return Recipe(**{"budget": FractionBudget(fraction=fraction), **said, **changes})
