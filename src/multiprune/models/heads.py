"""One head per output structure, on the hidden states of an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from multiprune.models.beside import states_of
from multiprune.models.dropout import USUAL
from multiprune.tasks.task import IGNORED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel

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


class VocabularyHead(nn.Module):
    """Scores the tokens of the vocabulary by the encoder's own embeddings of words.

    The head of BERT (Devlin et al. 2019, section 3.1, and their code): a linear layer, gelu,
    LayerNorm, and the embeddings with a bias of their own. The embeddings are handed in: they
    belong to the encoder, which counts, prunes and stores them once.

    Args:
        hidden: size of the encoder's states.
        embedding: size of its embeddings, which may be another.
        words: their number.
    """

    def __init__(self, hidden: int, embedding: int, words: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, embedding)
        self.norm = nn.LayerNorm(embedding, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(words))

    @override
    def forward(self, states: Tensor, embeddings: Tensor) -> Tensor:
        """Map ``(…, hidden)`` to ``(…, words)``."""
        transformed = self.norm(functional.gelu(self.dense(states)))
        return functional.linear(transformed, embeddings, self.bias)


def vocabulary_head(encoder: PreTrainedModel) -> VocabularyHead:
    """Return a head on the embeddings of an encoder."""
    words, embedding = embeddings_of(encoder).shape
    return VocabularyHead(encoder.config.hidden_size, embedding, words)


def embeddings_of(encoder: PreTrainedModel) -> Tensor:
    """Return an encoder's embeddings of words, shape (words, size)."""
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
    states: Tensor,
    encoder: PreTrainedModel,
    head: nn.Module,
    inputs: Mapping[str, Tensor],
    labels: Tensor | None = None,
) -> Tensor:
    """Return what :func:`logits_of` does, of the states of an encoder that has read the inputs."""
    if isinstance(head, VocabularyHead):
        chosen = states if labels is None else states[labels != IGNORED]
        over_words: Tensor = head(chosen, embeddings_of(encoder))
        return over_words
    logits: Tensor = head(states, inputs["attention_mask"])
    return logits


def head_for(task: Task, hidden: int, dropout: float = USUAL) -> nn.Module:
    """Return the head that a task's output structure asks for."""
    return head(hidden, task.num_outputs, per_token=task.per_token, dropout=dropout)


def head(hidden: int, outputs: int, *, per_token: bool, dropout: float = USUAL) -> nn.Module:
    """Return a head that answers once a token, or once a sequence."""
    kind = TokenHead if per_token else SequenceHead
    return kind(hidden, outputs, dropout)


def mean_of_tokens(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Average the states of the tokens that are not padding, to ``(examples, hidden)``."""
    weights = attention_mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / torch.clamp(weights.sum(1), min=1)
