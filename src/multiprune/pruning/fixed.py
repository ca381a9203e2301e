"""A fixed mask, taken from another run.

As the sparse transfer of Prune OFA (Zafrir et al. 2021) and oBERT (Kurtic et al. 2022), where an
encoder is pruned once and finetuned on many tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from multiprune.pruning.element_wise import ElementWisePruner
from multiprune.pruning.ready import refuse_compiled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from multiprune.budget import Budget


class Fixed(ElementWisePruner):
    """Keeps the weights that ``mask`` keeps, from before the first step, whatever the schedule.

    ``mask`` holds boolean masks by path from the encoder; those of parameters that are not in
    ``parts`` are left alone. Unlike other pruners this one changes in ``prepare`` what the model
    computes, unless the weights have the same zeros already.
    """

    reads_gradients = False

    def __init__(
        self,
        *,
        budget: Budget,
        mask: Mapping[str, Tensor],
        parts: Sequence[str] = ("encoder_linear",),
    ) -> None:
        super().__init__(budget=budget, parts=parts)
        self._source = mask

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        inside = model if encoder is None else encoder
        refuse_compiled(inside)
        super().prepare(model, encoder)
        paths = {parameter.data_ptr(): path for path, parameter in inside.named_parameters()}
        for target in self.targets:
            target.mask.copy_(self._mask_for(paths[target.weight.data_ptr()], target.weight))
        self._check_budget()
        self.apply_masks()

    @override
    def scores(self) -> list[Float[Tensor, "..."]]:
        return [target.mask.float() for target in self.targets]

    @override
    def prune(self, amount: float) -> None:
        self.apply_masks()

    @property
    @override
    def excess(self) -> int:
        """The model has met its budget before the first step."""
        return 0

    def _mask_for(self, path: str, weight: Tensor) -> Tensor:
        mask = self._source.get(path)
        if mask is None or mask.shape != weight.shape:
            raise ValueError(
                f"A fixed mask must be of an encoder of the same shapes, but for {path} it is "
                f"{'missing' if mask is None else tuple(mask.shape)} and should be "
                f"{tuple(weight.shape)}."
            )
        return mask

    def _check_budget(self) -> None:
        ledger = self.ledger()
        asked, kept = self.budget.resolve(ledger), ledger.kept_in(self.budget.of)
        if ledger.density == 1:
            raise ValueError(
                f"The fixed mask prunes no weights of {', '.join(self.parts)}, as where the "
                "other run removed whole units."
            )
        if kept > asked:
            raise ValueError(
                f"The budget must hold what the fixed mask keeps, {kept:,} of "
                f"{ledger.dense_in(self.budget.of):,} parameters ({self.budget.of}), but is "
                f"{asked:,}."
            )
