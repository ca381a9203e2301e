"""Load an encoder or encoder-decoder: from the hub, a folder, or a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from multiprune.budget.ledger import owned_parameters
from multiprune.message import first_line
from multiprune.models.dropout import dropout_of_heads
from multiprune.models.location import encoder_source
from multiprune.models.matching_weights import load_matching
from multiprune.models.modeling_multiprune import KEY, dense_class, pruned_class, register_code
from multiprune.models.pretrained_tokenizer import ensure_padding, pretrained_tokenizer
from multiprune.models.remote_code import refused
from multiprune.tasks.outputs.heads import USUAL_DROPOUT

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

#: Encoder-decoders that are known: their positions are relative.
TEXT_TO_TEXT = ("t5", "mt5")


# They count positions from behind the number of the padding token.
_BEHIND_PADDING = (
    *("roberta", "xlm-roberta", "mpnet", "camembert", "data2vec-text", "markuplm", "xmod", "luke"),
    *("roberta-prelayernorm", "xlm-roberta-xl", "longformer", "ibert", "esm"),
)


@dataclass(frozen=True)
class Encoder:
    """A text encoder without a head, or an encoder-decoder, and the tokenizer that goes with it.

    ``source`` is where heads may lie beside it, a name on the hub or a folder, if they are wanted.
    ``trust_remote_code`` says whether code that is published with models may be run, and
    ``head_dropout`` the probability of dropout in the heads that are trained on it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str | None = None
    trust_remote_code: bool = False
    head_dropout: float = USUAL_DROPOUT

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
    path: str,
    *,
    dropout: float | None = None,
    head_dropout: float | None = None,
    freeze_embeddings: bool = False,
    trust_remote_code: bool = False,
    carry_heads: bool = True,
) -> Encoder:
    """Load an encoder, or an encoder-decoder, by its name on the hub, or from a folder or a run.

    ``dropout`` replaces the probabilities of dropout that the encoder was pretrained with.
    ``head_dropout`` is that of heads; None is ``dropout`` where that is given, else 0.1. With
    ``freeze_embeddings`` its embeddings stay as they were, so that models of several tasks can
    share them. Code that is published with a model is run with ``trust_remote_code`` only. With
    ``carry_heads``, tasks begin with the heads that a run has left for them.

    Raises:
        FileNotFoundError: if ``path`` looks like a folder and there is none, or no model in it.
        ValueError: if the hub has no such model, or cannot be reached, if the model is neither an
            encoder nor an encoder-decoder that is known here, its weights do not match it, or its
            tokenizer is of another.
    """
    of_heads = dropout_of_heads(head_dropout, dropout)
    source = encoder_source(path)
    try:
        with refused(path, "encoder.trust_remote_code=true"):
            model = _model(source, path, dropout, trust_remote_code=trust_remote_code)
            tokenizer = pretrained_tokenizer(source, trust_remote_code=trust_remote_code)
    except (ValueError, StrictDataclassError) as error:
        if path in str(error) or source in str(error):
            raise
        raise ValueError(f"The model in {path} cannot be built: {first_line(error)}") from error
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"`encoder.path` must be a folder or a model of the Hugging Face hub that can be "
            f"read, but {path!r} is not: {str(error).splitlines()[0]}"
        ) from error
    ensure_padding(tokenizer, path)
    _check_vocabulary(model, tokenizer, path)
    if head_dropout is not None and model.config.is_encoder_decoder:
        raise ValueError(
            f"`encoder.head_dropout` does not apply to {path!r}, an encoder-decoder without "
            "heads: leave it null."
        )
    if freeze_embeddings:
        freeze_embeddings_of(model)
    return Encoder(
        model=model,
        tokenizer=tokenizer,
        source=source if carry_heads else None,
        trust_remote_code=trust_remote_code,
        head_dropout=of_heads,
    )


def _model(
    source: str, path: str, dropout: float | None, *, trust_remote_code: bool
) -> PreTrainedModel:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    if trust_remote_code:
        register_code(config, source)
    _check_kind(config, path)
    if dropout is not None:
        set_dropout(config, dropout)
    # Files may hold half precision, in which small updates of weights are lost.
    options: dict[str, Any] = {"config": config, "dtype": torch.float32}
    if has_pooler(config):
        options["add_pooling_layer"] = False
    # `from_pretrained` returns a model in evaluation mode, and Lightning keeps it so.
    model: PreTrainedModel = load_matching(encoder_class(config), source, **options).train()
    return model


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
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
        MODEL_MAPPING,
    )

    if config.is_encoder_decoder and config.model_type not in TEXT_TO_TEXT:
        raise ValueError(
            f"An encoder-decoder must be one of {', '.join(TEXT_TO_TEXT)}, but {path!r} is a "
            f"{config.model_type}."
        )
    kind = type(config)
    if kind not in MODEL_MAPPING:
        raise ValueError(
            f"The model must be an encoder or an encoder-decoder of transformers, but {path!r} is "
            f"a {config.model_type}."
        )
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING:
        raise ValueError(
            f"{path!r} is a {config.model_type}, which has a decoder only: choose an encoder "
            "or encoder-decoder."
        )


def _check_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str
) -> None:
    """Refuse a tokenizer that gives tokens which the encoder does not know."""
    largest = max(tokenizer.get_vocab().values(), default=-1)
    rows = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
    if largest >= rows:
        raise ValueError(
            f"{path!r} has {rows:,} embeddings, but its tokenizer has token ids up to {largest:,}."
        )


def set_dropout(config: PretrainedConfig, dropout: float) -> None:
    """Set every probability of dropout that the architecture has, whatever it calls them."""
    names = [
        name
        for name, value in config.to_dict().items()
        if "dropout" in name and isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    if not names:
        raise ValueError(
            f"`dropout` does not apply to a {config.model_type}, which has no dropout."
        )
    for name in names:
        setattr(config, name, dropout)
