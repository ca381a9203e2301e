"""Masks of the tokens that count in a pass through an encoder or encoder-decoder."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from multiprune.tasks.rows import IGNORED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


@dataclass
class TokenMasks:
    """Which tokens count.

    Attributes:
        text: those of the text that are not padding.
        decoded: those that a decoder reads; None if there is no decoder.
    """

    text: Bool[Tensor, "examples tokens"]
    decoded: Bool[Tensor, "examples decoded_tokens"] | None

    def of(self, *, decoding: bool) -> Tensor:
        """Return those that a linear layer reads, in the decoder or not."""
        if not decoding:
            return self.text
        assert self.decoded is not None
        return self.decoded

    def narrow(self, gradient: Float[Tensor, "examples tokens vocabulary"]) -> None:
        """Leave out what a decoder reads for answers that are not asked for.

        ``gradient`` is that of the scores: of the tokens of other answers it is zero.
        """
        assert self.decoded is not None
        self.decoded = self.decoded & (gradient != 0).any(-1)


def token_masks(encoder: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> TokenMasks:
    """Return which tokens count in a pass that is called like this.

    Raises:
        ValueError: if the mask of the text is not by token.
    """
    given = inspect.signature(encoder.forward).bind_partial(*args, **kwargs).arguments
    mask = given.get("attention_mask")
    if mask is None:
        mask = torch.ones_like(given["input_ids"])
    if mask.dim() != 2:
        raise ValueError(
            "Attribution needs an `attention_mask` of shape (examples, tokens), but it has shape "
            f"{tuple(mask.shape)}."
        )
    return TokenMasks(mask.bool(), _decoded(given))


def _decoded(given: Mapping[str, Any]) -> Bool[Tensor, "examples tokens"] | None:
    if (mask := given.get("decoder_attention_mask")) is not None and mask.dim() == 2:
        return mask.bool()  # type: ignore[no-any-return]
    if (tokens := given.get("decoder_input_ids")) is not None:
        return torch.ones_like(tokens, dtype=torch.bool)
    if (labels := given.get("labels")) is not None:
        return labels != IGNORED  # type: ignore[no-any-return]
    return None
