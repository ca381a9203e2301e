"""Structured pruning by attribution during training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from multiprune.arguments import check_is
from multiprune.pruning.all_ranks import summed
from multiprune.pruning.attribution import Attribution, Pass
from multiprune.pruning.by_task import checked
from multiprune.pruning.importance import Scores
from multiprune.pruning.recorder import Recorder
from multiprune.pruning.removal import HEADS, NEURONS, relative_scores, scores_per_parameter
from multiprune.pruning.structured import ImportanceState
from multiprune.pruning.units import UnitPruner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from torch.optim import Optimizer

    from multiprune.budget import Budget
    from multiprune.models.structure import Layer
    from multiprune.pruning.by_task import ByTask
    from multiprune.pruning.layer_state import LayerState
    from multiprune.pruning.removal import Kept


class AttributionPruner(UnitPruner):
    """Removes what contributed least to the answers of the training steps before.

    The gradient of a loss is that of a negative log-probability. Hooks read activations and their
    gradients, of every pass in training mode, until layers are cut, and are gone afterwards. With
    several processes the examples of all count. The scale of a gradient scaler stays in the sums.

    Args:
        budget: how much may stay.
        method: how answers are attributed, in one pass.
        granularity: kinds of what may go.
        relative: compare units with those of their kind and layer only; otherwise all are ranked
            together, by what they contribute per parameter.
        by_task: keeps tasks apart, and joins their rankings.
    """

    def __init__(
        self,
        *,
        budget: Budget,
        method: Attribution,
        granularity: Sequence[str] = (HEADS, NEURONS),
        relative: bool = False,
        by_task: ByTask | None = None,
    ) -> None:
        super().__init__(budget=budget, granularity=granularity)
        self.by_task = checked(by_task)
        check_is(Attribution, "Fisher()", method=method)
        if method.passes(1) != [Pass()]:
            raise ValueError(
                f"A training step is one pass of the model as it is, but {type(method).__name__} "
                "scales activations in several: choose another `method`."
            )
        self.method, self.relative = method, relative
        #: What the passes of a step say, until it is known that the optimizer took it.
        self._measured: list[Scores] = []

    @override
    def new_state(self, layer: Layer) -> LayerState:
        return ImportanceState(layer, self.by_task)

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        super().prepare(model, encoder)
        self._recorder = Recorder(
            self._encoder, self.layers, self.method, wanted=self._is_gathering, of_mean_loss=True
        )
        self._recorder.attach()

    @property
    def reads_gradients(self) -> bool:  # type: ignore[override]
        """Whether what survives depends on gradients."""
        return self.method.reads_gradients

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        if self.is_cut:
            self._recorder.detach()
        else:
            self._measured = _of_all_ranks(self._recorder.take())
        super().before_step(learning_rate_scale)

    @override
    def after_step(self) -> None:
        if self._measured:
            for state, measured in zip(self.states, self._measured, strict=True):
                assert isinstance(state, ImportanceState)
                state.add(measured)
            self._measured = []
        super().after_step()

    @override
    def skip_step(self) -> None:
        self._measured = []  # gradients that overflowed say nothing

    @override
    def forget_passes(self) -> None:
        self._recorder.forget()

    @override
    def shrink(self, optimizer: Optimizer | None = None) -> bool:
        was_cut = super().shrink(optimizer)
        if was_cut:
            self._recorder.detach()
        return was_cut

    @override
    def _make_permanent(self) -> None:
        super()._make_permanent()
        self._recorder.detach()

    @override
    def scores(self) -> list[Scores]:
        kept = [state.kept() for state in self.states]
        return self.of_all_tasks(lambda: self._scores_among(kept), kept)

    def _scores_among(self, kept: Sequence[Kept]) -> list[Scores]:
        sums = [state.importance() for state in self.states if isinstance(state, ImportanceState)]
        scores = [Scores(*map(self.method.in_total, vars(one).values())) for one in sums]
        if self.relative:
            return relative_scores(scores, kept)
        return scores_per_parameter(scores, kept, self._sizes.costs)

    def _is_gathering(self) -> bool:
        return self._encoder.training and not self.is_cut


def _of_all_ranks(measured: list[Scores]) -> list[Scores]:
    """Return the sums over all processes."""
    parts = [part for one in measured for part in vars(one).values()]
    by_layer = len(parts) // len(measured) if measured else 1
    sums = summed(parts)
    return [Scores(*sums[at : at + by_layer]) for at in range(0, len(sums), by_layer)]
