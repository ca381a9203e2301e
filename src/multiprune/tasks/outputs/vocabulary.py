"""Output of vocabulary tokens for masked positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import nn
from torch.nn import functional
from typing_extensions import override

from multiprune.metrics.predicted import HiddenTokens, Predicted
from multiprune.tasks.outputs.heads import AlongHidden
from multiprune.tasks.outputs.output import Output, Request
from multiprune.tasks.rows import IGNORED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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

    def along_hidden(self) -> AlongHidden:
        """Return what has the encoder's hidden dimensions, which are those of its embeddings."""
        return AlongHidden([self.dense], writers=[self.dense], norms=[self.norm])

    @override
    def forward(
        self, states: Tensor, _: Tensor | None, embeddings: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """Map ``(examples, tokens, hidden)`` to ``(examples, tokens, words)``.

        With labels, to ``(labelled tokens, words)``: logits of all tokens are large, and most have
        no label.
        """
        chosen = states if labels is None else states[labels != IGNORED]
        transformed = self.norm(functional.gelu(self.dense(chosen)))
        return functional.linear(transformed, embeddings, self.bias)


@dataclass(frozen=True)
class VocabularyToken(Output):
    """The token that was hidden.

    The answer to a hidden token is a pair of numbers, the likeliest token and the negative
    log-probability of the right one, and its label the right token and 0. Logits are of shape
    (hidden tokens of the batch, words), in the order of the batch.
    """

    kind: ClassVar[str] = "masked"
    per_token: ClassVar[bool] = True
    over_vocabulary: ClassVar[bool] = True
    card_head: ClassVar[str] = """\
Of {tasks}, the head is on the encoder's own embeddings of words:

```python
@torch.no_grad()
def masked_logits(task, texts):  # of all tokens of the vocabulary, at each token
    options = {{"truncation": True, "max_length": {max_length}, "padding": True}}
    inputs = tokenizer(texts, return_tensors="pt", **options)
    of = {{key.removeprefix(task + "."): value for key, value in heads.items()}}
    states = encoder(**inputs).last_hidden_state
    states = torch.nn.functional.linear(states, of["dense.weight"], of["dense.bias"])
    states = torch.nn.functional.gelu(states)
    size = (states.shape[-1],)
    states = torch.nn.functional.layer_norm(states, size, of["norm.weight"], of["norm.bias"], 1e-12)
    return torch.nn.functional.linear(states, encoder.get_input_embeddings().weight, of["bias"])
```
"""

    @property
    @override
    def predicted(self) -> Predicted:
        return HiddenTokens()

    @property
    @override
    def described(self) -> Mapping[str, Any]:
        return {}

    @classmethod
    @override
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        return cls()

    @property
    @override
    def label_space(self) -> Mapping[str, Any]:
        return {"kind": self.kind}

    @property
    @override
    def meaning(self) -> str:
        return "scores of all tokens of the vocabulary, by the embeddings, at each token"

    @override
    def head(self, encoder: PreTrainedModel, dropout: float = 0.0) -> nn.Module:
        """Return a head on the embeddings of an encoder; it has no dropout, as in BERT."""
        embeddings: Tensor = encoder.get_input_embeddings().weight  # type: ignore[assignment]
        words, size = embeddings.shape
        return VocabularyHead(encoder.config.hidden_size, size, words)

    @override
    def predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        hidden = labels[labels != IGNORED]
        scores = at_labels(logits, labels).float()
        losses = functional.cross_entropy(scores, hidden, reduction="none")
        # The numbers of tokens are exact up to 2^24.
        right = torch.stack([hidden.float(), torch.zeros_like(losses)], 1)
        return torch.stack([scores.argmax(-1).float(), losses], 1), right

    @override
    def as_labels(self, predictions: Tensor, labels: Tensor) -> Tensor:
        return labels.masked_scatter(labels != IGNORED, predictions[:, 0].to(labels.dtype))

    @override
    def answers_by_example(self, labels: Tensor) -> Tensor:
        return (labels != IGNORED).sum(-1)

    @override
    def logits_by_example(self, logits: Tensor, labels: Tensor) -> Sequence[Tensor]:
        return torch.split(logits, self.answers_by_example(labels).tolist())

    @override
    def shown(self, answers: Tensor) -> str:
        return " ".join(str(int(token)) for token in answers[:, 0])

    @override
    def request(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[Any],
        pairs: Sequence[str] | None,
        max_length: int,
    ) -> Request:
        raise ValueError("This task predicts tokens of the vocabulary: use `logits`.")


def at_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logits of hidden tokens, of which a shipped model gives those of all tokens."""
    return logits[labels != IGNORED] if logits.dim() == 3 else logits
