"""An exported dynamic model, which changes its size from one request to the next."""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from typing_extensions import override

from multiprune.export.checkpoint import (
    load_encoder,
    load_heads,
    load_weights,
)
from multiprune.export.exported_folder import exported_folder
from multiprune.export.shipped import ShippedModel, load_tokenizer
from multiprune.models.nested import LayerOrder, RemovalOrder
from multiprune.models.resize import Resizable, sort_units
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import layers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from multiprune.models.structure import Layer
    from multiprune.models.task_heads import TaskHeads


#: Holds the order in which units go, beside a model of many sizes.
SIZES = "sizes.safetensors"


class DynamicModel(ShippedModel):
    """A model of many sizes, each a part of the same weights; it begins with the whole.

    Smaller sizes are views of the largest wherever the architecture allows it, so that changing the
    size copies nothing. As the layers change in place, different sizes must not be asked for from
    several threads at once.

    Args:
        order: in which units go; its sizes are those of the whole model, counted in ``of``.
        of: what a density counts: ``encoder_linear``, ``encoder`` or ``total``.
    """

    def __init__(
        self,
        encoder: PreTrainedModel,
        heads: TaskHeads,
        meaning: Mapping[str, Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        order: RemovalOrder,
        of: str,
    ) -> None:
        super().__init__(encoder, heads, meaning, tokenizer)
        self.order, self.of = order, of
        self._resizable = Resizable(layers_of(encoder))
        self._removals = 0

    @property
    def density(self) -> float:
        """Kept / total at the present size."""
        return self.size / int(self.order.sizes[0])

    @property
    def size(self) -> int:
        """The number of parameters, of those that a density counts, at the present size."""
        return int(self.order.sizes[self._removals])

    @property
    def smallest_density(self) -> float:
        """Kept / total at the smallest size."""
        return int(self.order.sizes[-1]) / int(self.order.sizes[0])

    def set_density(self, density: float) -> float:
        """Take the largest size whose density is not above ``density``; return its density.

        Raises:
            ValueError: if the model was not trained for so small a size, or above 1.
        """
        self._give(self._removals_for(density))
        return self.density

    def cut(self, density: float) -> ShippedModel:
        """Return a copy that has this size for good.

        Raises:
            ValueError: if the model was not trained for so small a size, or above 1.
        """
        units = self.order.units(self._removals_for(density))
        with self._whole():
            encoder = copy.deepcopy(self.encoder)
        for layer, kept in zip(layers_of(encoder), units, strict=True):
            shrink_layer(layer, kept)
        heads = copy.deepcopy(self.heads)
        return ShippedModel(encoder, heads, self.meaning, self.tokenizer).eval()

    @override
    def only(self, task: str) -> ShippedModel:
        return self.cut(self.density).only(task)

    @override
    def save(self, folder: Path) -> None:
        """Write the whole model, of all sizes, whatever size it has now."""
        with self._whole():
            super().save(folder)
        save_order(folder, self.order, self.of)

    def _removals_for(self, density: float) -> int:
        # What is asked for may be the density of a size, rounded to a floating-point number.
        asked = density * (1 + 1e-9)
        if not self.smallest_density <= asked or density > 1:
            # Rounded up: what is named is allowed.
            smallest = math.ceil(self.smallest_density * 1e4) / 1e4
            raise ValueError(
                f"The density must be in [{smallest:.4f}, 1], for which the model was trained, but "
                f"is {density}."
            )
        return self.order.removals_for(int(asked * int(self.order.sizes[0])))

    def _give(self, removals: int) -> None:
        self._resizable.restore()
        with torch.no_grad():
            self._resizable.resize(self.order.units(removals))
        self._removals = removals

    @contextmanager
    def _whole(self) -> Iterator[None]:
        removals = self._removals
        self._give(0)
        try:
            yield
        finally:
            self._give(removals)

    @override
    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> DynamicModel:
        with self._whole():  # which is what is moved or cast
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def save_sizes(
    folder: Path,
    model: ShippedModel,
    order: RemovalOrder,
    of: str,
    *,
    claim: Callable[[Path], None] | None = None,
) -> None:
    """Write a whole model and the order in which its units go, all of it or nothing."""
    with exported_folder(folder, claim=claim) as beside:
        model.save(beside)
        save_order(beside, order, of)


def save_order(folder: Path, order: RemovalOrder, of: str) -> None:
    """Write an order of removal; its sizes are those of the whole model, counted in ``of``."""
    tensors = {
        f"layers.{number}.{name}": positions.contiguous()
        for number, layer in enumerate(order.layers)
        for name, positions in vars(layer).items()
    }
    save_file(tensors | {"sizes": order.sizes}, folder / SIZES, {"of": of})


def load_order(folder: Path, layers: Sequence[Layer]) -> tuple[RemovalOrder, str]:
    """Read the order in which units of layers go, and what its sizes count.

    Raises:
        ValueError: if the file is damaged, or of another model.
    """
    file = folder / SIZES
    tensors = load_weights(file)
    with safe_open(file, "pt") as opened:
        of = (opened.metadata() or {}).get("of", "")
    sizes = tensors.pop("sizes", torch.empty(0))
    shapes = {key: tuple(one.shape) for key, one in tensors.items()}
    kinds = {one.dtype for one in tensors.values()}
    is_whole = sizes.dim() == 1 and len(sizes) and sizes.dtype == torch.int64 and of
    if not is_whole or shapes != _shapes(layers) or kinds != {torch.int32}:
        raise ValueError(
            f"{file} does not hold an order of units for this model's {len(layers)} layers."
        )
    if sizes[-1] <= 0 or (sizes.diff() >= 0).any():
        raise ValueError(f"{file} does not hold descending sizes above 0.")
    names = [one.name for one in fields(LayerOrder)]
    found = [
        LayerOrder(*(tensors[f"layers.{number}.{name}"] for name in names))
        for number in range(len(layers))
    ]
    return RemovalOrder(found, sizes), of


def _shapes(layers: Sequence[Layer]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for number, layer in enumerate(layers):
        dimensions = (layer.heads, layer.head_size)
        by_name = {
            "heads": (layer.heads,),
            "query_key": dimensions,
            "value": dimensions,
            "neurons": (layer.neurons,),
        }
        shapes |= {f"layers.{number}.{name}": shape for name, shape in by_name.items()}
    return shapes


def load_dynamic(folder: Path) -> DynamicModel:
    """Load a model of many sizes; no code from the folder is run.

    Raises:
        ValueError: if a file is damaged, or does not fit the others.
    """
    encoder = load_encoder(folder)
    heads, meaning = load_heads(folder, encoder)
    layers = layers_of(encoder)
    order, of = load_order(folder, layers)
    # Parts are views then.
    order = RemovalOrder(
        [sort_units(layer, one) for layer, one in zip(layers, order.layers, strict=True)],
        order.sizes,
    )
    tokenizer = load_tokenizer(folder)
    return DynamicModel(encoder, heads, meaning, tokenizer, order=order, of=of).eval()
