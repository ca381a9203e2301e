"""A linear layer that can be factorized later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from multiprune.models.cut import replace_parameter, resize_parameter
from multiprune.models.low_rank import LowRankLinear, balanced_factors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer


class LateLowRankLinear(LowRankLinear):
    """Computes ``W x + bias`` with a dense matrix until ``keep_ranks``, and with factors since.

    While it is dense, ``up.weight`` is the matrix, of shape (out, in), and ``down.weight`` is
    empty, of shape (0, in). So the layer has the same two parameters all the time: an optimizer
    made before the factorisation owns both, and its saved state fits one made after it. A state
    dict may hold either form: loading it makes the layer that.
    """

    @override
    @classmethod
    @torch.no_grad()
    def from_linear(cls, linear: nn.Linear, rank: int | None = None) -> Self:
        """Take over a dense layer, factorised only if a ``rank`` is given."""
        if rank is not None:
            return super().from_linear(linear, rank)
        weight, trained = linear.weight, linear.weight.requires_grad
        # Of rank 1 at first: torch warns of layers that begin with nothing.
        layer = cls(linear.in_features, linear.out_features, 1, device="meta")
        layer.up.weight = nn.Parameter(weight.detach().clone(), trained)
        layer.down.weight = nn.Parameter(weight.new_empty(0, linear.in_features), trained)
        layer.up.bias = linear.bias
        layer._follow_rank()
        return layer.train(linear.training)

    @property
    def is_dense(self) -> bool:
        """Whether the layer is one matrix."""
        return self.down.weight.shape[0] == 0

    @property
    @override
    def rank(self) -> int:
        """The size of what is between the two factors; the largest possible while dense."""
        return min(self.up.weight.shape) if self.is_dense else super().rank

    @override
    def forward(
        self, states: Float[Tensor, "*tokens {self.in_features}"]
    ) -> Float[Tensor, "*tokens {self.out_features}"]:
        if not self.is_dense:
            return super().forward(states)
        bias: Tensor | None = self.up.bias
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # DistributedDataParallel waits for a gradient of every parameter, empty ones too.
            zero = self.down.weight.sum()
            bias = zero.expand(self.out_features) if bias is None else bias + zero
        return functional.linear(states, self.up.weight, bias)

    @override
    @torch.no_grad()
    def keep_ranks(self, index: Int64[Tensor, "kept"], optimizer: Optimizer | None = None) -> None:
        """Keep the ranks ``index``, of a dense layer those of its singular value decomposition.

        What ``optimizer`` remembers of a dense matrix is forgotten: squared gradients of a matrix
        do not tell those of its factors.
        """
        if not self.is_dense:
            super().keep_ranks(index, optimizer)
            return
        up, down = balanced_factors(self.up.weight, self.rank)
        replace_parameter(self.up, "weight", up.index_select(1, index), optimizer)
        replace_parameter(self.down, "weight", down.index_select(0, index), optimizer)
        self._follow_rank()

    @override
    @torch.no_grad()
    def merged(self) -> nn.Linear:
        if not self.is_dense:
            return super().merged()
        linear = nn.Linear(self.in_features, self.out_features, device="meta")
        linear.weight, linear.bias = self.up.weight, self.up.bias
        return linear.train(self.training)

    @override
    def _follow_rank(self) -> None:
        self.down.out_features, self.up.in_features = len(self.down.weight), self.up.weight.shape[1]

    @override
    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        down = state_dict.get(f"{prefix}down.weight")
        if down is not None and len(down) == 0:
            self._resize(0)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @override
    def _resize(self, rank: int) -> None:
        if rank == len(self.down.weight):
            return
        resize_parameter(self.down, "weight", 0, rank)
        resize_parameter(self.up, "weight", 1, rank or self.in_features)
        self._follow_rank()
