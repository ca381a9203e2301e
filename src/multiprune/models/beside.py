"""Block-diagonal attention: several texts in one sequence, each attending to itself only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from multiprune.models.encoder import first_position

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Encoders by ``config.model_type`` that read a text beside others as they read it alone.
READ_BESIDE = ("albert", "bert", "distilbert", "electra", "roberta", "xlm-roberta")

_POSITIONS = "position_ids"


def states_of(
    encoder: PreTrainedModel, inputs: Mapping[str, Tensor]
) -> Float[Tensor, "examples tokens hidden"]:
    """Return the hidden states of the last layer.

    Where inputs have ``position_ids``, each 0 begins a text of its own.
    """
    if _POSITIONS in inputs:
        inputs = {**inputs, **_beside(encoder, inputs[_POSITIONS], inputs["attention_mask"])}
    states: Tensor = encoder(**inputs).last_hidden_state
    return states


def check_reads_beside(encoder: PreTrainedModel) -> None:
    """Raise a ValueError unless an encoder reads texts beside each other."""
    if encoder.config.model_type not in READ_BESIDE:
        raise ValueError(
            f"`packing` may put texts beside each other for {', '.join(READ_BESIDE)}, but the "
            f"encoder is a {encoder.config.model_type}: use within_texts or across_texts."
        )


def _beside(
    encoder: PreTrainedModel,
    positions: Int[Tensor, "examples tokens"],
    attention_mask: Shaped[Tensor, "examples tokens"],
) -> dict[str, Tensor]:
    """Return the positions as an encoder counts them, and what is added to attention.

    The mask is of shape (examples, 1, tokens, tokens). A token of padding attends to itself, as a
    softmax over nothing is undefined.
    """
    text = (positions == 0).cumsum(1)
    same = text[:, :, None] == text[:, None]
    itself = torch.eye(text.shape[1], dtype=torch.bool, device=text.device)
    seen = same & (attention_mask.bool()[:, None] | itself)
    dtype = encoder.dtype
    mask = torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    return {_POSITIONS: positions + first_position(encoder.config), "attention_mask": mask[:, None]}
