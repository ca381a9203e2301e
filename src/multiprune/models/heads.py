"""Task heads on the hidden states of an encoder, one per kind of output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from multiprune.models.beside import states_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn
    from transformers import PreTrainedModel


def embeddings_of(encoder: PreTrainedModel) -> Float[Tensor, "words size"]:
    """Return an encoder's embeddings of words."""
    embeddings: Tensor = encoder.get_input_embeddings().weight  # type: ignore[assignment]
    return embeddings


def logits_of(
    encoder: PreTrainedModel,
    head: nn.Module,
    inputs: Mapping[str, Tensor],
    labels: Tensor | None = None,
) -> Tensor:
    """Return what a head answers to what an encoder reads.

    Over the vocabulary, that is ``(labelled tokens, words)`` where labels are given: logits of all
    tokens are large, and most have no label.
    """
    return logits_at(states_of(encoder, inputs), encoder, head, inputs, labels)


def logits_at(
    states: Float[Tensor, "examples tokens hidden"],
    encoder: PreTrainedModel,
    head: nn.Module,
    inputs: Mapping[str, Tensor],
    labels: Tensor | None = None,
) -> Tensor:
    """Return what :func:`logits_of` does, of the states of an encoder that has read the inputs."""
    mask = inputs["attention_mask"]
    logits: Tensor = head(states, mask, embeddings_of(encoder), labels)
    return logits
