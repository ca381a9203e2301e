"""Paths of heads and neurons in each supported architecture.

A *unit* is what goes as a whole: a dimension of a head (of its query and key, or of its value) or a
neuron of the feed-forward network. A unit owns rows and columns of several linear layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from multiprune.models.modeling_multiprune import PositionBias, SharedPositionBias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Kinds of units.
QUERY_KEY, VALUE, NEURONS = "query_key", "value", "neurons"

ROWS, COLUMNS = 0, 1


@dataclass(frozen=True)
class Slices:
    """The units along one dimension of a linear layer, several kinds stacked if it is fused."""

    dim: int
    units: tuple[str, ...]


def rows(*units: str) -> Slices:
    """Return the units along the outputs of a linear layer."""
    return Slices(ROWS, units)


def columns(*units: str) -> Slices:
    """Return the units along the inputs of a linear layer."""
    return Slices(COLUMNS, units)


@dataclass(frozen=True)
class Architecture:
    """Where one architecture keeps its units; paths are relative to a layer.

    A layer has one attention, and a feed-forward network unless ``linear`` has no neurons.

    Attributes:
        layers: path from the encoder to each of its layers; ``*`` stands for every child.
        attention: the module that knows the number of heads.
        linear: units of every linear layer of a layer; layers that an encoder lacks are skipped.
        norms: what is left of a layer that is dropped, in order: norms on the residual stream.
        head_size: attribute of the attention that holds the size of a head.
        head_count: attributes that hold the number of heads, where there are any.
        head_width: attributes that hold the size of all heads.
        neuron_count: attribute of the configuration that holds the number of neurons.
        resizable_heads: whether heads may lose dimensions and keep their scale.
        returns_tuple: whether a layer returns its hidden states within a tuple.
        attention_returns_tuple: whether the attention returns its hidden states within a tuple.
        attention_is_branch: whether others add what the attention returns to what it read, and norm
            the sum, rather than itself.
        position_bias: what cuts the bias of all heads of the dense model that the attention is
            handed, if it is.
        droppable: whether a layer may go as a whole.
        per_layer_config: whether transformers reads a configuration that has numbers by layer.
        decoding: paths in ``linear`` that read what a decoder reads; others read the text.
    """

    layers: str
    attention: str
    linear: Mapping[str, Slices]
    norms: tuple[str, ...] = ()
    head_size: str = "attention_head_size"
    head_count: tuple[str, ...] = ("num_attention_heads",)
    head_width: tuple[str, ...] = ("all_head_size",)
    neuron_count: str = "intermediate_size"
    resizable_heads: bool = True
    returns_tuple: bool = False
    attention_returns_tuple: bool = True
    attention_is_branch: bool = False
    position_bias: type[PositionBias] | None = None
    droppable: bool = True
    per_layer_config: bool = True
    decoding: tuple[str, ...] = ()

    @property
    def attention_block(self) -> str:
        """The path of the module that holds all of the attention."""
        return self.attention.partition(".")[0]


_BERT = Architecture(
    layers="encoder.layer.*",
    attention="attention.self",
    linear={
        "attention.self.query": rows(QUERY_KEY),
        "attention.self.key": rows(QUERY_KEY),
        "attention.self.value": rows(VALUE),
        "attention.output.dense": columns(VALUE),
        "intermediate.dense": rows(NEURONS),
        "output.dense": columns(NEURONS),
    },
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
)

# Norms are within the branches: nothing is left of a layer that is dropped.
_BERT_NORMS_FIRST = replace(_BERT, norms=())
# A scale that is computed from the size of a head at every call, or rotary positions.
_BERT_FIXED_HEADS = replace(_BERT, resizable_heads=False, returns_tuple=True)

_DISTILBERT = Architecture(
    layers="transformer.layer.*",
    attention="attention",
    linear={
        "attention.q_lin": rows(QUERY_KEY),
        "attention.k_lin": rows(QUERY_KEY),
        "attention.v_lin": rows(VALUE),
        "attention.out_lin": columns(VALUE),
        "ffn.lin1": rows(NEURONS),
        "ffn.lin2": columns(NEURONS),
    },
    norms=("sa_layer_norm", "output_layer_norm"),
    head_count=("n_heads",),
    head_width=(),
    neuron_count="hidden_dim",
    attention_is_branch=True,
)

_MPNET = Architecture(
    layers="encoder.layer.*",
    attention="attention.attn",
    linear={
        "attention.attn.q": rows(QUERY_KEY),
        "attention.attn.k": rows(QUERY_KEY),
        "attention.attn.v": rows(VALUE),
        "attention.attn.o": columns(VALUE),
        "intermediate.dense": rows(NEURONS),
        "output.dense": columns(NEURONS),
    },
    norms=("attention.LayerNorm", "output.LayerNorm"),
    resizable_heads=False,  # its scale is computed from the size of a head at every call
    returns_tuple=True,
    position_bias=PositionBias,
)

_DEBERTA = Architecture(
    layers="encoder.layer.*",
    attention="attention.self",
    linear={
        "attention.self.query_proj": rows(QUERY_KEY),
        "attention.self.key_proj": rows(QUERY_KEY),
        "attention.self.pos_query_proj": rows(QUERY_KEY),
        "attention.self.pos_key_proj": rows(QUERY_KEY),
        "attention.self.value_proj": rows(VALUE),
        "attention.output.dense": columns(VALUE),
        "intermediate.dense": rows(NEURONS),
        "output.dense": columns(NEURONS),
    },
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    resizable_heads=False,  # its scale is computed from the size of a head at every call
    returns_tuple=True,
)

_MODERNBERT = Architecture(
    layers="layers.*",
    attention="attn",
    linear={
        "attn.Wqkv": rows(QUERY_KEY, QUERY_KEY, VALUE),
        "attn.Wo": columns(VALUE),
        "mlp.Wi": rows(NEURONS, NEURONS),
        "mlp.Wo": columns(NEURONS),
    },
    head_size="head_dim",
    head_count=(),
    head_width=(),
    resizable_heads=False,  # rotary positions pair the dimensions of a head
    attention_is_branch=True,
)


def _rotary(inner: Sequence[str], output: str, norms: Sequence[str] = ()) -> Architecture:
    """Return Llama's attention; neurons are outputs of ``inner``, and inputs of ``output``."""
    attention = {f"self_attn.{name}_proj": rows(QUERY_KEY) for name in "qk"}
    attention |= {"self_attn.v_proj": rows(VALUE), "self_attn.o_proj": columns(VALUE)}
    neurons = {f"mlp.{name}": rows(NEURONS) for name in inner}
    return Architecture(
        layers="layers.*",
        attention="self_attn",
        linear=attention | neurons | {f"mlp.{output}": columns(NEURONS)},
        norms=tuple(norms),
        head_size="head_dim",
        head_count=(),
        head_width=(),
        resizable_heads=False,  # rotary positions pair the dimensions of a head
        attention_is_branch=True,
    )


