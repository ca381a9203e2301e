"""Two layers whose ranks are pruned, what they read, and their loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """Two layers: 6 ranks of 14 parameters for 48, and 5 of 13 for 40."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 5)
        self.double()

    def forward(self, states: Tensor) -> Tensor:
        outer: Tensor = self.second(self.first(states).tanh())
        return outer


def states(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(7, 6, dtype=torch.float64, generator=generator)


def loss_of(model: nn.Module, seed: int = 0) -> Tensor:
    loss: Tensor = (model(states(seed)) - 1).square().mean()
    return loss


def backward(model: nn.Module, seed: int = 0) -> None:
    loss_of(model, seed).backward()  # type: ignore[no-untyped-call]
