"""Linear heads that several kinds of outputs share.

A head is called with the states, shape (examples, tokens, hidden); the attention mask, shape
(examples, tokens); the encoder's embeddings of words, shape (words, size); and the labels, or None:
it reads what it needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from typing_extensions import override

#: The dropout of what heads read, where nothing is set.
USUAL_DROPOUT = 0.1


@dataclass(frozen=True)
class AlongHidden:
    """What a head has along the encoder's hidden dimensions, so that these can be cut.

    Attributes:
        readers: linear layers of which they are inputs.
        writers: linear layers of which they are outputs, of a head that scores by the embeddings.
        norms: of what such layers write.
    """

    readers: list[nn.Linear]
    writers: list[nn.Linear] = field(default_factory=list)
    norms: list[nn.LayerNorm] = field(default_factory=list)


class SequenceHead(nn.Module):
    """Answers once a sequence, from the mean of its tokens' hidden states."""

    def __init__(self, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, outputs)

    def along_hidden(self) -> AlongHidden:
        """Return what has the encoder's hidden dimensions."""
        return AlongHidden([self.output])

    @override
    def forward(
        self,
        states: Float[Tensor, "examples tokens hidden"],
        attention_mask: Shaped[Tensor, "examples tokens"],
        *_: Tensor | None,
    ) -> Float[Tensor, "examples outputs"]:
        """Return the logits of sequences."""
        logits: Tensor = self.output(self.dropout(mean_of_tokens(states, attention_mask)))
        return logits


class TokenHead(nn.Module):
    """Answers once a token."""

    def __init__(self, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, outputs)

    def along_hidden(self) -> AlongHidden:
        """Return what has the encoder's hidden dimensions."""
        return AlongHidden([self.output])

    @override
    def forward(
        self, states: Float[Tensor, "examples tokens hidden"], *_: Tensor | None
    ) -> Float[Tensor, "examples tokens outputs"]:
        """Return the logits of tokens."""
        logits: Tensor = self.output(self.dropout(states))
        return logits


def mean_of_tokens(
    states: Float[Tensor, "examples tokens hidden"],
    attention_mask: Shaped[Tensor, "examples tokens"],
) -> Float[Tensor, "examples hidden"]:
    """Average the states of the tokens that are not padding."""
    weights = attention_mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / torch.clamp(weights.sum(1), min=1)