_GATED = ("gate_proj", "up_proj")
# Its configuration checks the number of heads of all layers at once.
_EUROBERT = replace(_rotary(_GATED, "down_proj"), per_layer_config=False)
_NORMS_LAST = ("post_attention_layernorm", "post_mlp_layernorm")
_NOMIC = _rotary(_GATED, "down_proj", _NORMS_LAST)
_JINA = _rotary(["fc1"], "fc2", _NORMS_LAST)

_ALBERT = Architecture(
    layers="encoder.albert_layer_groups.*.albert_layers.*",
    attention="attention",
    linear={
        "attention.query": rows(QUERY_KEY),
        "attention.key": rows(QUERY_KEY),
        "attention.value": rows(VALUE),
        "attention.dense": columns(VALUE),
        "ffn": rows(NEURONS),
        "ffn_output": columns(NEURONS),
    },
    norms=("attention.LayerNorm", "full_layer_layer_norm"),
)


def _t5(layers: str, attention: str, feed_forward: str | None = None) -> Architecture:
    """Return one kind of T5's layers; those without a feed-forward network attend to the other."""
    linear = {
        f"{attention}.q": rows(QUERY_KEY),
        f"{attention}.k": rows(QUERY_KEY),
        f"{attention}.v": rows(VALUE),
        f"{attention}.o": columns(VALUE),
    }
    if feed_forward is not None:
        # T5 1.1 has two layers of neurons, one of which gates the other.
        inner = {f"{feed_forward}.{name}": rows(NEURONS) for name in ("wi", "wi_0", "wi_1")}
        linear |= inner | {f"{feed_forward}.wo": columns(NEURONS)}
    reading = {f"{attention}.k", f"{attention}.v"} if feed_forward is None else set()
    decoding = [path for path in linear if path not in reading]
    return Architecture(
        layers=layers,
        attention=attention,
        linear=linear,
        head_size="key_value_proj_dim",
        head_count=("n_heads",),
        head_width=("inner_dim",),
        neuron_count="d_ff",
        position_bias=SharedPositionBias,
        droppable=False,  # the first layer computes the bias of positions for all others
        decoding=tuple(decoding) if layers.startswith("decoder.") else (),
    )


_T5 = (
    _t5("encoder.block.*", "layer.0.SelfAttention", "layer.1.DenseReluDense"),
    _t5("decoder.block.*", "layer.0.SelfAttention", "layer.2.DenseReluDense"),
    _t5("decoder.block.*.layer.1", "EncDecAttention"),
)

_OF_BERT = (
    *("bert", "roberta", "xlm-roberta", "electra", "camembert", "data2vec-text", "ernie"),
    "roc_bert",
)

#: By ``config.model_type``. ALBERT's layers are shared: each is pruned once and counted once.
ARCHITECTURES: Mapping[str, tuple[Architecture, ...]] = {
    **dict.fromkeys(_OF_BERT, (_BERT,)),
    **dict.fromkeys(("markuplm", "splinter"), (replace(_BERT, attention_returns_tuple=False),)),
    "rembert": (_BERT_FIXED_HEADS,),
    "roformer": (_BERT_FIXED_HEADS,),
    "roberta-prelayernorm": (_BERT_NORMS_FIRST,),
    "xlm-roberta-xl": (_BERT_NORMS_FIRST,),
    "megatron-bert": (replace(_BERT_FIXED_HEADS, norms=()),),
    "distilbert": (_DISTILBERT,),
    "mpnet": (_MPNET,),
    "deberta-v2": (_DEBERTA,),
    "modernbert": (_MODERNBERT,),
    "eurobert": (_EUROBERT,),
    "ultrabert": (_EUROBERT,),
    "nomic_bert": (_NOMIC,),
    "gte": (_NOMIC,),
    "jina_embeddings_v3": (_JINA,),
    "albert": (_ALBERT,),
    "t5": _T5,
    "mt5": _T5,
}

#: Of which hidden dimensions are known: their embeddings are summed and normed once, and their
#: layers norm the sum of each block.
HIDDEN_KNOWN = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")
