"""Reduce the vocabulary of a model to the tokens of a corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from multiprune.export.tokenizer import FastTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def prune_vocabulary(
    encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str | Sequence[str]],
    *,
    keep_characters: bool = True,
) -> PreTrainedTokenizerBase:
    """Drop the word embeddings of tokens that ``texts`` do not use, and return the new tokenizer.

    The encoder is changed in place, with its config; ``tokenizer`` stays as it is. Every text of
    the corpus (or list of words) is split as before and has exactly the same hidden states; others
    have more tokens, or more unknown ones. Tokens keep their order, and all special and added ones
    stay. With ``keep_characters``, so do the single characters of the vocabulary (thousands in a
    multilingual one): new words are then split into characters rather than unknown. Byte-pair
    encodings keep their alphabet in any case.

    Raises:
        ValueError: if there are no texts, the encoder has a head that predicts tokens or fewer
            embeddings than there are tokens, or the tokenizer is of an unknown kind.
        TypeError: if the tokenizer has no fast backend, the encoder no `nn.Embedding` of words, or
            ``texts`` is a single string.
    """
    fast = FastTokenizer(tokenizer)
    embedding = _word_embedding(encoder, largest_id=max(fast.ids))
    kept = fast.used_ids(texts) | fast.special_ids
    kept |= _ids_of_encoder(encoder, embedding) & fast.ids
    kept = fast.model.close(kept, characters=keep_characters)
    numbers = {number: index for index, number in enumerate(sorted(kept))}
    restricted = fast.restrict(numbers)
    _keep_rows(embedding, numbers)
    _renumber_config(encoder.config, numbers)
    return restricted


def used_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str | Sequence[str]]
) -> set[int]:
    """Return the ids of the tokens that it takes to split ``texts`` (or lists of words), uncut.

    Raises what ``prune_vocabulary`` raises for such a tokenizer or such texts.
    """
    return FastTokenizer(tokenizer).used_ids(texts)


def _word_embedding(encoder: PreTrainedModel, *, largest_id: int) -> nn.Embedding:
    embedding = encoder.get_input_embeddings()
    if not isinstance(embedding, nn.Embedding):
        raise TypeError(
            "The encoder's word embeddings must be an `nn.Embedding`, but are a "
            f"{type(embedding).__name__}."
        )
    head: object = encoder.get_output_embeddings()  # type: ignore[no-untyped-call]
    if head is not None:
        raise ValueError(
            f"The {type(encoder).__name__} has a head that predicts tokens: pass the encoder alone."
        )
    if embedding.num_embeddings <= largest_id:
        raise ValueError(
            "The encoder must have an embedding for every token of the tokenizer, but has "
            f"{embedding.num_embeddings}, and the largest token id is {largest_id}."
        )
    return embedding


def _ids_of_encoder(encoder: PreTrainedModel, embedding: nn.Embedding) -> set[int]:
    """Return the ids that the encoder's config or modules hold, and those that must not move."""
    ids = {number for numbers in _ids_of_config(encoder.config).values() for number in numbers}
    if embedding.padding_idx is not None:
        ids.add(embedding.padding_idx)
    for module in encoder.modules():
        # RoBERTa's kin count positions from the id of the padding token: it must not move.
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and not isinstance(module, nn.Embedding):
            ids |= set(range(padding + 1))
    return ids


def _ids_of_config(config: PretrainedConfig) -> dict[str, list[int]]:
    ids: dict[str, list[int]] = {}
    for name, value in config.to_dict().items():
        if name.endswith("_token_id") and value is not None:
            ids[name] = value if isinstance(value, list) else [value]
    return ids


def _keep_rows(embedding: nn.Embedding, numbers: Mapping[int, int]) -> None:
    weight: Tensor = embedding.weight
    rows = torch.tensor(list(numbers), device=weight.device)
    embedding.weight = nn.Parameter(weight.detach()[rows], requires_grad=weight.requires_grad)
    embedding.num_embeddings = len(numbers)
    if embedding.padding_idx is not None:
        embedding.padding_idx = numbers.get(embedding.padding_idx)


def _renumber_config(config: PretrainedConfig, numbers: Mapping[int, int]) -> None:
    """Let the config follow; an id that no token has becomes ``None``."""
    for name, ids in _ids_of_config(config).items():
        found = [numbers[number] for number in ids if number in numbers]
        if isinstance(getattr(config, name), list):
            setattr(config, name, found)
        else:
            setattr(config, name, found[0] if found else None)
    config.vocab_size = len(numbers)
