"""Factorised layers, against the dense layer that they stand for."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from multiprune.models.low_rank import LowRankLinear

SHAPES = [(6, 8), (8, 5), (4, 4), (1, 3), (3, 1)]


def linear(in_features: int = 6, out_features: int = 8, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(in_features, out_features, bias=bias, dtype=torch.float64)


def states(features: int = 6) -> Tensor:
    return torch.randn(2, 3, features, dtype=torch.float64)


def factored(in_features: int = 6, out_features: int = 8) -> LowRankLinear:
    return LowRankLinear.from_linear(linear(in_features, out_features))


def train_step(layer: nn.Module, optimizer: AdamW, inputs: Tensor) -> None:
    optimizer.zero_grad()
    layer(inputs).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_full_rank_computes_what_the_dense_layer_does(shape: tuple[int, int], bias: bool) -> None:
    dense = linear(*shape, bias=bias)
    layer = LowRankLinear.from_linear(dense)
    inputs = states(shape[0])
    assert torch.allclose(layer(inputs), dense(inputs), rtol=0, atol=1e-12)
    assert (layer.in_features, layer.out_features, layer.rank) == (*shape, min(shape))
    assert layer.up.bias is dense.bias


def test_float32_is_kept_to_rounding() -> None:
    dense = linear().float()
    layer = LowRankLinear.from_linear(dense)
    assert layer.down.weight.dtype == layer.up.weight.dtype == torch.float32
    inputs = states().float()
    assert torch.allclose(layer(inputs), dense(inputs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_lower_rank_is_the_best_approximation(rank: int) -> None:
    # Eckart & Young: the squared error is the sum of the squared singular values left out.
    dense = linear()
    layer = LowRankLinear.from_linear(dense, rank)
    values = torch.linalg.svdvals(dense.weight)
    error = (layer.merged().weight - dense.weight).square().sum()
    assert torch.allclose(error, values[rank:].square().sum())


def test_factors_are_balanced_and_largest_first() -> None:
    layer = factored()
    up, down = layer.up.weight.norm(dim=0), layer.down.weight.norm(dim=1)
    assert torch.allclose(up, down)
    assert torch.equal(up.sort(descending=True).values, up)
    assert all(parameter.is_contiguous() for parameter in layer.parameters())


@pytest.mark.parametrize("rank", [0, 7])
def test_rank_that_a_matrix_cannot_have_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=r"`rank` must be in \[1, 6\], but is"):
        LowRankLinear.from_linear(linear(), rank)


@pytest.mark.parametrize(("shape", "breakeven"), [((6, 8), 3), ((768, 768), 384), ((1, 3), 0)])
def test_breakeven_is_the_last_rank_that_costs_no_more(
    shape: tuple[int, int], breakeven: int
) -> None:
    layer = LowRankLinear(*shape, rank=1, device="meta")
    assert layer.breakeven == breakeven
    assert breakeven * sum(shape) <= shape[0] * shape[1] < (breakeven + 1) * sum(shape)


def test_factorising_draws_no_random_numbers_and_keeps_the_mode() -> None:
    dense = linear().eval().requires_grad_(False)
    state = torch.get_rng_state()
    layer = LowRankLinear.from_linear(dense)
    assert torch.equal(torch.get_rng_state(), state)
    assert not layer.training
    assert not layer.up.training
    assert not any(parameter.requires_grad for parameter in layer.parameters())


def with_gates() -> LowRankLinear:
    layer = factored()
    layer.gate = torch.tensor([0.0, 0.5, 1.0, 1.0, 0.2, 0.0], dtype=torch.float64)
    layer.evaluation_gate = torch.tensor([1.0, 0.1, 0.0, 0.3, 1.0, 1.0], dtype=torch.float64)
    return layer


@pytest.mark.parametrize("training", [True, False])
def test_gates_multiply_between_the_factors(training: bool) -> None:
    layer, inputs = with_gates().train(training), states()
    gate = layer.gate if training else layer.evaluation_gate
    assert gate is not None
    weight = layer.up.weight @ gate.diag() @ layer.down.weight
    expected = inputs @ weight.T + layer.up.bias
    assert torch.allclose(layer(inputs), expected, rtol=0, atol=1e-12)


def test_merged_layer_computes_what_evaluation_does() -> None:
    layer, inputs = with_gates().eval(), states()
    merged = layer.merged()
    assert type(merged) is nn.Linear
    assert torch.allclose(merged(inputs), layer(inputs), rtol=0, atol=1e-12)
    assert merged.bias is layer.up.bias
    assert (merged.in_features, merged.out_features) == (6, 8)


def test_gates_are_used_in_the_format_of_what_they_multiply() -> None:
    layer = with_gates().float()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(states().float()).dtype == torch.bfloat16


@pytest.mark.parametrize("training", [True, False])
def test_kept_ranks_compute_what_gates_at_zero_do(training: bool) -> None:
    layer, inputs = with_gates().train(training), states()
    gate = layer.gate if training else layer.evaluation_gate
    assert gate is not None
    expected = layer(inputs)
    layer.keep_ranks(gate.nonzero()[:, 0])
    assert torch.allclose(layer(inputs), expected, rtol=0, atol=1e-12)
    assert layer.rank == layer.down.out_features == layer.up.in_features == gate.count_nonzero()


def test_optimizer_goes_on_as_if_the_cut_ranks_had_been_zero() -> None:
    index = torch.tensor([0, 2, 5])
    closed = torch.tensor([1, 3, 4])
    cut, masked = factored(), factored()
    optimizers = [AdamW(layer.parameters(), lr=0.01) for layer in (cut, masked)]
    inputs = states()
    for layer, optimizer in zip((cut, masked), optimizers, strict=True):
        train_step(layer, optimizer, inputs)
        layer.up.weight.data[:, closed] = 0
        layer.down.weight.data[closed] = 0
    cut.keep_ranks(index, optimizers[0])
    for layer, optimizer in zip((cut, masked), optimizers, strict=True):
        train_step(layer, optimizer, inputs)
    assert torch.allclose(cut.up.weight, masked.up.weight[:, index], rtol=0, atol=1e-12)
    assert torch.allclose(cut.down.weight, masked.down.weight[index], rtol=0, atol=1e-12)


def test_state_dict_resizes_the_layer_both_ways() -> None:
    whole, cut, inputs = with_gates(), with_gates(), states()
    cut.keep_ranks(torch.tensor([1, 2]))
    kept = dict(whole.named_parameters())
    for source in (cut, with_gates()):
        whole.load_state_dict(source.state_dict())
        assert torch.equal(whole(inputs), source(inputs))
        assert whole.rank == whole.down.out_features == source.rank
        assert all(dict(whole.named_parameters())[name] is one for name, one in kept.items())


def test_loading_into_a_copy_leaves_the_original_alone() -> None:
    original, small = factored(), factored()
    small.keep_ranks(torch.tensor([0]))
    copied = copy.deepcopy(original)
    copied.load_state_dict(small.state_dict())
    assert (original.rank, copied.rank) == (6, 1)


def test_state_dict_of_another_layer_is_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        factored().load_state_dict(factored(7, 8).state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        factored().load_state_dict(linear().state_dict())
