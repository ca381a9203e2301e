"""Encoders that share their layers with others: what is cut computes what was masked, and ships."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_encoders import (
    ALIASES,
    HEAD_SIZE,
    HEADS_PER_LAYER,
    HIDDEN,
    INTERMEDIATE,
    states_of,
    tiny_encoder,
)
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, ConvBertConfig, ConvBertModel

from multiprune.export.checkpoint import load_encoder, save_encoder
from multiprune.models.architectures import NEURONS, QUERY_KEY, ROWS, VALUE
from multiprune.models.encoder import set_dropout
from multiprune.models.low_rank import LowRankLinear
from multiprune.models.modeling_multiprune import dense_class
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import Layer, along, layers_of

if TYPE_CHECKING:
    from pathlib import Path

every_alias = pytest.mark.parametrize("name", ALIASES)


def kept(layer: Layer, *, dropped: bool = False) -> dict[str, Tensor]:
    """Keep 3 heads, without a dimension where an architecture can spare it, and 16 neurons."""
    heads = torch.ones(HEADS_PER_LAYER, HEAD_SIZE, dtype=torch.bool)
    heads[1] = False
    query_key, value = heads.clone(), heads.clone()
    if layer.architecture.resizable_heads:
        query_key[:, 3], value[:, 5] = False, False
    neurons = torch.arange(INTERMEDIATE) % 3 > 0
    masks = {QUERY_KEY: query_key.flatten(), VALUE: value.flatten(), NEURONS: neurons}
    return {units: mask & (not dropped) for units, mask in masks.items()}


@torch.no_grad()
def mask(layer: Layer, units: dict[str, Tensor]) -> None:
    for linear, slices in layer.linear_layers():
        one = along(slices, units)
        linear.weight.mul_(one[:, None] if slices.dim == ROWS else one)
        if linear.bias is not None and (slices.dim == ROWS or not one.any()):
            linear.bias.mul_(one if slices.dim == ROWS else 0)


@every_alias
def test_units_own_every_linear_weight_of_a_layer_once(name: str) -> None:
    for layer in layers_of(encoder := tiny_encoder(name)):
        module = encoder.get_submodule(layer.path)
        described = [one for one, _ in layer.linear_layers()]
        assert len(described) == len(set(described))
        assert set(described) == {one for one in module.modules() if isinstance(one, nn.Linear)}
        for one, slices in layer.linear_layers():
            assert one.weight.shape[slices.dim] == sum(map(layer.size_of, slices.units))


@every_alias
def test_slices_of_a_head_are_what_it_hands_to_the_output(name: str) -> None:
    """Close a head with a hook, which does not know where its weights are."""
    gone, zeroed, hooked = slice(HEAD_SIZE, 2 * HEAD_SIZE), tiny_encoder(name), tiny_encoder(name)
    everything = torch.ones(HIDDEN, dtype=torch.bool)
    without = everything.clone()
    without[gone] = False
    units = {QUERY_KEY: without, VALUE: without, NEURONS: torch.ones(INTERMEDIATE).bool()}
    mask(layers_of(zeroed)[0], units)

    def close(_: nn.Module, args: Any) -> Any:
        states = args[0].clone()
        states[..., gone] = 0
        return (states,)

    layers_of(hooked)[0].output_of(VALUE).register_forward_pre_hook(close)
    assert not torch.allclose(states_of(hooked), states_of(tiny_encoder(name)), atol=1e-3)
    torch.testing.assert_close(states_of(zeroed), states_of(hooked), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dropped", [None, 0])
@every_alias
def test_cut_encoder_computes_what_the_masked_one_computed_and_ships(
    name: str, dropped: int | None, tmp_path: Path
) -> None:
    encoder = tiny_encoder(name)
    chosen = [
        (one, kept(one, dropped=number == dropped)) for number, one in enumerate(layers_of(encoder))
    ]
    for layer, units in chosen:
        mask(layer, units)
    before = states_of(encoder)
    assert not torch.allclose(before, states_of(tiny_encoder(name)), atol=1e-3)
    for layer, units in chosen:
        size = sum(
            int(along(slices, units).sum()) * one.weight.shape[1 - slices.dim]
            for one, slices in layer.linear_layers()
        )
        shrink_layer(layer, units)
        assert sum(one.weight.numel() for one, _ in layer.linear_layers()) == size
    torch.testing.assert_close(states_of(encoder), before, rtol=0, atol=1e-12)
    save_encoder(tmp_path, encoder)
    for loaded in (
        load_encoder(tmp_path),
        AutoModel.from_pretrained(tmp_path, trust_remote_code=True, dtype=torch.float64),
    ):
        assert torch.equal(states_of(loaded), states_of(encoder))


@every_alias
def test_every_dropout_of_the_encoder_is_set(name: str) -> None:
    config: Any = ALIASES[name]()
    set_dropout(config, 0.3)
    found = [one.p for one in dense_class(config)(config).modules() if isinstance(one, nn.Dropout)]
    assert set(found) <= {0.3}


def test_an_encoder_of_unknown_layers_ships_ranks(tmp_path: Path) -> None:
    config = ConvBertConfig(
        vocab_size=40,
        hidden_size=16,
        embedding_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=8,
    )
    encoder: Any = ConvBertModel(config).eval()  # type: ignore[no-untyped-call]
    layer = encoder.encoder.layer[0].intermediate
    layer.dense = LowRankLinear.from_linear(layer.dense, 5).factored()
    save_encoder(tmp_path, encoder)
    assert torch.equal(states_of(load_encoder(tmp_path)), states_of(encoder))


def test_heads_that_share_keys_are_refused() -> None:
    config = AutoConfig.for_model(
        "eurobert",
        vocab_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=8,
        pad_token_id=0,
    )
    with pytest.raises(ValueError, match=r"in layers\.0 heads share them"):
        layers_of(dense_class(config)(config))
