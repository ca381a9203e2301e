"""An encoder of every architecture with known structure, with random weights and no dropout."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AlbertConfig,
    AutoConfig,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    MT5Config,
    RobertaConfig,
    T5Config,
    XLMRobertaConfig,
)

from multiprune.models.encoder import set_dropout
from multiprune.models.modeling_multiprune import dense_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

HIDDEN, HEADS_PER_LAYER, HEAD_SIZE, INTERMEDIATE = 32, 4, 8, 24

_SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS_PER_LAYER,
    "intermediate_size": INTERMEDIATE,
    "max_position_embeddings": 20,
}
_BERT: dict[str, Any] = _SIZES | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_DEBERTA: dict[str, Any] = _BERT | {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
}
_T5: dict[str, Any] = {
    "vocab_size": 40,
    "d_model": HIDDEN,
    "d_kv": HEAD_SIZE,
    "d_ff": INTERMEDIATE,
    "num_layers": 2,
    "num_heads": HEADS_PER_LAYER,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
_GATED: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_ALBERT: dict[str, Any] = _BERT | {"embedding_size": 16, "num_hidden_layers": 4}

CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "bert": lambda: BertConfig(**_BERT),
    "roberta": lambda: RobertaConfig(**_BERT),
    "xlm_roberta": lambda: XLMRobertaConfig(**_BERT),
    "electra": lambda: ElectraConfig(**_BERT, embedding_size=16),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=40,
        dim=HIDDEN,
        n_layers=2,
        n_heads=HEADS_PER_LAYER,
        hidden_dim=INTERMEDIATE,
        max_position_embeddings=20,
        dropout=0.0,
        attention_dropout=0.0,
    ),
    "mpnet": lambda: MPNetConfig(**_BERT),
    "deberta": lambda: DebertaV2Config(**_DEBERTA | {"share_att_key": False}),
    "deberta_shared_keys": lambda: DebertaV2Config(**_DEBERTA | {"share_att_key": True}),
    # One layer attends to everything, the other to its neighbours.
    "modernbert": lambda: ModernBertConfig(
        **_SIZES,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
        local_attention=4,
        layer_types=["full_attention", "sliding_attention"],
    ),
    # One layer, passed four times; and two, passed twice each.
    "albert": lambda: AlbertConfig(**_ALBERT),
    "albert_groups": lambda: AlbertConfig(**_ALBERT, num_hidden_groups=2),
}
#: Encoder-decoders: of the first version, and of the second, whose neurons are gated, as mT5's.
TEXT_TO_TEXT: dict[str, Callable[[], PretrainedConfig]] = {
    "t5": lambda: T5Config(**_T5),
    "t5_gated": lambda: T5Config(**_T5, **_GATED),
    "mt5": lambda: MT5Config(**_T5, **_GATED),
}
_LIKE: dict[str, Any] = _SIZES | {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


def _alias(name: str) -> PretrainedConfig:
    config: PretrainedConfig = AutoConfig.for_model(name, **_LIKE)
    set_dropout(config, 0.0)
    return config


#: Those whose layers are of a kind that is tested above, or put together of the same parts.
ALIASES: dict[str, Callable[[], PretrainedConfig]] = {
    name: partial(_alias, name)
    for name in (
        *("camembert", "data2vec-text", "ernie", "markuplm", "roc_bert", "splinter"),
        *("rembert", "roformer", "roberta-prelayernorm", "xlm-roberta-xl", "megatron-bert"),
        *("eurobert", "ultrabert", "nomic_bert", "gte", "jina_embeddings_v3"),
    )
}
#: Those whose layers can be dropped: there is more than one.
SEVERAL_LAYERS = [name for name in CONFIGS if name != "albert"]
#: Those whose heads can lose dimensions.
RESIZABLE = [name for name in CONFIGS if not name.startswith(("mpnet", "deberta", "modernbert"))]


def tiny_encoder(
    name: str,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    attention: str | None = None,
) -> PreTrainedModel:
    """Make an encoder without a pooler; biases and norms are random too."""
    config = (CONFIGS | TEXT_TO_TEXT | ALIASES)[name]()
    encoder: Any = dense_class(config)._from_config(config, attn_implementation=attention)
    if hasattr(encoder, "pooler"):
        encoder.pooler = None
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for path, parameter in encoder.named_parameters():
            is_norm = parameter.dim() == 1 and path.endswith("weight")
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.2 * noise + is_norm)
    made: PreTrainedModel = encoder.to(dtype)
    return made


def tokens(number: int = 0) -> dict[str, Tensor]:
    """Make a batch of three sentences, of which two are padded."""
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(4, 40, (3, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 5:] = mask[2, 3:] = 0
    return {"input_ids": ids.where(mask.bool(), 1), "attention_mask": mask}


def states_of(encoder: nn.Module, number: int = 0) -> Tensor:
    """Return the hidden states of the last layer; those of padding are zero.

    Of an encoder-decoder, return the logits of another batch of tokens.
    """
    batch = tokens(number)
    if getattr(encoder.config, "is_encoder_decoder", False):
        logits: Tensor = encoder(**batch, decoder_input_ids=tokens(number + 1)["input_ids"]).logits
        return logits
    states: Tensor = encoder(**batch).last_hidden_state
    return states * batch["attention_mask"][:, :, None]
