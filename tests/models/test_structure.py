"""Which rows and columns a head, a dimension or a neuron owns, judged by closing it with a hook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_encoders import (
    ALIASES,
    CONFIGS,
    HEAD_SIZE,
    HEADS_PER_LAYER,
    HIDDEN,
    INTERMEDIATE,
    TEXT_TO_TEXT,
    states_of,
    tiny_encoder,
)
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, BertConfig, GPT2Config, GPT2Model

from multiprune.models.architectures import ARCHITECTURES, COLUMNS, NEURONS, QUERY_KEY, ROWS, VALUE
from multiprune.models.modeling_multiprune import DroppedLayer
from multiprune.models.structure import Layer, along, layers_of

if TYPE_CHECKING:
    from collections.abc import Callable

every_architecture = pytest.mark.parametrize("name", CONFIGS)


@dataclass(frozen=True)
class Place:
    """Where a hook finds the parts of a layer, read off the architecture's own source.

    ``queries_and_keys`` are linear layers with the offset at which the dimensions begin.
    """

    layers: list[str]
    queries_and_keys: list[tuple[str, int]]
    attention_output: str
    feed_forward_output: str


_BERT_LAYERS = ["encoder.layer.0", "encoder.layer.1"]
_BERT = Place(
    _BERT_LAYERS,
    [("attention.self.query", 0), ("attention.self.key", 0)],
    "attention.output.dense",
    "output.dense",
)
_DEBERTA_SHARED = Place(
    _BERT_LAYERS,
    [("attention.self.query_proj", 0), ("attention.self.key_proj", 0)],
    "attention.output.dense",
    "output.dense",
)
_POSITIONS = [("attention.self.pos_query_proj", 0), ("attention.self.pos_key_proj", 0)]
_ALBERT_PARTS: Any = (
    [("attention.query", 0), ("attention.key", 0)],
    "attention.dense",
    "ffn_output",
)
_ALBERT_LAYERS = [f"encoder.albert_layer_groups.{group}.albert_layers.0" for group in range(2)]
PLACES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm_roberta": _BERT,
    "electra": _BERT,
    "distilbert": Place(
        ["transformer.layer.0", "transformer.layer.1"],
        [("attention.q_lin", 0), ("attention.k_lin", 0)],
        "attention.out_lin",
        "ffn.lin2",
    ),
    "mpnet": Place(
        _BERT_LAYERS,
        [("attention.attn.q", 0), ("attention.attn.k", 0)],
        "attention.attn.o",
        "output.dense",
    ),
    "deberta": Place(
        _BERT_LAYERS,
        [*_DEBERTA_SHARED.queries_and_keys, *_POSITIONS],
        "attention.output.dense",
        "output.dense",
    ),
    "deberta_shared_keys": _DEBERTA_SHARED,
    "modernbert": Place(
        ["layers.0", "layers.1"], [("attn.Wqkv", 0), ("attn.Wqkv", HIDDEN)], "attn.Wo", "mlp.Wo"
    ),
    "albert": Place(_ALBERT_LAYERS[:1], *_ALBERT_PARTS),
    "albert_groups": Place(_ALBERT_LAYERS, *_ALBERT_PARTS),
}


def closing_inputs(gone: slice) -> Callable[..., Any]:
    def hook(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        closed = args[0].clone()
        closed[..., gone] = 0
        return (closed,)

    return hook


def closing_outputs(gone: slice) -> Callable[..., Any]:
    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        closed = output.clone()
        closed[..., gone] = 0
        return closed

    return hook


@torch.no_grad()
def zero(layer: Layer, units: str, gone: slice) -> None:
    """Set all slices of some units of one kind to zero, by the layer's own description."""
    chosen = {
        kind: torch.zeros(layer.size_of(kind), dtype=torch.bool)
        for kind in (QUERY_KEY, VALUE, NEURONS)
    }
    chosen[units][gone] = True
    for linear, slices in layer.linear_layers():
        mask = along(slices, chosen)
        if slices.dim == ROWS:
            linear.weight[mask] = 0
            if linear.bias is not None:
                linear.bias[mask] = 0
        else:
            assert slices.dim == COLUMNS
            linear.weight[:, mask] = 0


