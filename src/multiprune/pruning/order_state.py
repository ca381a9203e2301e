"""The removal order of units, as buffers of the encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from multiprune.models.nested import LayerOrder, RemovalOrder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.models.structure import Layer
    from multiprune.pruning.removal import Kept


class OrderState(nn.Module):
    """An order of removal, as buffers; at first nothing goes."""

    def __init__(self, layers: Sequence[Layer], kept: Sequence[Kept], size: int) -> None:
        super().__init__()
        device = next(layers[0].encoder.parameters()).device
        never = torch.iinfo(torch.int32).max
        for number, one in enumerate(kept):
            for name, mask in vars(one).items():
                positions = torch.full_like(mask, never, dtype=torch.int32, device=device)
                self.register_buffer(f"{number}_{name}", positions)
        units = sum(len(one.heads) + len(one.neurons) + one.dimensions + 1 for one in kept)
        self.register_buffer("sizes", torch.full((units + 1,), size, device=device))
        self._count = len(kept)

    def write(self, order: RemovalOrder) -> None:
        """Take over an order; what is not reached has the last of its sizes."""
        for number, layer in enumerate(order.layers):
            for name, positions in vars(layer).items():
                self.get_buffer(f"{number}_{name}").copy_(positions)
        sizes = self.get_buffer("sizes").fill_(order.sizes[-1])
        sizes[: len(order.sizes)] = order.sizes.to(sizes.device)

    def read(self) -> RemovalOrder:
        """Return a copy of the order, on the CPU."""
        names = LayerOrder.__dataclass_fields__
        layers = [
            LayerOrder(*(self.get_buffer(f"{number}_{name}").cpu().clone() for name in names))
            for number in range(self._count)
        ]
        sizes = self.get_buffer("sizes").cpu().clone()
        reached = int((sizes > sizes[-1]).count_nonzero()) + 1
        return RemovalOrder(layers, sizes[:reached])
