"""One head per output structure, on the hidden states of an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from typing_extensions import override

if TYPE_CHECKING:
    from multiprune.tasks.task import Task


class SequenceHead(nn.Module):
    """Answers once a sequence, from the mean of its tokens' hidden states."""

    def __init__(self, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, outputs)

    @override
    def forward(self, states: Tensor, attention_mask: Tensor) -> Tensor:
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
    def forward(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Map ``(examples, tokens, hidden)`` to ``(examples, tokens, outputs)``."""
        logits: Tensor = self.output(self.dropout(states))
        return logits


def head_for(task: Task, hidden: int, dropout: float = 0.1) -> nn.Module:
    """Return the head that a task's output structure asks for."""
    return head(hidden, task.num_outputs, per_token=task.per_token, dropout=dropout)


def head(hidden: int, outputs: int, *, per_token: bool, dropout: float = 0.1) -> nn.Module:
    """Return a head that answers once a token, or once a sequence."""
    kind = TokenHead if per_token else SequenceHead
    return kind(hidden, outputs, dropout)


def mean_of_tokens(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Average the states of the tokens that are not padding, to ``(examples, hidden)``."""
    weights = attention_mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / torch.clamp(weights.sum(1), min=1)
