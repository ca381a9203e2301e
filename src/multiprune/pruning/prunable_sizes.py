"""How many parameters of what a pruner of units may remove are left, as a budget counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.pruning.removal import largest_unit, smallest_size
from multiprune.pruning.unit_costs import LayerCosts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.models.structure import Layer
    from multiprune.pruning.hidden_dimensions import HiddenDimensions
    from multiprune.pruning.removal import Kept, UnitCosts


class PrunableSizes:
    """Sizes of units, and of what hidden dimensions have besides if some may go.

    What else a budget counts stays whatever it says. ``left`` is a number of hidden dimensions,
    None where none may go.

    Args:
        layers: whose units may go.
        of: what the budget counts.
        kinds: of units that may go.
        hidden: dimensions that may go.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        of: str,
        kinds: Sequence[str],
        hidden: HiddenDimensions | None,
    ) -> None:
        self.kinds, self.hidden = kinds, hidden
        self._whole = None if hidden is None else hidden.whole
        self.units = LayerCosts(layers, of, self._whole)
        self._each = 0 if hidden is None else hidden.cost(of)
        #: The size of all at first.
        self.dense = self.units.dense + self.besides(self._whole)

    @property
    def left(self) -> int | None:
        """The number of hidden dimensions that are kept now."""
        return None if self.hidden is None else self.hidden.left

    @property
    def costs(self) -> list[UnitCosts]:
        """What units cost with the hidden dimensions that are kept now, by layer."""
        return self.units.at(self.left)

    def besides(self, left: int | None) -> int:
        """Return what hidden dimensions have besides units."""
        return 0 if left is None else left * self._each

    def hidden_cost(self, kept: Sequence[Kept]) -> int:
        """Return what one hidden dimension has, with the units that are kept."""
        return self.units.size(kept, 1) - self.units.size(kept, 0) + self._each

    def smallest(self, kept: Sequence[Kept], left: int | None) -> int:
        """Return what is left when all units have gone that may."""
        return self.besides(left) + smallest_size(self.units.at(left), kept, self.kinds)

    def least(self, kept: Sequence[Kept]) -> int:
        """Return what is left when everything has gone that may."""
        return self.smallest(kept, None if self._whole is None else 1)

    def spare(self, kept: Sequence[Kept]) -> int:
        """Return the most by which the last ranking may stay below a budget."""
        unit = largest_unit(self.units.whole, kept, self.kinds)
        if self._whole is None:
            return unit - 1
        # Where units cannot be fewer, or none may go, dimensions alone fill a budget.
        alone = self.smallest(kept, self._whole) - self.smallest(kept, self._whole - 1)
        return max(unit, alone) - 1
