"""Heads that several kinds of answers have: one linear layer on an encoder's hidden states.

A head is called with the states, shape (examples, tokens, hidden); the attention mask, shape
(examples, tokens); the encoder's embeddings of words, shape (words, size); and the labels, or None:
it reads what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from typing_extensions import override

if TYPE_CHECKING:
    from torch import Tensor

#: The dropout of what heads read, where nothing is set.
USUAL_DROPOUT = 0.1


class SequenceHead(nn.Module):
    """Answers once a sequence, from the mean of its tokens' hidden states."""

    def __init__(self, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, outputs)

    @override
    def forward(self, states: Tensor, attention_mask: Tensor, *_: Tensor | None) -> Tensor:
        """Map ``(examples, tokens, hidden)`` to ``(examples, outputs)``."""
        logits: Tensor = self.output(self.dropout(mean_of_tokens(states, attention_mask)))
        return logits


class TokenHead(nn.Module):
    """Answers once a token."""

    def __init__(self, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, outputs)

    @override
    def forward(self, states: Tensor, *_: Tensor | None) -> Tensor:
        """Map ``(examples, tokens, hidden)`` to ``(examples, tokens, outputs)``."""
        logits: Tensor = self.output(self.dropout(states))
        return logits


def mean_of_tokens(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Average the states of the tokens that are not padding, to ``(examples, hidden)``."""
    weights = attention_mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / torch.clamp(weights.sum(1), min=1)
