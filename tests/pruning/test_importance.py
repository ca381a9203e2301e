"""Importance of units: against gates that autograd differentiates, and by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_encoders import CONFIGS, HEAD_SIZE, HEADS_PER_LAYER, HIDDEN, states_of, tiny_encoder
from torch import Tensor, nn

from multiprune.models.structure import layers_of
from multiprune.pruning.importance import (
    GateFisher,
    GateGradient,
    Importance,
    RandomImportance,
    Scores,
    WeightMagnitude,
    relative_to_layer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from multiprune.models.structure import Layer

every_architecture = pytest.mark.parametrize("name", CONFIGS)

#: The query projection, and what reads values and neurons, of a layer.
MODULES = {
    "deberta": ("attention.self.query_proj", "attention.output.dense", "output.dense"),
    "distilbert": ("attention.q_lin", "attention.out_lin", "ffn.lin2"),
    "mpnet": ("attention.attn.q", "attention.attn.o", "output.dense"),
    "modernbert": ("attn.Wqkv", "attn.Wo", "mlp.Wo"),
    "albert": ("attention.query", "attention.dense", "ffn_output"),
}
_BERT = ("attention.self.query", "attention.output.dense", "output.dense")


class Gates:
    """Factors of 1 on everything that may go, multiplied in by hooks."""

    def __init__(self, encoder: nn.Module, layer: Layer, name: str) -> None:
        def ones(*shape: int) -> Tensor:
            return torch.ones(shape, dtype=torch.float64, requires_grad=True)

        self.heads, self.neurons = ones(HEADS_PER_LAYER), ones(layer.neurons)
        self.query, self.value = ones(HEADS_PER_LAYER, HEAD_SIZE), ones(HEADS_PER_LAYER, HEAD_SIZE)
        self.blocks, self.layer = ones(2), ones()
        query, values, neurons = (
            encoder.get_submodule(f"{layer.path}.{path}")
            for path in MODULES.get(name.partition("_")[0], _BERT)
        )

        def close_values(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            gates = self.layer * self.blocks[0] * self.heads[:, None] * self.value
            return (args[0] * gates.reshape(-1),)

        def close_neurons(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            return (args[0] * self.layer * self.blocks[1] * self.neurons,)

        def close_query(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            rest = torch.ones(output.shape[-1] - HIDDEN)  # ModernBERT's key and value
            return output * torch.cat([self.query.reshape(-1), rest])

        query.register_forward_hook(close_query)
        values.register_forward_pre_hook(close_values)
        neurons.register_forward_pre_hook(close_neurons)

    def gradients(self) -> Scores:
        def gradient(gate: Tensor) -> Tensor:
            assert gate.grad is not None
            return gate.grad.abs()

        return Scores(
            heads=gradient(self.heads),
            query_key=gradient(self.query),
            value=gradient(self.value),
            neurons=gradient(self.neurons),
            blocks=gradient(self.blocks),
            layer=gradient(self.layer),
        )


def loss_of(encoder: nn.Module, number: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    direction = torch.randn(HIDDEN, generator=generator, dtype=torch.float64)
    return (states_of(encoder, number) @ direction).sin().sum()


def assert_close(actual: Scores, expected: Scores) -> None:
    for kind, one in vars(expected).items():
        # That of a layer is a sum in which much may cancel.
        largest = float((expected.value.sum() if kind == "layer" else one).abs().max())
        torch.testing.assert_close(
            getattr(actual, kind).double(), one, rtol=1e-5, atol=1e-6 * largest, msg=kind
        )


@pytest.mark.parametrize(("method", "power"), [(GateGradient, 1), (GateFisher, 2)])
@every_architecture
def test_gradients_of_gates_are_those_of_gates_in_the_graph(
    name: str, method: type[GateGradient], power: int
) -> None:
    encoder, importance = tiny_encoder(name), method(smoothing=0.5)
    layers = layers_of(encoder)
    gates = [Gates(encoder, layer, name) for layer in layers]
    for micro_batch in range(2):
        loss_of(encoder, micro_batch).backward()  # type: ignore[no-untyped-call]
    for number, (layer, gate) in enumerate(zip(layers, gates, strict=True)):
        of = gate.gradients()
        assert all(one.max() > 1e-3 for one in vars(of).values())
        expected = Scores(*(one**power for one in vars(of).values()))
        assert_close(importance.measure(layer, number), expected)


def test_layer_without_gradients_does_not_matter() -> None:
    encoder = tiny_encoder("bert")
    layer = layers_of(encoder)[0]
    scores = GateGradient(smoothing=0.0).measure(layer, 0)
    assert all(not one.any() for one in vars(scores).values())
    assert scores.value.shape == (HEADS_PER_LAYER, HEAD_SIZE)


def test_frozen_bias_is_no_gate() -> None:
    encoder = tiny_encoder("bert")
    layer = layers_of(encoder)[0]
    query = layer.attention.get_submodule("query")
    assert isinstance(query, nn.Linear)
    query.bias.requires_grad_(False)
    loss_of(encoder).backward()  # type: ignore[no-untyped-call]
    assert query.weight.grad is not None
    expected = (query.weight * query.weight.grad).sum(1).abs().view(HEADS_PER_LAYER, HEAD_SIZE)
    actual = GateGradient(smoothing=0.0).measure(layer, 0).query_key
    torch.testing.assert_close(actual, expected.float())


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_forgets_and_remembers(smoothing: float) -> None:
    with pytest.raises(ValueError, match=rf"in \[0, 1\), but is {smoothing}"):
        GateGradient(smoothing=smoothing)


def norm(*parts: Tensor) -> float:
    return float(torch.cat([part.reshape(-1) for part in parts]).detach().norm())


def test_magnitude_is_the_norm_of_the_weights_of_a_unit() -> None:
    encoder: Any = tiny_encoder("bert")
    scores = WeightMagnitude().measure(layers_of(encoder)[1], 1)
    layer = encoder.encoder.layer[1]
    projections = layer.attention.self
    query, key = projections.query.weight, projections.key.weight
    value, output = projections.value.weight, layer.attention.output.dense.weight
    first, second = layer.intermediate.dense.weight, layer.output.dense.weight
    head = slice(HEAD_SIZE, 2 * HEAD_SIZE)
    assert float(scores.heads[1]) == pytest.approx(
        norm(query[head], key[head], value[head], output[:, head]), rel=1e-5
    )
    one = 2 * HEAD_SIZE + 3
    assert float(scores.query_key[2, 3]) == pytest.approx(norm(query[one], key[one]), rel=1e-5)
    assert float(scores.value[2, 3]) == pytest.approx(norm(value[one], output[:, one]), rel=1e-5)
    assert float(scores.neurons[5]) == pytest.approx(norm(first[5], second[:, 5]), rel=1e-5)
    everything = norm(query, key, value, output, first, second)
    assert float(scores.layer) == pytest.approx(everything, rel=1e-5)


def test_magnitude_of_fused_layers_is_that_of_their_parts() -> None:
    encoder: Any = tiny_encoder("modernbert")
    scores = WeightMagnitude().measure(layers_of(encoder)[0], 0)
    layer = encoder.layers[0]
    query, key, value = layer.attn.Wqkv.weight.split(HIDDEN)
    up, gate = layer.mlp.Wi.weight.chunk(2)
    one = HEAD_SIZE + 2
    assert float(scores.query_key[1, 2]) == pytest.approx(norm(query[one], key[one]), rel=1e-5)
    assert float(scores.value[1, 2]) == pytest.approx(
        norm(value[one], layer.attn.Wo.weight[:, one]), rel=1e-5
    )
    assert float(scores.neurons[4]) == pytest.approx(
        norm(up[4], gate[4], layer.mlp.Wo.weight[:, 4]), rel=1e-5
    )


def test_magnitude_counts_the_positions_of_deberta() -> None:
    encoder: Any = tiny_encoder("deberta")
    scores = WeightMagnitude().measure(layers_of(encoder)[0], 0)
    own = encoder.encoder.layer[0].attention.self
    four = (own.query_proj, own.key_proj, own.pos_query_proj, own.pos_key_proj)
    expected = norm(*(linear.weight[9] for linear in four))
    assert float(scores.query_key[1, 1]) == pytest.approx(expected, rel=1e-5)


def test_random_importance_depends_on_seed_and_layer_alone() -> None:
    layers = layers_of(tiny_encoder("bert"))
    first = RandomImportance(seed=3).measure(layers[0], 0)
    torch.manual_seed(99)
    torch.rand(5)
    again = RandomImportance(seed=3).measure(layers_of(tiny_encoder("bert", seed=1))[0], 0)
    for kind, scores in vars(first).items():
        assert torch.equal(getattr(again, kind), scores)
    others = [
        RandomImportance(seed=3).measure(layers[1], 1),
        RandomImportance(seed=4).measure(layers[0], 0),
    ]
    for other in others:
        assert not any(torch.equal(getattr(other, kind), one) for kind, one in vars(first).items())


def test_random_importance_leaves_the_global_generator_alone() -> None:
    layer = layers_of(tiny_encoder("bert"))[0]
    before = torch.get_rng_state()
    RandomImportance().measure(layer, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "make",
    [lambda: GateGradient(smoothing=0.0), WeightMagnitude, RandomImportance],
    ids=["gradient", "magnitude", "random"],
)
def test_scores_have_the_shapes_that_they_say(make: Callable[[], Importance]) -> None:
    layer = layers_of(tiny_encoder("distilbert", dtype=torch.bfloat16))[0]
    scores = make().measure(layer, 0)
    assert {kind: tuple(one.shape) for kind, one in vars(scores).items()} == {
        "heads": (HEADS_PER_LAYER,),
        "query_key": (HEADS_PER_LAYER, HEAD_SIZE),
        "value": (HEADS_PER_LAYER, HEAD_SIZE),
        "neurons": (layer.neurons,),
        "blocks": (2,),
        "layer": (),
    }
    assert all(one.dtype == torch.float32 for one in vars(scores).values())


def test_scores_are_relative_to_the_root_mean_square_of_what_is_kept() -> None:
    scores = torch.tensor([3.0, 4.0, 100.0])
    kept = torch.tensor([True, True, False])
    # sqrt((9 + 16) / 2)
    expected = scores / 12.5**0.5
    torch.testing.assert_close(relative_to_layer(scores, kept), expected)


def test_relative_scores_do_not_depend_on_scale_or_number() -> None:
    scores = torch.tensor([1.0, 2.0, 3.0])
    kept = torch.ones(3, dtype=torch.bool)
    expected = relative_to_layer(scores, kept)
    for factor in (1e-12, 1e12):
        torch.testing.assert_close(relative_to_layer(factor * scores, kept), expected)
    doubled = relative_to_layer(scores.repeat(2), kept.repeat(2))
    torch.testing.assert_close(doubled, expected.repeat(2))


def test_relative_scores_of_zeros_are_zeros() -> None:
    zeros = torch.zeros(3)
    assert torch.equal(relative_to_layer(zeros, torch.ones(3, dtype=torch.bool)), zeros)
