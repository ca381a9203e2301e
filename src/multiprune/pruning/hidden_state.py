"""What an encoder carries of its hidden dimensions while they are pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from typing_extensions import override

from multiprune.models.hidden import (
    HiddenStates,
    cut_hidden,
    norm_over,
    resize_hidden,
    zero_hidden,
)
from multiprune.pruning.layer_gates import GateVector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

#: Where it is, in what the encoder carries of its layers.
HIDDEN_STATE = "hidden"


class HiddenState(nn.Module):
    """The mask of hidden dimensions, one for the whole encoder, as a buffer.

    While something is masked, and until it is cut, norms leave out what is not kept.
    """

    def __init__(self, parts: HiddenStates) -> None:
        super().__init__()
        self.parts = parts
        like = parts.norms[0].weight
        self.register_buffer("hidden_mask", torch.ones_like(like, dtype=torch.bool))
        self._hooks: list[RemovableHandle] = []
        self._is_masked = False
        # The mask, how often it had been written, and the indices of what it kept then.
        self._indices: tuple[Tensor, int, Tensor] | None = None

    @property
    def mask(self) -> Bool[Tensor, "hidden"]:
        """What is kept; of the size that the encoder had at first, also once it is cut."""
        return self.get_buffer("hidden_mask")

    @property
    def is_cut(self) -> bool:
        """Whether what is not kept was cut."""
        return self.parts.size != len(self.mask)

    def attach(self) -> None:
        """Let norms leave out what is masked, from when something is."""
        # From the start: what is compiled notices what hooks look at, but no hooks that come later.
        # Methods, as they are copied with the model that they belong to.
        self._hooks += [one.register_forward_hook(self._norm_kept) for one in self.parts.norms]

    def keep(self, kept: Bool[Tensor, "hidden"]) -> None:
        """Take over a mask, which is on the CPU."""
        self.mask.copy_(kept)
        self._is_masked = not bool(kept.all())

    def zero(self) -> None:
        """Set to 0 what is not kept."""
        if self._is_masked and not self.is_cut:
            zero_hidden(self.parts, self.mask)

    def cut(self, encoder: nn.Module, optimizer: Optimizer | None = None) -> None:
        """Cut the encoder to what is kept."""
        self.detach()
        if not self.mask.all():
            cut_hidden(cast("PreTrainedModel", encoder), self.parts, self.mask, optimizer)

    def kept_of(self, states: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch kept"]:
        """Return what states have at the dimensions that are kept.

        They are the encoder's, masked or cut, or those of another that is as wide as it was.
        """
        if len(self.mask) != states.shape[-1] or not self._is_masked:
            return states
        found = self._indices
        if found is None or found[0] is not self.mask or found[1] != self.mask._version:
            # Now and then: the device is waited for.
            found = (self.mask, self.mask._version, self.mask.nonzero()[:, 0])
            self._indices = found
        return states.index_select(-1, found[2])

    def detach(self) -> None:
        """Leave plain norms."""
        while self._hooks:
            self._hooks.pop().remove()

    def expect(self, encoder: nn.Module, state_dict: Mapping[str, Tensor], prefix: str) -> None:
        """Be what a state was saved of, that is to be loaded: whole, masked or cut."""
        paths = {id(module): path for path, module in encoder.named_modules()}
        mask = state_dict.get(f"{prefix}{paths[id(self)]}.hidden_mask")
        norm = state_dict.get(f"{prefix}{paths[id(self.parts.norms[0])]}.weight")
        if mask is None or norm is None or mask.shape != self.mask.shape:
            return  # torch says what does not match
        is_cut = len(norm) == int(mask.count_nonzero()) < len(mask)
        if is_cut:
            resize_hidden(cast("PreTrainedModel", encoder), self.parts, len(norm))
            self.detach()
        self._is_masked = not bool(mask.all())

    def _norm_kept(self, norm: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        if not self._is_masked:
            return None
        return norm_over(inputs[0], norm, self.mask).to(output.dtype)


class GatedHiddenState(HiddenState):
    """Also holds a gate for each dimension, by which the output of every norm is multiplied.

    Norms leave out dimensions whose gates are 0 (CoFi, as Xia et al. 2022 have it).
    """

    def __init__(self, parts: HiddenStates) -> None:
        super().__init__(parts)
        for kind in ("gate", "evaluation_gate"):
            self.register_buffer(f"hidden_{kind}", torch.ones_like(parts.norms[0].weight.detach()))

    @override
    def attach(self) -> None:
        super().attach()
        self._hooks += [one.register_forward_hook(self._gate) for one in self.parts.norms]

    def vector(self) -> GateVector:
        """Return the gates, and the norms that they are behind."""
        return GateVector(self, "hidden_", (), starts_open=True, norms=self.parts.norms)

    @torch.no_grad()
    def fold(self) -> None:
        """Multiply the gates to evaluate with into the norms, and leave gates of 1."""
        gate = self.get_buffer("hidden_evaluation_gate")
        for norm in self.parts.norms:
            norm.weight.mul_(gate)
            norm.bias.mul_(gate)
        gate.fill_(1)
        self.get_buffer("hidden_gate").fill_(1)

    def _gate(self, norm: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        gate = self.get_buffer("hidden_gate" if norm.training else "hidden_evaluation_gate")
        is_open = gate != 0
        # Without waiting for the device to say whether any is closed; bits are torch's if none is.
        over_open = norm_over(inputs[0], norm, is_open).to(output.dtype)
        return torch.where(is_open.all(), output, over_open) * gate.to(output.dtype)