def assert_same_but_not_dense(name: str, zeroed: nn.Module, hooked: nn.Module) -> None:
    dense, expected = states_of(tiny_encoder(name)), states_of(hooked)
    assert not torch.allclose(dense, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(states_of(zeroed), expected, rtol=0, atol=1e-12)


@every_architecture
def test_layers_heads_and_neurons_are_those_of_the_configuration(name: str) -> None:
    layers = layers_of(tiny_encoder(name))
    assert [layer.path for layer in layers] == PLACES[name].layers
    for layer in layers:
        assert (layer.heads, layer.head_size) == (HEADS_PER_LAYER, HEAD_SIZE)
        assert layer.size_of(QUERY_KEY) == layer.size_of(VALUE) == HIDDEN
        assert layer.neurons == layer.size_of(NEURONS) == INTERMEDIATE


def test_every_known_architecture_is_tested() -> None:
    configs = CONFIGS | TEXT_TO_TEXT | ALIASES
    assert {configs[name]().model_type for name in configs} == set(ARCHITECTURES)
    assert PLACES.keys() == CONFIGS.keys()


@pytest.mark.parametrize("number", [0, 1])
@every_architecture
def test_slices_of_a_head_are_what_it_hands_to_the_output(name: str, number: int) -> None:
    place = PLACES[name]
    number = min(number, len(place.layers) - 1)
    for head in (0, 2):
        gone = slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE)
        zeroed, hooked = tiny_encoder(name), tiny_encoder(name)
        zero(layers_of(zeroed)[number], VALUE, gone)
        zero(layers_of(zeroed)[number], QUERY_KEY, gone)
        output = hooked.get_submodule(f"{place.layers[number]}.{place.attention_output}")
        output.register_forward_pre_hook(closing_inputs(gone))
        assert_same_but_not_dense(name, zeroed, hooked)


@every_architecture
def test_slices_of_a_value_are_one_input_of_the_output(name: str) -> None:
    place, gone = PLACES[name], slice(11, 12)
    zeroed, hooked = tiny_encoder(name), tiny_encoder(name)
    zero(layers_of(zeroed)[0], VALUE, gone)
    output = hooked.get_submodule(f"{place.layers[0]}.{place.attention_output}")
    output.register_forward_pre_hook(closing_inputs(gone))
    assert_same_but_not_dense(name, zeroed, hooked)


@every_architecture
def test_slices_of_a_query_and_key_are_one_dimension_of_their_product(name: str) -> None:
    place, dimension = PLACES[name], 13
    zeroed, hooked = tiny_encoder(name), tiny_encoder(name)
    zero(layers_of(zeroed)[-1], QUERY_KEY, slice(dimension, dimension + 1))
    for path, offset in place.queries_and_keys:
        gone = slice(offset + dimension, offset + dimension + 1)
        projection = hooked.get_submodule(f"{place.layers[-1]}.{path}")
        projection.register_forward_hook(closing_outputs(gone))
    assert_same_but_not_dense(name, zeroed, hooked)


@every_architecture
def test_slices_of_a_neuron_are_one_input_of_the_feed_forward_output(name: str) -> None:
    place = PLACES[name]
    for number, neuron in ((0, 5), (-1, INTERMEDIATE - 1)):
        gone = slice(neuron, neuron + 1)
        zeroed, hooked = tiny_encoder(name), tiny_encoder(name)
        zero(layers_of(zeroed)[number], NEURONS, gone)
        output = hooked.get_submodule(f"{place.layers[number]}.{place.feed_forward_output}")
        output.register_forward_pre_hook(closing_inputs(gone))
        assert_same_but_not_dense(name, zeroed, hooked)


@every_architecture
def test_units_own_every_linear_weight_of_a_layer_once(name: str) -> None:
    encoder = tiny_encoder(name)
    for layer in layers_of(encoder):
        module = encoder.get_submodule(layer.path)
        linear = {one for one in module.modules() if isinstance(one, nn.Linear)}
        described = [one for one, _ in layer.linear_layers()]
        assert len(described) == len(set(described)) == len(linear)
        assert set(described) == linear
        for one, slices in layer.linear_layers():
            assert one.weight.shape[slices.dim] == sum(map(layer.size_of, slices.units))


def test_unknown_architecture_is_refused_with_the_known_ones() -> None:
    encoder = GPT2Model(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=10))
    known = ", ".join(ARCHITECTURES)
    with pytest.raises(ValueError, match=f"known of {known}, but the encoder is 'gpt2'"):
        layers_of(encoder)


def test_module_without_a_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="but the encoder is 'Sequential'"):
        layers_of(nn.Sequential(nn.Linear(2, 2)))


def test_encoder_within_another_module_is_asked_for() -> None:
    config = CONFIGS["bert"]()
    assert isinstance(config, BertConfig)
    wrapped = AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
        config
    )
    with pytest.raises(ValueError, match=r"at encoder\.layer, but BertForSequenceClassification"):
        layers_of(wrapped)
    assert len(layers_of(wrapped.bert)) == 2


def test_dropped_layer_is_not_pruned_again() -> None:
    encoder = tiny_encoder("bert")
    layers = encoder.get_submodule("encoder.layer")
    assert isinstance(layers, nn.ModuleList)
    layers[1] = DroppedLayer(layers[1], ["output.LayerNorm"], returns_tuple=False)
    with pytest.raises(ValueError, match=r"dropped before, but encoder\.layer\.1 was"):
        layers_of(encoder)
