"""The optimizer of the weights: groups of parameters, warm-up and decay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.arguments import check_number

if TYPE_CHECKING:
    from typing import Any

    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True, kw_only=True)
class AdamWRecipe:
    """AdamW with a linear warm-up and a linear decay to zero.

    Attributes:
        learning_rate: peak, of the encoder.
        head_learning_rate: peak, of the heads.
        weight_decay: of matrices; biases and LayerNorm do not decay.
        warmup: share of all optimizer steps in which the learning rate rises.
        fused: whether to use the fused kernel.
    """

    learning_rate: float
    head_learning_rate: float
    weight_decay: float
    warmup: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    fused: bool = True

    def __post_init__(self) -> None:
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("head_learning_rate", self.head_learning_rate, above=0)
        check_number("weight_decay", self.weight_decay, at_least=0)
        check_number("warmup", self.warmup, at_least=0, below=1)
        check_number("eps", self.eps, above=0)
        if not isinstance(self.betas, Sequence) or len(self.betas) != 2:
            raise ValueError(f"`betas` must be two numbers, but is {self.betas!r}.")
        for beta in self.betas:
            check_number("betas", beta, at_least=0, below=1)

    def build(
        self, encoder: nn.Module, heads: nn.Module, total_steps: int
    ) -> tuple[Optimizer, LRScheduler]:
        """Return the optimizer of all parameters, and its learning-rate schedule."""
        # Imported late: numbers are checked before torch is there.
        from torch.optim import AdamW
        from torch.optim.lr_scheduler import LambdaLR

        groups = [
            *self._groups("encoder", encoder, self.learning_rate),
            *self._groups("heads", heads, self.head_learning_rate),
        ]
        optimizer = AdamW(groups, betas=self.betas, eps=self.eps, fused=self.fused)
        warmup_steps = int(self.warmup * total_steps)
        return optimizer, LambdaLR(optimizer, WarmupAndDecay(warmup_steps, total_steps))

    def _groups(self, name: str, module: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        trained = [one for one in module.parameters() if one.requires_grad]
        decaying = [one for one in trained if one.dim() > 1]
        constant = [one for one in trained if one.dim() <= 1]
        groups = [(name, decaying, self.weight_decay), (f"{name}_no_decay", constant, 0.0)]
        return [
            {"name": label, "params": params, "lr": learning_rate, "weight_decay": decay}
            for label, params, decay in groups
            if params
        ]


@dataclass
class WarmupAndDecay:
    """The learning rate of a step as a fraction of the peak: up to 1, then down to 0.

    Step ``s`` (from 0) of ``w`` warm-up steps has ``(s + 1) / (w + 1)``; after them it is
    ``(total - s) / (total - w)``. No step is wasted at zero.
    """

    warmup_steps: int
    total_steps: int

    def __call__(self, step: int) -> float:
        """Return the fraction for ``step``."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        return max(0, self.total_steps - step) / (self.total_steps - self.warmup_steps)
