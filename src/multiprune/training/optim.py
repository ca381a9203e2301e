"""The optimizer: parameter groups, warm-up and decay."""

from __future__ import annotations

from bisect import bisect_right
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
    """AdamW with a linear warm-up and a linear decay to zero, or several of both.

    Attributes:
        learning_rate: peak, of the encoder.
        head_learning_rate: peak, of the heads.
        weight_decay: of matrices; biases and LayerNorm do not decay.
        warmup: share of all optimizer steps in which the learning rate rises.
        rewinds: at which shares of all optimizer steps the learning rate begins anew, as it did at
            the start, having decayed to zero before (Kurtic & Alistarh 2022, "GMP*: Well-Tuned
            Gradual Magnitude Pruning Can Outperform Most BERT-Pruning Methods").
        fused: whether to use the fused kernel.
    """

    learning_rate: float
    head_learning_rate: float
    weight_decay: float
    warmup: float
    rewinds: Sequence[float] = ()
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    fused: bool = True

    def __post_init__(self) -> None:
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("head_learning_rate", self.head_learning_rate, above=0)
        check_number("weight_decay", self.weight_decay, at_least=0)
        check_number("warmup", self.warmup, at_least=0, below=1)
        check_number("eps", self.eps, above=0)
        self._check_rewinds()
        if not isinstance(self.betas, Sequence) or len(self.betas) != 2:
            raise ValueError(f"`betas` must be two numbers, but is {self.betas!r}.")
        for beta in self.betas:
            check_number("betas", beta, at_least=0, below=1)

    def _check_rewinds(self) -> None:
        if not isinstance(self.rewinds, Sequence) or isinstance(self.rewinds, str):
            raise ValueError(f"`rewinds` must be a list of numbers, but is {self.rewinds!r}.")
        for rewind in self.rewinds:
            check_number("rewinds", rewind, at_least=0, below=1)
        if [*self.rewinds] != sorted(set(self.rewinds)):
            raise ValueError(f"`rewinds` must rise, but is {[*self.rewinds]}.")

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
        starts = [int(share * total_steps) for share in self.rewinds]
        ends = [*dict.fromkeys(one for one in starts if one > 0), total_steps]
        return optimizer, LambdaLR(optimizer, WarmupAndDecay(self.warmup, ends))

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
    """The learning rate of a step as a fraction of the peak: up to 1, then down to 0, and again.

    ``ends`` are the steps before which the rate has come down, the last one that of training. In a
    part of ``n`` steps, ``w = int(warmup n)`` of them warm-up, step ``s`` (from 0) has
    ``(s + 1) / (w + 1)``; after them it is ``(n - s) / (n - w)``. No step is wasted at zero.
    """

    warmup: float
    ends: list[int]

    def __call__(self, step: int) -> float:
        """Return the fraction for ``step``."""
        part = min(bisect_right(self.ends, step), len(self.ends) - 1)
        start = self.ends[part - 1] if part else 0
        steps = self.ends[part] - start
        warmup_steps = int(self.warmup * steps)
        if step - start < warmup_steps:
            return (step - start + 1) / (warmup_steps + 1)
        return max(0, self.ends[part] - step) / (steps - warmup_steps)
