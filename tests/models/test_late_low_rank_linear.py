"""A layer that is dense until it is factorised, held against the dense one and against factors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from multiprune.models.late_low_rank import LateLowRankLinear
from multiprune.models.low_rank import LowRankLinear


def linear(*, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 4, bias=bias).double()


def inputs() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 5, 6, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("bias", [True, False])
def test_until_it_is_cut_it_is_the_dense_layer(bias: bool) -> None:
    dense = linear(bias=bias)
    layer = LateLowRankLinear.from_linear(dense)
    assert layer.is_dense
    assert (layer.in_features, layer.out_features, layer.rank) == (6, 4, 4)
    assert torch.equal(layer(inputs()), dense(inputs()))
    assert sum(one.numel() for one in layer.parameters()) == 24 + 4 * bias
    shipped = layer.merged()
    assert shipped.weight is layer.up.weight
    assert torch.equal(shipped(inputs()), dense(inputs()))


def test_kept_ranks_are_those_of_the_full_factorisation() -> None:
    layer, factored = LateLowRankLinear.from_linear(linear()), LowRankLinear.from_linear(linear())
    for one in (layer, factored):
        one.keep_ranks(torch.tensor([0, 1, 3]))
    assert (layer.rank, layer.is_dense) == (3, False)
    assert (layer.down.out_features, layer.up.in_features) == (3, 3)
    assert torch.equal(layer(inputs()), factored(inputs()))
    for one in (layer, factored):  # once more, as factors are cut
        one.keep_ranks(torch.tensor([1]))
    assert torch.equal(layer.merged().weight, factored.merged().weight)


def test_optimizer_owns_both_factors_and_forgets_the_dense_matrix() -> None:
    layer = LateLowRankLinear.from_linear(linear())
    optimizer = AdamW(layer.parameters(), lr=0.1)
    layer(inputs()).square().sum().backward()
    optimizer.step()
    assert set(optimizer.state) == {layer.up.weight, layer.up.bias}
    layer.keep_ranks(torch.tensor([0, 1]), optimizer)
    owned = [one for group in optimizer.param_groups for one in group["params"]]
    assert {id(one) for one in owned} == {id(one) for one in layer.parameters()}
    assert set(optimizer.state) == {layer.up.bias}
    before = [one.clone() for one in layer.parameters()]
    optimizer.zero_grad()
    layer(inputs()).square().sum().backward()
    optimizer.step()
    assert not any(map(torch.equal, before, layer.parameters()))


@pytest.mark.parametrize(("saved_rank", "loaded_rank"), [(4, 2), (2, 4), (2, 3)])
def test_state_of_either_form_makes_the_layer_that(saved_rank: int, loaded_rank: int) -> None:
    def layer_of(rank: int) -> LateLowRankLinear:
        layer = LateLowRankLinear.from_linear(linear())
        if rank < 4:
            layer.keep_ranks(torch.arange(rank))
        return layer

    saved, layer = layer_of(saved_rank), layer_of(loaded_rank)
    parameters = list(layer.parameters())
    layer.load_state_dict(copy.deepcopy(saved.state_dict()))
    assert layer.is_dense is saved.is_dense
    assert (layer.rank, layer.down.out_features) == (saved.rank, saved.down.out_features)
    assert torch.equal(layer(inputs()), saved(inputs()))
    # An optimizer that was made before keeps what it holds.
    assert [id(one) for one in parameters] == [id(one) for one in layer.parameters()]


def test_state_that_is_of_another_layer_is_refused() -> None:
    state = LateLowRankLinear.from_linear(nn.Linear(7, 4).double()).state_dict()
    with pytest.raises(RuntimeError, match="size mismatch"):
        LateLowRankLinear.from_linear(linear()).load_state_dict(state)


@pytest.mark.parametrize("bias", [True, False])
def test_every_parameter_has_a_gradient_where_processes_wait_for_it(
    bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, dense = LateLowRankLinear.from_linear(linear(bias=bias)), linear(bias=bias)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert torch.equal(layer(inputs()), dense(inputs()))
    layer(inputs()).sum().backward()
    assert all(one.grad is not None for one in layer.parameters())
