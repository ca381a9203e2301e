"""Hidden dimensions that a pruner of units may remove, and what they cost outside the units."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from multiprune.budget.ledger import owned_parameters, parts_of, shared_parameters
from multiprune.pruning.ready import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from multiprune.models.hidden import HiddenStates
    from multiprune.models.structure import Layer
    from multiprune.pruning.hidden_state import HiddenState


class HiddenDimensions:
    """The hidden dimensions of a model, and the parameters that each has outside units.

    Those are of embeddings, norms, a pooler and heads. What it has of the layers' units is counted
    with these.

    Attributes:
        state: what the encoder carries of them.
        whole: their number at first.
        each: by part of the ledger, the parameters that each has outside units.
    """

    def __init__(
        self, model: nn.Module, encoder: nn.Module, layers: Sequence[Layer], state: HiddenState
    ) -> None:
        self.state, self.whole = state, state.parts.size
        if self.whole < 2:
            raise ValueError("Of hidden dimensions one must stay, and the encoder has no other.")
        _refuse_tied(model, state.parts)
        of_units = {id(linear) for layer in layers for linear, _ in layer.linear_layers()}
        part_of = {id(one.parameter): one.part for one in owned_parameters(model, encoder)}
        self.each: Counter[str] = Counter()
        for module, name, _ in state.parts.parameters():
            parameter = module.get_parameter(name)
            if id(module) not in of_units:
                self.each[part_of[id(parameter)]] += parameter.numel() // self.whole

    @property
    def left(self) -> int:
        """The number of those that are kept."""
        return int(self.state.mask.count_nonzero())

    def cost(self, of: str) -> int:
        """Return the parameters that one has outside units, as a budget counts them."""
        return sum(self.each[part] for part in parts_of(of))


def _refuse_tied(model: nn.Module, parts: HiddenStates) -> None:
    tied = shared_parameters(model)
    for module, name, _ in parts.parameters():
        if id(getattr(module, name)) in tied:
            raise NotReadyError(
                "Hidden dimensions can be cut out of layers that have weights of their own, but "
                f"the {name} of a layer, {type(module).__name__}, is tied to another: untie it, or "
                "leave `hidden` out of `granularity`."
            )
