"""No pruning: the dense baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from multiprune.budget import ParameterLedger
from multiprune.pruning.pruner import Pruner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


class NoPruning(Pruner):
    """Keeps every parameter."""

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        self._model, self._encoder = model, encoder
        self._spare = self._excess = 0
        self.budget.resolve(self.ledger())
        # Nothing is pruned, but a resumed loop has to know where it was stopped.
        self.progress.attach(model if encoder is None else encoder, self)

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        pass

    @override
    def after_step(self) -> None:
        pass

    @override
    def skip_step(self) -> None:
        pass

    @override
    def prune(self, amount: float) -> None:
        pass

    @override
    def _make_permanent(self) -> None:
        pass

    @override
    def masks(self) -> Mapping[str, Tensor]:
        return {}

    @override
    def ledger(self) -> ParameterLedger:
        return ParameterLedger.of(self._model, self._encoder)
