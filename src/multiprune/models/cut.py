"""Cuts parameters in place, so that optimizers and their moments go on with what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.optim import Optimizer


@torch.no_grad()
def cut_parameter(
    parameter: nn.Parameter, dim: int, index: Tensor, optimizer: Optimizer | None
) -> None:
    """Keep the entries ``index`` of dimension ``dim``; the ``nn.Parameter`` stays the same object.

    Whatever ``optimizer`` keeps for it in the parameter's shape (moments, momentum) is cut alike,
    and its gradient is dropped. Must not be called between forward and backward.
    """
    shape = parameter.shape
    replace_data(parameter, parameter.index_select(dim, index))
    if optimizer is None:
        return
    state = optimizer.state.get(parameter, {})
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == shape:
            state[key] = value.index_select(dim, index)


def replace_data(parameter: nn.Parameter, data: Tensor) -> None:
    """Give a parameter other numbers, of any shape; its gradient is dropped."""
    parameter.grad = None
    # Only a change of type makes autograd forget the node that expects gradients of the old shape,
    # which otherwise lives on as long as the last loss does.
    parameter.data = torch.empty(0, dtype=torch.complex64)
    parameter.data = data
