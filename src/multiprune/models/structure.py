"""The heads and neurons of each layer of an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from multiprune.models.architectures import (
    ARCHITECTURES,
    COLUMNS,
    NEURONS,
    ROWS,
    VALUE,
    Architecture,
    Slices,
    columns,
)
from multiprune.models.modeling_multiprune import DroppedLayer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Layer:
    """One layer of an encoder; paths are from the encoder.

    Attributes:
        heads: their number.
        head_size: the dimensions of each.
        neurons: of the feed-forward network; 0 if there is none.
    """

    encoder: nn.Module
    path: str
    architecture: Architecture
    heads: int
    head_size: int
    neurons: int

    def linear_layers(self) -> Iterator[tuple[nn.Linear, Slices]]:
        """Yield each linear layer of this layer and the units along it."""
        for path, linear in self.named_linear_layers():
            yield linear, self.architecture.linear[path]

    def named_linear_layers(self) -> Iterator[tuple[str, nn.Linear]]:
        """Yield each linear layer of this layer, and its path in it."""
        module = self.encoder.get_submodule(self.path)
        for path in self.architecture.linear:
            # What is left of a layer that was dropped holds none.
            if isinstance(found := _submodule(module, path), nn.Linear):
                yield path, found

    def output_of(self, units: str) -> nn.Linear:
        """Return the linear layer that reads units of a kind: values, or neurons."""
        return next(one for one, it in self.linear_layers() if it == columns(units))

    def outputs(self) -> Iterator[tuple[str, nn.Linear]]:
        """Yield the kinds of units that are multiplied into the output, and what reads them."""
        for units in (VALUE, NEURONS):
            if self.size_of(units):
                yield units, self.output_of(units)

    def decodes(self, linear: nn.Module) -> bool:
        """Whether a linear layer of this layer reads what a decoder reads, rather than the text."""
        module = self.encoder.get_submodule(self.path)
        return any(_submodule(module, path) is linear for path in self.architecture.decoding)

    @property
    def attention(self) -> nn.Module:
        """The module that knows the number of heads."""
        return self.encoder.get_submodule(f"{self.path}.{self.architecture.attention}")

    def dropped(self, *, attention_only: bool) -> tuple[str, DroppedLayer]:
        """Return the path of the layer, or of its attention, and what is left without it."""
        architecture = self.architecture
        if not attention_only:
            module, norms = self.encoder.get_submodule(self.path), list(architecture.norms)
            return self.path, DroppedLayer(module, norms, returns_tuple=architecture.returns_tuple)
        start = f"{architecture.attention_block}."
        return self.attention_path, DroppedLayer(
            self.encoder.get_submodule(self.attention_path),
            [one[len(start) :] for one in architecture.norms if one.startswith(start)],
            returns_tuple=architecture.attention_returns_tuple,
            is_branch=architecture.attention_is_branch,
        )

    @property
    def attention_path(self) -> str:
        """The path of the module that holds all of the attention."""
        return f"{self.path}.{self.architecture.attention_block}"

    def size_of(self, units: str) -> int:
        """Return the number of units of a kind."""
        return self.neurons if units == NEURONS else self.heads * self.head_size


def along(slices: Slices, by_unit: Mapping[str, Tensor]) -> Tensor:
    """Lay vectors by kind of unit out along a dimension of a linear layer, as it stacks them."""
    return torch.cat([by_unit[units].reshape(-1) for units in slices.units])


def layers_of(encoder: nn.Module) -> list[Layer]:
    """Return the layers of an encoder, each once.

    Raises:
        ValueError: if the architecture has no entry here, the encoder is wrapped in another module,
            or a layer or an attention was dropped already.
    """
    found = []
    for architecture in architectures_of(encoder):
        place = architecture.layers.partition(".*")[0]
        if _submodule(encoder, place) is None:
            raise ValueError(
                f"An encoder must hold its layers at {place}, but {type(encoder).__name__} does "
                "not: name the encoder within it."
            )
        paths = layer_paths(encoder, architecture)
        found += [_layer(encoder, path, architecture) for path in paths]
    return found


def architecture_of(encoder: nn.Module) -> Architecture:
    """Return the only entry of an encoder's architecture."""
    architecture, *others = architectures_of(encoder)
    if others:
        raise ValueError(
            f"The model must be an encoder, whose layers are all of one kind, but "
            f"{type(encoder).__name__} has {1 + len(others)} kinds."
        )
    return architecture


def architectures_of(encoder: nn.Module) -> tuple[Architecture, ...]:
    """Return the entries of an encoder's architecture, one a kind of layers."""
    kind = getattr(getattr(encoder, "config", None), "model_type", type(encoder).__name__)
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"Heads and neurons are known of {', '.join(ARCHITECTURES)}, but the encoder is "
            f"{kind!r}."
        )
    return ARCHITECTURES[kind]


def _layer(encoder: nn.Module, path: str, architecture: Architecture) -> Layer:
    module = encoder.get_submodule(path)
    attention = _submodule(module, architecture.attention)
    if not hasattr(attention, architecture.head_size):
        raise ValueError(
            f"Layers must not have been dropped before, but {path} was, or its attention."
        )
    _refuse_wrapped(module, path, architecture)
    size = int(getattr(attention, architecture.head_size))
    widths = {
        slices.units[0]: module.get_submodule(name).get_parameter("weight").shape[1]
        for name, slices in architecture.linear.items()
        if slices.dim == COLUMNS
    }
    neurons = widths.get(NEURONS, 0)
    layer = Layer(encoder, path, architecture, widths[VALUE] // size, size, neurons)
    for linear, slices in layer.linear_layers():
        if slices.dim == ROWS and len(linear.weight) < sum(map(layer.size_of, slices.units)):
            raise ValueError(
                f"Each head must have keys and values of its own, but in {path} heads share them: "
                "choose a pruner of single weights."
            )
    return layer


def _refuse_wrapped(module: nn.Module, path: str, architecture: Architecture) -> None:
    for name in architecture.linear:
        found = _submodule(module, name)
        if found is not None and not isinstance(found, nn.Linear):
            raise ValueError(
                f"The linear layers of an encoder must be nn.Linear for units to be cut, but "
                f"{path}.{name} is a {type(found).__name__}: unwrap it (of PEFT: "
                "merge_and_unload), or choose a pruner of single weights."
            )


def layer_paths(encoder: nn.Module, architecture: Architecture) -> list[str]:
    """Return the paths of an encoder's layers of one kind."""
    first, *others = architecture.layers.split(".*")
    paths = [first]
    for rest in others:
        paths = [f"{path}.{i}{rest}" for path in paths for i in range(_count(encoder, path))]
    return paths


def _count(encoder: nn.Module, path: str) -> int:
    module = encoder.get_submodule(path)
    assert isinstance(module, nn.ModuleList)
    return len(module)


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    for name in path.split("."):
        if (child := getattr(module, name, None)) is None:
            return None
        module = child
    return module
