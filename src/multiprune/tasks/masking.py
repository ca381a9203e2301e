"""Token masking, as pure functions of tensors and random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from multiprune.tasks.rows import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

#: Shares of the chosen tokens that are read as [MASK], and as a random token.
MASKED, RANDOM = 0.8, 0.1


@dataclass(frozen=True, eq=False)
class MaskVocabulary:
    """What stands in the place of a token: ``mask``, or one of the ``ordinary`` tokens."""

    mask: int
    ordinary: Tensor

    def __len__(self) -> int:
        """Return the number of ordinary tokens."""
        return len(self.ordinary)


def mask_vocabulary(tokenizer: PreTrainedTokenizerBase) -> MaskVocabulary:
    """Return what stands in the place of tokens of a tokenizer.

    Raises:
        ValueError: if it has no token that stands for a hidden one.
    """
    if tokenizer.mask_token_id is None:
        raise ValueError(
            "Masked language modelling needs a tokenizer with a mask token, but a "
            f"{type(tokenizer).__name__} has none."
        )
    special = set(tokenizer.all_special_ids)
    ordinary = sorted(set(tokenizer.get_vocab().values()) - special)
    return MaskVocabulary(int(tokenizer.mask_token_id), torch.tensor(ordinary))


def random_numbers(seeds: Sequence[Sequence[int]], tokens: int) -> Tensor:
    """Return numbers in [0, 1), three a token: shape (examples, tokens, 3).

    Those of an example depend on its seed alone: not on how far it is padded.
    """
    drawn = [np.random.default_rng(seed).random((tokens, 3)) for seed in map(list, seeds)]
    return torch.from_numpy(np.stack(drawn))


def masked(
    tokens: Tensor,
    words: Tensor,
    numbers: Tensor,
    vocabulary: MaskVocabulary,
    *,
    probability: float,
    whole_words: bool,
) -> tuple[Tensor, Tensor]:
    """Return what is read of tokens, and which have to be predicted: ``IGNORED`` elsewhere.

    Devlin et al. (2019), section 3.1: each token is chosen with a ``probability``, and of the
    chosen ones 80 % are read as [MASK], 10 % as a random token and 10 % as they are. As in their
    code, at least one token of an example is chosen, and with ``whole_words`` the tokens of a word
    are chosen together, but read each by itself.

    Args:
        tokens: of shape (examples, tokens).
        words: of the same shape, where in the example the word begins that a token is of;
            ``IGNORED`` for tokens that are never chosen.
        numbers: in [0, 1), of shape (examples, tokens, 3).
        vocabulary: what stands in the place of tokens.
        probability: that a token, or a word, is chosen.
        whole_words: choose words.
    """
    choice, reading, place = numbers.unbind(-1)
    if whole_words:
        choice = choice.gather(1, words.clamp(min=0))
    choice = choice.masked_fill(words == IGNORED, torch.inf)
    least = choice.amin(1, keepdim=True)
    chosen = (choice < probability) | ((choice == least) & (words != IGNORED))
    others = vocabulary.ordinary[(place * len(vocabulary)).long()]
    read = torch.where(chosen & (reading < MASKED), vocabulary.mask, tokens)
    is_random = chosen & (reading >= MASKED) & (reading < MASKED + RANDOM)
    return torch.where(is_random, others, read), tokens.masked_fill(~chosen, IGNORED)
