"""Weighted decompositions by hand, against numpy, and prices of ranks against all choices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from multiprune.pruning.decomposition import (
    closing_prices,
    decompose,
    input_root,
    row_weights,
    truncate,
)


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def test_inputs_that_are_large_are_kept_where_plain_decomposition_drops_them() -> None:
    # Singular values 3 and 2 of two directions, which are read at sizes 1 and 10.
    weight = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    root = input_root(torch.tensor([[1.0, 0.0], [0.0, 100.0]]), damping=0.0)
    # The mean of the diagonal is 50.5.
    torch.testing.assert_close(root.square(), torch.tensor([[1, 0], [0, 100]]).double() / 50.5)
    vectors, squares = decompose(weight, root=root)
    assert squares.tolist() == pytest.approx([4 * 100 / 50.5, 9 / 50.5])
    assert truncate(weight, vectors[:, :1]).tolist() == [[0, 0], [0, 2]]
    plain = decompose(weight)
    assert plain.squares.tolist() == pytest.approx([9, 4])
    assert truncate(weight, plain.vectors[:, :1]).tolist() == [[3, 0], [0, 0]]


def test_outputs_that_the_loss_feels_are_kept() -> None:
    weight = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    rows = row_weights(torch.tensor([1.0, 9.0]), damping=0.0)
    assert rows.square().tolist() == pytest.approx([0.2, 1.8])
    vectors, squares = decompose(weight, rows)
    assert squares.tolist() == pytest.approx([1.8 * 4, 0.2 * 9])
    torch.testing.assert_close(
        truncate(weight, vectors[:, :1], rows), torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    )


@pytest.mark.parametrize("kept", [1, 3, 5])
@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (6, 6)])
def test_without_weights_it_is_the_plain_decomposition(shape: tuple[int, int], kept: int) -> None:
    weight = matrix(*shape)
    left, values, right = np.linalg.svd(weight.numpy(), full_matrices=False)
    vectors, squares = decompose(weight)
    np.testing.assert_allclose(squares.numpy(), values**2)
    expected = left[:, :kept] * values[:kept] @ right[:kept]
    np.testing.assert_allclose(truncate(weight, vectors[:, :kept]).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("kept", [1, 2, 4])
@pytest.mark.parametrize("shape", [(5, 7), (7, 5)])
def test_weighted_error_is_the_tail_of_squared_singular_values(
    shape: tuple[int, int], kept: int
) -> None:
    weight, inputs = matrix(*shape), matrix(40, shape[1], seed=1) @ matrix(shape[1], shape[1], 2)
    rows = row_weights(matrix(shape[0], 1, seed=3)[:, 0].square(), damping=0.1)
    root = input_root(inputs.T @ inputs, damping=1e-4)
    vectors, squares = decompose(weight, rows, root)
    error = rows[:, None] * (weight - truncate(weight, vectors[:, :kept], rows)) @ root
    np.testing.assert_allclose(np.linalg.norm(error.numpy()) ** 2, squares[kept:].sum())
    # No other matrix of that rank has less, such as the nearest one without weights.
    plain = truncate(weight, decompose(weight).vectors[:, :kept])
    assert squares[kept:].sum() < (rows[:, None] * (weight - plain) @ root).square().sum()


def test_error_is_that_of_outputs_on_the_inputs_that_were_read() -> None:
    weight, inputs = matrix(4, 6), matrix(50, 6, seed=1) @ matrix(6, 6, seed=2)
    moment = inputs.T @ inputs
    vectors, squares = decompose(weight, root=input_root(moment, damping=1e-9))
    cut = truncate(weight, vectors[:, :2])
    outputs = (inputs @ (weight - cut).T).square().sum()
    scaled = squares[2:].sum() * moment.diagonal().mean()
    torch.testing.assert_close(outputs, scaled, rtol=1e-6, atol=0)


def test_all_ranks_together_are_the_matrix() -> None:
    weight = matrix(5, 7)
    rows = row_weights(matrix(5, 1, seed=3)[:, 0].square(), damping=0.1)
    vectors = decompose(weight, rows, input_root(matrix(7, 7) @ matrix(7, 7).T, 0.1)).vectors
    torch.testing.assert_close(truncate(weight, vectors, rows), weight)


def test_damping_is_a_fraction_of_the_mean_and_nothing_known_is_the_identity() -> None:
    # 1 and 3 are 0.5 and 1.5 of their mean; with 0.5 more and scaled back 2 / 3 and 4 / 3.
    assert row_weights(torch.tensor([1.0, 3.0]), 0.5).square().tolist() == pytest.approx(
        [2 / 3, 4 / 3]
    )
    root = input_root(torch.tensor([[1.0, 1.0], [1.0, 3.0]]), 0.5)
    torch.testing.assert_close(
        root @ root.T, torch.tensor([[2 / 3, 1 / 3], [1 / 3, 4 / 3]], dtype=torch.float64)
    )
    assert row_weights(torch.zeros(2), 0.5).tolist() == [1, 1]
    assert torch.equal(input_root(torch.zeros(2, 2), 0.5), torch.eye(2, dtype=torch.float64))


def test_prices_by_hand() -> None:
    losses = torch.tensor([50.0, 20.0, 9.0, 6.0, 1.0, 0.0], dtype=torch.float64)
    # A dense matrix of 36, ranks of 12: of 3 the factors are no smaller. Closing all but 2 loses
    # 16 for 12 parameters, all but 1 loses 36 for 24: the former is cheaper for each.
    prices = closing_prices(losses, cost=12, dense=36)
    assert prices.tolist() == pytest.approx([torch.inf, 20 / 12, *[16 / 12] * 4])
    # With a cheaper second rank it goes with the others.
    losses[1] = 12.0
    prices = closing_prices(losses, cost=12, dense=36)
    assert prices.tolist() == pytest.approx([torch.inf, *[28 / 24] * 5])
    assert closing_prices(losses[:1], cost=12, dense=36).tolist() == [torch.inf]


@pytest.mark.parametrize("seed", range(5))
def test_closing_by_price_has_the_least_loss_for_what_it_saves(seed: int) -> None:
    """Against all choices of ranks of three matrices, wherever no group of equals is split."""
    shapes = [(4, 6), (5, 5), (6, 8)]
    losses = [
        matrix(min(shape), 1, seed=10 * seed + number)[:, 0].square().sort(descending=True).values
        for number, shape in enumerate(shapes)
    ]
    costs, sizes = [sum(shape) for shape in shapes], [a * b for a, b in shapes]

    def outcome(kept: tuple[int, ...]) -> tuple[int, float]:
        saved, lost = 0, 0.0
        for ranks, loss, cost, size in zip(kept, losses, costs, sizes, strict=True):
            if ranks * cost < size:
                saved += size - ranks * cost
                lost += float(loss[ranks:].sum())
        return saved, lost

    choices = [
        outcome(kept) for kept in itertools.product(*(range(1, min(one) + 1) for one in shapes))
    ]
    prices = [
        closing_prices(loss, cost, size)
        for loss, cost, size in zip(losses, costs, sizes, strict=True)
    ]
    assert all((one[1:].diff() <= 1e-12).all() for one in prices)
    for price in sorted(set(torch.cat(prices).tolist()) - {torch.inf}):
        kept = tuple(int((one > price).sum()) for one in prices)
        saved, lost = outcome(kept)
        assert lost == pytest.approx(min(loss for more, loss in choices if more >= saved))
