"""Encoders with random weights, of any shape and tokenizer."""

from __future__ import annotations

import math
import string
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from multiprune.arguments import check_number
from multiprune.models.dropout import dropout_of_heads
from multiprune.models.encoder import Encoder, freeze_embeddings_of
from multiprune.models.pretrained_tokenizer import pretrained_tokenizer
from multiprune.tasks.synthetic import WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Positions of an encoder whose tokenizer states no length.
POSITIONS = 512

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def from_scratch(
    *,
    layers: int,
    hidden: int,
    heads: int,
    intermediate: int,
    dropout: float | None = None,
    head_dropout: float | None = None,
    freeze_embeddings: bool = False,
    initializer_range: float = 0.02,
    position_amplitude: float | None = None,
    tokenizer: str | None = None,
) -> Encoder:
    """Make a BERT with random weights.

    Its vocabulary holds the words of the embedded tasks, and single characters for all others,
    unless ``tokenizer`` is the folder of another one.

    Args:
        layers: their number.
        hidden: size of the hidden states.
        heads: of each layer.
        intermediate: neurons of each layer.
        dropout: of hidden states and attention; None is none.
        head_dropout: of heads; None is ``dropout`` where that is given, else 0.1.
        freeze_embeddings: train none of what the ledger counts as embeddings.
        initializer_range: standard deviation of the weights.
        position_amplitude: of the sinusoids that the embeddings of positions begin as; None draws
            them as other weights.
        tokenizer: folder.

    Raises:
        FileNotFoundError: if there is no tokenizer in that folder.
        ValueError: if it cannot be read, or has no token for padding, or a number is out of range.
    """
    from transformers import BertConfig, BertModel

    _check_sizes(layers=layers, hidden=hidden, heads=heads, intermediate=intermediate)
    check_number("encoder.initializer_range", initializer_range, at_least=0)
    if position_amplitude is not None:
        check_number("encoder.position_amplitude", position_amplitude, at_least=0)
    of_heads = dropout_of_heads(head_dropout, dropout)
    chosen = character_tokenizer() if tokenizer is None else _tokenizer_in(Path(str(tokenizer)))
    config = BertConfig(
        # Numbers of tokens may have gaps.
        vocab_size=max(chosen.get_vocab().values()) + 1,
        pad_token_id=chosen.pad_token_id,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        hidden_dropout_prob=dropout or 0.0,
        attention_probs_dropout_prob=dropout or 0.0,
        max_position_embeddings=_positions(chosen),
        initializer_range=initializer_range,
    )
    model = BertModel(config, add_pooling_layer=False)
    if position_amplitude is not None:
        positions = model.embeddings.position_embeddings.weight.data
        positions.copy_(position_amplitude * sinusoids(*positions.shape))
    if freeze_embeddings:
        freeze_embeddings_of(model)
    return Encoder(model=model, tokenizer=chosen, head_dropout=of_heads)


def _check_sizes(*, layers: int, hidden: int, heads: int, intermediate: int) -> None:
    # With more, memory would run out before anything is said.
    check_number("encoder.layers", layers, at_least=1, at_most=1000, whole=True)
    check_number("encoder.hidden", hidden, at_least=1, at_most=2**16, whole=True)
    check_number("encoder.heads", heads, at_least=1, at_most=hidden, whole=True)
    check_number("encoder.intermediate", intermediate, at_least=1, at_most=2**20, whole=True)
    if hidden % heads:
        raise ValueError(
            f"`encoder.hidden` must be a multiple of the {heads} `encoder.heads`, but is {hidden}."
        )


def sinusoids(positions: int, size: int) -> Float[Tensor, "{positions} {size}"]:
    """Return a sine and a cosine of each position at ``size / 2`` wavelengths from 2 pi.

    Vaswani et al. (2017), section 3.5; ``size`` is even.
    """
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(0, size, 2) / size)
    angles = torch.arange(positions)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def character_tokenizer() -> PreTrainedTokenizerBase:
    """Return a WordPiece tokenizer of the embedded tasks' words and of single characters."""
    from transformers import BertTokenizer

    characters = [*string.ascii_lowercase, *string.digits]
    pieces = [*_SPECIAL_TOKENS, *string.punctuation, *characters]
    pieces += [f"##{character}" for character in characters]
    pieces += [word for word in WORDS if word not in pieces]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return BertTokenizer(vocab=vocabulary, model_max_length=512)


def _positions(tokenizer: PreTrainedTokenizerBase) -> int:
    # One that states no length has a length of 10^30.
    return POSITIONS if tokenizer.model_max_length > 10**9 else tokenizer.model_max_length


def _tokenizer_in(folder: Path) -> PreTrainedTokenizerBase:
    file = folder.expanduser() / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"`encoder.tokenizer` must be the folder of a tokenizer, but {file} does not exist."
        )
    loaded = pretrained_tokenizer(file.parent)
    # No other token can stand for it: the embedding of padding is not trained.
    if loaded.pad_token_id is None:
        raise ValueError(f"`encoder.tokenizer` must have a token for padding, but {file} has none.")
    return loaded
