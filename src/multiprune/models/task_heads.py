"""A module of heads by task name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator, KeysView, Mapping


class TaskHeads(nn.ModuleDict):
    """Heads by task.

    A task that is named as an attribute of ``ModuleDict`` (``type``, ``items``, ``train``) has its
    head in another place, which no task's name can be: with a slash at its end.
    """

    @override
    def __getitem__(self, key: str) -> nn.Module:
        return super().__getitem__(_place(key))

    @override
    def __setitem__(self, key: str, module: nn.Module) -> None:
        # Not by `add_module`, which refuses what libraries have added to all modules by now.
        self._modules[_place(key)] = module

    @override
    def __delitem__(self, key: str) -> None:
        super().__delitem__(_place(key))

    @override
    def __contains__(self, key: str) -> bool:
        return super().__contains__(_place(key))

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    @override
    def keys(self) -> KeysView[str]:
        return {place.removesuffix("/"): None for place in self._modules}.keys()

    @override
    def items(self) -> ItemsView[str, nn.Module]:
        return dict(zip(self.keys(), self.values(), strict=True)).items()

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of all heads, by ``<task>.<name>``."""
        return {
            f"{task}.{name}": weight
            for task, head in self.items()
            for name, weight in head.state_dict().items()
        }

    def assign_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Let the heads have the tensors of ``weights()``."""
        for task, head in self.items():
            own = {name: weights[f"{task}.{name}"] for name in head.state_dict()}
            head.load_state_dict(own, assign=True)


_TAKEN = frozenset(dir(nn.ModuleDict()))


def _place(task: str) -> str:
    return f"{task}/" if task in _TAKEN else task


def check_names(tasks: Mapping[str, object]) -> None:
    """Refuse names that cannot be part of the name of a weight or of a metric.

    Raises:
        ValueError: if one is empty, or has a dot or a slash in it.
    """
    for name in tasks:
        if not name or "." in name or "/" in name:
            raise ValueError(
                f"The name of a task must have no dot and no slash in it, but one is {name!r}."
            )
