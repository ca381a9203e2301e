"""Encoders with random weights, of any shape and with any tokenizer."""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.models.encoder import Encoder, freeze_embeddings_of
from multiprune.tasks.synthetic import WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def from_scratch(
    *,
    layers: int,
    hidden: int,
    heads: int,
    intermediate: int,
    dropout: float = 0.0,
    freeze_embeddings: bool = False,
    tokenizer: str | None = None,
) -> Encoder:
    """Make a BERT with random weights.

    Its vocabulary holds the words of the embedded tasks, and single characters for all others,
    unless ``tokenizer`` is the folder of another one.

    Raises:
        FileNotFoundError: if there is no tokenizer in that folder.
    """
    from transformers import BertConfig, BertModel

    chosen = character_tokenizer() if tokenizer is None else _tokenizer_in(Path(tokenizer))
    config = BertConfig(
        vocab_size=len(chosen),
        pad_token_id=chosen.pad_token_id,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=chosen.model_max_length,
    )
    model = BertModel(config, add_pooling_layer=False)
    if freeze_embeddings:
        freeze_embeddings_of(model)
    return Encoder(model=model, tokenizer=chosen)


def character_tokenizer() -> PreTrainedTokenizerBase:
    """Return a WordPiece tokenizer of the embedded tasks' words and of single characters."""
    from transformers import BertTokenizer

    characters = [*string.ascii_lowercase, *string.digits]
    pieces = [*_SPECIAL_TOKENS, *string.punctuation, *characters]
    pieces += [f"##{character}" for character in characters]
    pieces += [word for word in WORDS if word not in pieces]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return BertTokenizer(vocab=vocabulary, model_max_length=512)


def _tokenizer_in(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    file = folder.expanduser() / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"`encoder.tokenizer` must be the folder of a tokenizer, but {file} does not exist."
        )
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(file.parent)
    return loaded
