"""Remove parameters, and their optimizer state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Int64
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer


def cut_parameter(
    module: nn.Module,
    name: str,
    dim: int,
    index: Int64[Tensor, "kept"],
    optimizer: Optimizer | None = None,
) -> None:
    """Keep the entries ``index`` of a module's parameter along ``dim``.

    A new parameter takes the place of the old one in the module and in the optimizer's groups, and
    every tensor of the optimizer's state that has the old shape (moments, momentum) is cut along,
    and so are buffers ``<name>_...`` of that shape beside the parameter (masks, scores), which may
    have more dimensions before it (one score a task).
    (Autograd remembers the shape of a parameter while any earlier loss is alive, so it cannot be
    cut in place.)
    """
    old: nn.Parameter = getattr(module, name)
    index = index.to(old.device)
    for key, buffer in _buffers_beside(module, name, old):
        setattr(module, key, buffer.index_select(dim - old.dim(), index))

    def cut(value: Tensor) -> Tensor:
        return value.index_select(dim, index.to(value.device))

    replace_parameter(module, name, cut(old.detach()), optimizer, cut)


def replace_parameter(
    module: nn.Module,
    name: str,
    value: Tensor,
    optimizer: Optimizer | None = None,
    moments: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Put a new parameter with another value, and maybe another shape, in the place of one.

    It takes the old one's place in the optimizer's groups. What the optimizer remembers goes with
    it as ``moments`` says, which is given every tensor of the old shape; by default it is
    forgotten.
    """
    old: nn.Parameter = getattr(module, name)
    new = nn.Parameter(value, requires_grad=old.requires_grad)
    setattr(module, name, new)
    if optimizer is None:
        return
    for group in optimizer.param_groups:
        group["params"] = [new if one is old else one for one in group["params"]]
    if (state := optimizer.state.pop(old, None)) is not None and moments is not None:
        optimizer.state[new] = {
            key: moments(value) if isinstance(value, Tensor) and value.shape == old.shape else value
            for key, value in state.items()
        }


@torch.no_grad()
def resize_parameter(module: nn.Module, name: str, dim: int, size: int) -> None:
    """Give a parameter, and the buffers beside it, another size along ``dim``.

    For loading, before any step: values are lost, but the parameter stays the same object, so that
    an optimizer that was made already keeps what it holds.
    """
    parameter: nn.Parameter = getattr(module, name)
    shape = list(parameter.shape)
    shape[dim] = size
    for key, buffer in _buffers_beside(module, name, parameter):
        setattr(module, key, buffer.new_empty([*buffer.shape[: -len(shape)], *shape]))
    parameter.data = parameter.data.new_empty(shape)
    parameter.grad = None


def _buffers_beside(module: nn.Module, name: str, parameter: Tensor) -> list[tuple[str, Tensor]]:
    return [
        (key, buffer)
        for key, buffer in module.named_buffers(recurse=False)
        if key.startswith(f"{name}_") and buffer.shape[-parameter.dim() :] == parameter.shape
    ]


def forget(parameters: list[nn.Parameter], optimizer: Optimizer | None) -> None:
    """Take parameters that are gone out of the optimizer's groups and state."""
    if optimizer is None:
        return
    gone = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        group["params"] = [one for one in group["params"] if id(one) not in gone]
    for parameter in parameters:
        optimizer.state.pop(parameter, None)
