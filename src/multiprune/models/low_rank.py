"""A linear layer as the product of two low-rank factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from typing_extensions import override

from multiprune.models.cut import cut_parameter, resize_parameter
from multiprune.models.modeling_multiprune import FactoredLinear

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer


class LowRankLinear(nn.Module):
    """Computes ``up @ diag(gate) @ down @ x + bias``.

    ``down.weight`` has the shape (rank, in), ``up.weight`` (out, rank). The vectors ``gate`` and
    ``evaluation_gate`` multiply what is between the two while the layer trains and while it does
    not; without gates they are None. A state dict may hold another rank than the layer: loading it
    resizes the layer.
    """

    gate: Float[Tensor, "rank"] | None
    evaluation_gate: Float[Tensor, "rank"] | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.down = nn.Linear(in_features, rank, bias=False, device=device, dtype=dtype)
        self.up = nn.Linear(rank, out_features, bias=bias, device=device, dtype=dtype)
        self.register_buffer("gate", None)
        self.register_buffer("evaluation_gate", None)

    @classmethod
    @torch.no_grad()
    def from_linear(cls, linear: nn.Linear, rank: int | None = None) -> Self:
        """Factorise a layer, by default at full rank, with factors of equal norm.

        The bias stays the same ``nn.Parameter``.
        """
        weight = linear.weight
        full = min(weight.shape)
        if rank is not None and not 1 <= rank <= full:
            raise ValueError(f"`rank` must be in [1, {full}], but is {rank}.")
        layer = cls(linear.in_features, linear.out_features, rank or full, device="meta")
        up, down = balanced_factors(weight, rank or full)
        layer.up.weight = nn.Parameter(up, weight.requires_grad)
        layer.down.weight = nn.Parameter(down, weight.requires_grad)
        layer.up.bias = linear.bias
        return layer.train(linear.training)

    @property
    def weight(self) -> Float[Tensor, "out rank"]:
        """The matrix that the outputs come from: T5 asks for its type."""
        return self.up.weight

    @property
    def in_features(self) -> int:
        """The size of an input."""
        return self.down.in_features

    @property
    def out_features(self) -> int:
        """The size of an output."""
        return self.up.out_features

    @property
    def rank(self) -> int:
        """The size of what is between the two factors."""
        return self.down.weight.shape[0]

    @property
    def breakeven(self) -> int:
        """The largest rank at which the factors have no more weights than the dense matrix."""
        return self.in_features * self.out_features // (self.in_features + self.out_features)

    @override
    def forward(
        self, states: Float[Tensor, "*tokens {self.in_features}"]
    ) -> Float[Tensor, "*tokens {self.out_features}"]:
        inner: Tensor = self.down(states)
        gate = self.gate if self.training else self.evaluation_gate
        if gate is not None:
            inner = inner * gate.to(inner.dtype)
        outer: Tensor = self.up(inner)
        return outer

    def set_gates(self, training: Float[Tensor, "rank"], evaluation: Float[Tensor, "rank"]) -> None:
        """Take over the values of two vectors of gates."""
        if self.gate is None or self.evaluation_gate is None:
            self.gate, self.evaluation_gate = training.clone(), evaluation.clone()
        else:
            self.gate.copy_(training)
            self.evaluation_gate.copy_(evaluation)

    def remove_gates(self) -> None:
        """Compute without gates, and keep none in the state dict."""
        self.gate = self.evaluation_gate = None

    @torch.no_grad()
    def keep_ranks(self, index: Int64[Tensor, "kept"], optimizer: Optimizer | None = None) -> None:
        """Keep the ranks ``index``, in ``optimizer``'s moments too."""
        cut_parameter(self.down, "weight", 0, index, optimizer)
        cut_parameter(self.up, "weight", 1, index, optimizer)
        self._follow_rank()
        for name, gate in self._gates().items():
            setattr(self, name, gate.index_select(0, index))

    def factored(self) -> FactoredLinear:
        """Return the layer as it is shipped, with the same parameters and without gates."""
        return FactoredLinear(self.down, self.up).train(self.training)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the dense layer that computes the same in evaluation; the bias is shared."""
        up, down = self.up.weight, self.down.weight
        linear = nn.Linear(self.in_features, self.out_features, device="meta")
        product = up.double() if self.evaluation_gate is None else up * self.evaluation_gate
        weight = (product.double() @ down.double()).to(up.dtype)
        linear.weight = nn.Parameter(weight, up.requires_grad)
        linear.bias = self.up.bias
        return linear.train(self.training)

    def _gates(self) -> dict[str, Float[Tensor, "rank"]]:
        gates = {"gate": self.gate, "evaluation_gate": self.evaluation_gate}
        return {name: gate for name, gate in gates.items() if gate is not None}

    def _follow_rank(self) -> None:
        self.down.out_features = self.up.in_features = self.rank

    @override
    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        down, up = (state_dict.get(f"{prefix}{name}.weight") for name in ("down", "up"))
        # Anything else than another rank is for the layers themselves to refuse.
        if down is not None and up is not None and down.shape[:1] == up.shape[1:]:
            self._resize(down.shape[0])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _resize(self, rank: int) -> None:
        if rank == self.rank:
            return
        resize_parameter(self.down, "weight", 0, rank)
        resize_parameter(self.up, "weight", 1, rank)
        self._follow_rank()
        for name, gate in self._gates().items():
            setattr(self, name, gate.new_ones(rank))


def balanced_factors(
    weight: Float[Tensor, "out in"], rank: int
) -> tuple[Float[Tensor, "out {rank}"], Float[Tensor, "{rank} in"]]:
    """Return the factors of equal norm of the nearest matrix of a rank, computed in float64.

    With the singular value decomposition ``W = U S V'`` these are ``U sqrt(S)`` and
    ``sqrt(S) V'``, largest singular value first.
    """
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    left, root, right = left[:, :rank], values[:rank].sqrt(), right[:rank]
    # The decomposition comes in whatever order in memory the library likes.
    up, down = (left * root).contiguous(), (root[:, None] * right).contiguous()
    return up.to(weight.dtype), down.to(weight.dtype)
