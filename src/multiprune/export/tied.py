"""Tied weights, which a model uses in several places and a file holds once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


def stored_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of a model, tied parameters under the first of their names only."""
    again = _tied(model)
    return {path: one for path, one in model.state_dict().items() if path not in again}


def whole_state(model: nn.Module, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state with tied parameters under all of the names that ``model`` has for them.

    What is stored under a name of its own stays what it is.
    """
    tied = {path: stored[first] for path, first in _tied(model).items() if first in stored}
    return tied | dict(stored)


def assign_state(model: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Let a model have the tensors of a state, tied where they are stored under one name."""
    tied = {path: first for path, first in _tied(model).items() if path not in stored}
    model.load_state_dict(whole_state(model, stored), assign=True)
    for path, first in tied.items():
        owner, _, name = path.rpartition(".")
        setattr(model.get_submodule(owner), name, model.get_parameter(first))


def _tied(model: nn.Module) -> dict[str, str]:
    """Return the first name of each parameter that has several, by the others."""
    first: dict[int, str] = {}
    found = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        if (name := first.setdefault(id(parameter), path)) != path:
            found[path] = name
    return found
