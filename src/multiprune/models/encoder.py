"""With which encoder, or encoder-decoder: from the hub, from a folder, or from a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from multiprune.budget.ledger import owned_parameters
from multiprune.models.location import encoder_source
from multiprune.models.modeling_multiprune import KEY, dense_class, pruned_class

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

#: Encoder-decoders that are known: their positions are relative.
TEXT_TO_TEXT = ("t5", "mt5")


# They count positions from behind the number of the padding token.
_BEHIND_PADDING = ("roberta", "xlm-roberta", "mpnet")


@dataclass(frozen=True)
class Encoder:
    """A text encoder without a head, or an encoder-decoder, and the tokenizer that goes with it.

    ``source`` is where it was loaded from, a name on the hub or a folder.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str | None = None

    @property
    def is_text_to_text(self) -> bool:
        """Whether the model answers in words, because it has a decoder."""
        return bool(self.model.config.is_encoder_decoder)

    @property
    def max_length(self) -> int:
        """The number of tokens that the encoder has positions for."""
        config = self.model.config
        positions = getattr(config, "max_position_embeddings", None)
        if positions:
            positions -= first_position(config)
        known = [length for length in (positions, self.tokenizer.model_max_length) if length]
        return int(min(known))


def pretrained(
    path: str, *, dropout: float | None = None, freeze_embeddings: bool = False
) -> Encoder:
    """Load an encoder, or an encoder-decoder, by its name on the hub, or from a folder or a run.

    ``dropout`` replaces the probabilities of dropout that the encoder was pretrained with. With
    ``freeze_embeddings`` its embeddings stay as they were, so that models of several tasks can
    share them.

    Raises:
        FileNotFoundError: if ``path`` looks like a folder and there is none, or no model in it.
        ValueError: if the hub has no such model, or cannot be reached, or if the model is neither
            an encoder nor an encoder-decoder that is known here, or its tokenizer is of another.
    """
    from transformers import AutoConfig, AutoTokenizer

    source = encoder_source(path)
    try:
        config = AutoConfig.from_pretrained(source)
        _check_kind(config, path)
        if dropout is not None:
            _set_dropout(config, dropout)
        # Files may hold half precision, in which small updates of weights are lost.
        options: dict[str, Any] = {"config": config, "dtype": torch.float32}
        if has_pooler(config):
            options["add_pooling_layer"] = False
        # `from_pretrained` returns a model in evaluation mode, and Lightning keeps it so.
        model = encoder_class(config).from_pretrained(source, **options).train()
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"`encoder.path` must be a folder or a model of the Hugging Face hub that can be "
            f"read, but {path!r} is not: {str(error).splitlines()[0]}"
        ) from error
    _check_vocabulary(model, tokenizer, path)
    if freeze_embeddings:
        freeze_embeddings_of(model)
    return Encoder(model=model, tokenizer=tokenizer, source=source)


def first_position(config: PretrainedConfig) -> int:
    """Return the number that an encoder gives the position of the first token."""
    return int(config.pad_token_id) + 1 if config.model_type in _BEHIND_PADDING else 0


def encoder_class(config: PretrainedConfig) -> Any:
    """Return the class that builds an encoder of this configuration, pruned or dense."""
    return pruned_class(config) if hasattr(config, KEY) else dense_class(config)


def has_pooler(config: PretrainedConfig) -> bool:
    """Whether the architecture's encoder comes with a pooler, which the heads here do not use."""
    import inspect

    return "add_pooling_layer" in inspect.signature(dense_class(config)).parameters


def freeze_embeddings_of(model: PreTrainedModel) -> None:
    """Freeze what the ledger counts as embeddings; the LayerNorm after them is trained."""
    for owned in owned_parameters(model):
        if owned.part == "embeddings":
            owned.parameter.requires_grad_(False)


def _check_kind(config: PretrainedConfig, path: str) -> None:
    """Refuse what can be loaded, but neither read with nor answered with."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    if config.is_encoder_decoder and config.model_type not in TEXT_TO_TEXT:
        raise ValueError(
            f"An encoder-decoder must be one of {', '.join(TEXT_TO_TEXT)}, but {path!r} is a "
            f"{config.model_type}."
        )
    kind = type(config)
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING:
        raise ValueError(
            f"The model must be an encoder or an encoder-decoder, but {path!r} is a "
            f"{config.model_type}, which has a decoder only."
        )


def _check_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str
) -> None:
    """Refuse a tokenizer that gives tokens which the encoder does not know."""
    largest = max(tokenizer.get_vocab().values(), default=-1)
    rows = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
    if largest >= rows:
        raise ValueError(
            f"An encoder must have an embedding for every token, but {path!r} has {rows:,}, and "
            f"its tokenizer gives tokens up to the number {largest:,}."
        )


def _set_dropout(config: PretrainedConfig, dropout: float) -> None:
    """Set what BERT and its kin, DistilBERT or T5 call their probabilities of dropout."""
    names = (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "dropout",
        "attention_dropout",
        "dropout_rate",
    )
    present = [name for name in names if hasattr(config, name)]
    if not present:
        raise ValueError(
            f"`dropout` needs an encoder with dropout, but a {config.model_type} has none of "
            f"{', '.join(names)}."
        )
    for name in present:
        setattr(config, name, dropout)
