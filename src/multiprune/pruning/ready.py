"""Check that a model can be pruned while it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    #: The path of a weight, the module that owns it, and its name there.
    Weight = tuple[str, nn.Module, str]


class NotReadyError(ValueError):
    """A model that a pruner cannot prune while it trains, or only in part."""


def refuse_compiled(encoder: nn.Module) -> None:
    """Raise a NotReadyError if an encoder is within another module that runs it compiled."""
    if hasattr(encoder, "_orig_mod"):
        raise NotReadyError(
            "An encoder must be compiled in place, by encoder.compile(), for its layers to be "
            "found and replaced, but torch.compile(encoder) has wrapped it."
        )


def refuse_without_gradients(method: str, weights: Iterable[Weight]) -> None:
    """Raise a NotReadyError if what ``method`` learns from gradients would be nothing or noise."""
    for path, module, name in weights:
        weight: nn.Parameter = getattr(module, name)
        if not weight.requires_grad:
            raise NotReadyError(
                f"{method} ranks by gradients, but {path} is frozen and has none: train it, or "
                "choose a pruner that goes by magnitude."
            )
        if torch.finfo(weight.dtype).bits < 32:
            kind = str(weight.dtype).removeprefix("torch.")
            raise NotReadyError(
                f"{method} learns in steps too small for {kind}, which {path} is in: keep the "
                "model in float32 and train with autocast, as precision='bf16-mixed' does."
            )


def refuse_rough_sums(method: str, sums: Iterable[Tensor]) -> None:
    """Raise a NotReadyError if buffers that sum up inputs have too few bits to add to."""
    for one in sums:
        if torch.finfo(one.dtype).bits < 32:
            raise NotReadyError(
                f"{method} sums up what layers read, in buffers that the model was cast to "
                f"{str(one.dtype).removeprefix('torch.')} with: cast it before "
                "pruner.prepare(model), or train with autocast, as precision='bf16-mixed' does."
            )
