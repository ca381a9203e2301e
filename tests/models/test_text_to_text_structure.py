"""Which rows and columns heads and neurons of both stacks own, judged by closing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_encoders import (
    HEAD_SIZE,
    HEADS_PER_LAYER,
    INTERMEDIATE,
    TEXT_TO_TEXT,
    states_of,
    tiny_encoder,
    tokens,
)
from torch import Tensor, nn

from multiprune.budget.ledger import ParameterLedger, owned_parameters
from multiprune.models.architectures import NEURONS, QUERY_KEY, ROWS, VALUE
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import along, architecture_of, layers_of

if TYPE_CHECKING:
    from multiprune.models.structure import Layer

BLOCKS = [0, 1]
#: By layer, what reads its heads and what reads its neurons.
OUTPUTS: dict[str, tuple[str, str | None]] = {
    **{
        f"encoder.block.{number}": (
            f"encoder.block.{number}.layer.0.SelfAttention.o",
            f"encoder.block.{number}.layer.1.DenseReluDense.wo",
        )
        for number in BLOCKS
    },
    **{
        f"decoder.block.{number}": (
            f"decoder.block.{number}.layer.0.SelfAttention.o",
            f"decoder.block.{number}.layer.2.DenseReluDense.wo",
        )
        for number in BLOCKS
    },
    **{
        f"decoder.block.{number}.layer.1": (
            f"decoder.block.{number}.layer.1.EncDecAttention.o",
            None,
        )
        for number in BLOCKS
    },
}
every_version = pytest.mark.parametrize("name", TEXT_TO_TEXT)


def masks(layer: Layer, units: str, gone: slice) -> dict[str, Tensor]:
    chosen = {
        kind: torch.ones(layer.size_of(kind), dtype=torch.bool)
        for kind in (QUERY_KEY, VALUE, NEURONS)
    }
    for kind in (QUERY_KEY, VALUE) if units == VALUE else (NEURONS,):
        chosen[kind][gone] = False
    return chosen


@torch.no_grad()
def zero(layer: Layer, kept: dict[str, Tensor]) -> None:
    for linear, slices in layer.linear_layers():
        mask = along(slices, kept)
        linear.weight.mul_(mask[:, None] if slices.dim == ROWS else mask)


def close_inputs(model: nn.Module, path: str, gone: slice) -> None:
    def hook(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        closed = args[0].clone()
        closed[..., gone] = 0
        return (closed,)

    model.get_submodule(path).register_forward_pre_hook(hook)


@every_version
def test_layers_are_those_of_both_stacks(name: str) -> None:
    layers = layers_of(tiny_encoder(name))
    assert [layer.path for layer in layers] == list(OUTPUTS)
    for layer in layers:
        assert (layer.heads, layer.head_size) == (HEADS_PER_LAYER, HEAD_SIZE)
        assert layer.neurons == (0 if layer.path.endswith("layer.1") else INTERMEDIATE)


@pytest.mark.parametrize("units", [VALUE, NEURONS])
@every_version
def test_slices_of_a_unit_are_what_the_output_reads_of_it(name: str, units: str) -> None:
    gone = slice(2 * HEAD_SIZE, 3 * HEAD_SIZE) if units == VALUE else slice(5, 6)
    dense = states_of(tiny_encoder(name))
    for number, outputs in enumerate(OUTPUTS.values()):
        if (output := outputs[units == NEURONS]) is None:
            continue
        zeroed, hooked = tiny_encoder(name), tiny_encoder(name)
        layer = layers_of(zeroed)[number]
        zero(layer, masks(layer, units, gone))
        close_inputs(hooked, output, gone)
        expected = states_of(hooked)
        assert not torch.allclose(dense, expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(states_of(zeroed), expected, rtol=0, atol=1e-12)


@every_version
def test_units_own_every_linear_weight_of_both_stacks_once(name: str) -> None:
    model: Any = tiny_encoder(name)
    described = [linear for layer in layers_of(model) for linear, _ in layer.linear_layers()]
    stacks = [*model.encoder.modules(), *model.decoder.modules()]
    linear = {one for one in stacks if isinstance(one, nn.Linear)}
    assert len(described) == len(set(described))
    assert set(described) == linear


@every_version
def test_tied_matrices_count_once_and_to_the_embeddings(name: str) -> None:
    model: Any = tiny_encoder(name)
    counted = ParameterLedger.of(model).dense
    positions = 2 * 32 * HEADS_PER_LAYER
    assert counted["embeddings"] == model.shared.weight.numel() + positions
    assert sum(counted.values()) == sum(one.numel() for one in set(model.parameters()))


def test_matrix_that_scores_tokens_is_no_linear_layer_to_prune_if_it_is_not_tied() -> None:
    model: Any = tiny_encoder("t5_gated")
    tied = dict(ParameterLedger.of(model).dense)
    model.lm_head.weight = nn.Parameter(torch.randn_like(model.shared.weight))
    untied = ParameterLedger.of(model).dense
    assert untied == tied | {"embeddings": tied["embeddings"] + model.shared.weight.numel()}
    part = {owned.path: owned.part for owned in owned_parameters(model)}
    assert part["lm_head.weight"] == "embeddings"


@every_version
def test_cut_model_writes_with_a_cache_what_it_writes_without(name: str) -> None:
    model: Any = tiny_encoder(name)
    for number, layer in enumerate(layers_of(model)):
        head = slice(number % 3 * HEAD_SIZE, (number % 3 + 1) * HEAD_SIZE)
        kept = masks(layer, VALUE, head)
        zero(layer, kept)
        shrink_layer(layer, kept)
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    written = [model.generate(**tokens(), use_cache=cache, **options) for cache in (True, False)]
    assert written[0].shape == (3, 7)
    assert torch.equal(*written)


def test_layers_of_several_kinds_are_not_taken_for_those_of_an_encoder() -> None:
    with pytest.raises(ValueError, match="all of one kind, but T5ForConditionalGeneration has 3"):
        architecture_of(tiny_encoder("t5"))
