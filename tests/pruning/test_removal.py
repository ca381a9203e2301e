"""What goes, and in which order: by hand, and against a slow implementation of the rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from slow_removal import assert_equal, dense, random_scores, slow_layer, slow_removal
from torch import Tensor

from multiprune.pruning.importance import Scores
from multiprune.pruning.removal import (
    BLOCKS,
    GRANULARITIES,
    HEAD_DIMENSIONS,
    HEADS,
    LAYERS,
    NEURONS,
    Kept,
    UnitCosts,
    relative_scores,
    scores_per_parameter,
    smallest_size,
)
from multiprune.pruning.removal_order import remove_least_important

COSTS = UnitCosts(head_dimension=10, neuron=3, rest=0)


def scores(
    heads: list[float], neurons: list[float], *, layer: float = 1.0, size: int = 2
) -> Scores:
    dimensions = torch.ones(len(heads), size)
    return Scores(
        torch.tensor(heads).float(),
        dimensions,
        dimensions,
        torch.tensor(neurons).float(),
        torch.tensor([layer, layer]).float(),
        torch.tensor(layer).float(),
    )


def removed(
    of: list[Scores],
    size: int,
    *granularity: str,
    kept: list[Kept] | None = None,
    costs: UnitCosts = COSTS,
) -> list[Kept]:
    kept = [dense() for _ in of] if kept is None else kept
    all_costs = [costs] * len(of)
    relative = relative_scores(of, kept)
    remove_least_important(relative, kept, all_costs, size=size, granularity=granularity)
    return kept


def bits(mask: Tensor) -> list[Any]:
    return mask.int().tolist()


# Two layers of 2 heads (20 each) and 3 neurons (3 each): 49 each.


def test_what_fits_already_is_left_alone() -> None:
    kept = removed([scores([1, 2], [1, 2, 3])] * 2, 98, *GRANULARITIES)
    assert all(mask.all() for one in kept for mask in vars(one).values())


def test_heads_and_neurons_go_by_what_they_are_relative_to_their_layer() -> None:
    # Heads: 1, 3 over sqrt(5) are .45, 1.34; 30, 40 over sqrt(1250) are .85, 1.13.
    # Neurons: all 1 in the first layer; 1, 1, 10 over sqrt(34) are .17, .17, 1.71 in the second.
    of = [scores([1, 3], [7, 7, 7]), scores([30, 40], [1, 1, 10])]
    # The order is: two neurons (3 each), the head of .45 (20), the head of .85 (20), ...
    sizes = [98 - 3, 98 - 6, 98 - 26, 98 - 46]
    expected = [
        ([1, 1], [1, 1, 1], [1, 1], [0, 1, 1]),
        ([1, 1], [1, 1, 1], [1, 1], [0, 0, 1]),
        ([0, 1], [1, 1, 1], [1, 1], [0, 0, 1]),
        ([0, 1], [1, 1, 1], [0, 1], [0, 0, 1]),
    ]
    for size, masks in zip(sizes, expected, strict=True):
        first, second = removed(of, size, HEADS, NEURONS)
        assert (
            bits(first.heads),
            bits(first.neurons),
            bits(second.heads),
            bits(second.neurons),
        ) == masks
        # One parameter less, and one more group goes.
        if size > sizes[-1]:
            less = removed(of, size - 1, HEADS, NEURONS)
            assert sum(one.size(COSTS) for one in less) < size


def test_what_may_not_go_stays() -> None:
    of = [scores([0.001, 3], [1, 2, 3])] * 2
    first, second = removed(of, 86, NEURONS)
    assert first.heads.all()
    assert second.heads.all()
    assert bits(first.neurons) == bits(second.neurons) == [0, 0, 1]


def test_every_layer_keeps_a_head_a_dimension_and_a_neuron() -> None:
    for one in removed([scores([1, 2], [3, 2, 1])] * 2, 0, HEADS, HEAD_DIMENSIONS, NEURONS):
        assert bits(one.heads) == [0, 1]
        assert one.dimensions == 1
        assert bits(one.neurons) == [1, 0, 0]
        assert not one.dropped


def test_one_layer_stays() -> None:
    of = [scores([1, 2], [1, 2, 3], layer=score) for score in (3.0, 1.0, 2.0)]
    kept = removed(of, 0, LAYERS)
    assert [one.dropped for one in kept] == [False, True, True]
    assert kept[0].heads.all()
    assert kept[0].neurons.all()
    assert [one.size(COSTS) for one in kept] == [49, 0, 0]


def test_layer_takes_along_what_it_has_left() -> None:
    # Layers: .1 and 1 over sqrt(.505) are .14 and 1.41; heads .45, 1.34 in both; the layer goes
    # first, and then no head of it is removed once more.
    of = [scores([1, 3], [7, 7, 7], layer=0.1), scores([1, 3], [7, 7, 7], layer=1.0)]
    kept = removed(of, 49, *GRANULARITIES)
    assert [one.dropped for one in kept] == [True, False]
    assert kept[1].size(COSTS) == 49
    kept = removed(of, 48, HEADS, LAYERS)
    assert bits(kept[1].heads) == [0, 1]


def test_rest_of_a_layer_goes_with_the_layer_only() -> None:
    costs = UnitCosts(head_dimension=10, neuron=3, rest=5)
    assert dense().size(costs) == 54
    kept = removed([scores([1, 2], [1, 2, 3])] * 2, 0, HEADS, NEURONS, costs=costs)
    assert [one.size(costs) for one in kept] == [28, 28]
    kept = removed([scores([1, 2], [1, 2, 3])] * 2, 54, LAYERS, costs=costs)
    assert sum(one.size(costs) for one in kept) == 54


def test_equal_scores_go_by_position_and_no_more_than_needed() -> None:
    equal = [scores([1, 1], [1, 1, 1])] * 2
    first, second = removed(equal, 98 - 3, NEURONS)
    assert (bits(first.neurons), bits(second.neurons)) == ([0, 1, 1], [1, 1, 1])
    first, second = removed(equal, 98 - 9, NEURONS)
    assert (bits(first.neurons), bits(second.neurons)) == ([0, 0, 1], [0, 1, 1])
    first, second = removed(equal, 98 - 1, HEADS)
    assert (bits(first.heads), bits(second.heads)) == ([0, 1], [1, 1])


def test_scores_of_zero_are_equal() -> None:
    zero = [scores([0, 0], [0, 0, 0], layer=0.0)] * 2
    kept = removed(zero, 98 - 20, *GRANULARITIES)
    assert sum(one.size(COSTS) for one in kept) <= 98 - 20


def test_each_head_loses_its_own_least_dimension() -> None:
    one = Scores(
        heads=torch.ones(2),
        query_key=torch.tensor([[1.0, 2, 3], [3, 2, 1]]),
        value=torch.tensor([[5.0, 4, 6], [9, 8, 8]]),
        neurons=torch.ones(3),
        blocks=torch.ones(2),
        layer=torch.tensor(1.0),
    )
    kept = removed([one], 40 + 9, HEAD_DIMENSIONS, kept=[dense(size=3)])[0]
    assert bits(kept.query_key) == [[0, 1, 1], [1, 1, 0]]
    # Of equal dimensions the last goes.
    assert bits(kept.value) == [[1, 0, 1], [1, 1, 0]]
    assert kept.dimensions == 2
    assert kept.size(COSTS) == 2 * 2 * 10 + 3 * 3


def test_dimension_of_fewer_heads_saves_less() -> None:
    # The head of 0.1 goes before any dimension, which then costs 10 instead of 20.
    one = scores([0.1, 1], [1, 1, 1])
    kept = removed([one], 29, HEADS, HEAD_DIMENSIONS)[0]
    assert (bits(kept.heads), kept.dimensions) == ([0, 1], 2)
    kept = removed([one], 28, HEADS, HEAD_DIMENSIONS)[0]
    assert (bits(kept.heads), kept.dimensions) == ([0, 1], 1)
    assert kept.size(COSTS) == 10 + 9


def test_what_is_gone_stays_gone() -> None:
    kept = [dense(), dense()]
    removed([scores([1, 2], [1, 2, 3])] * 2, 98 - 9, HEADS, NEURONS, kept=kept)
    before = [{kind: mask.clone() for kind, mask in vars(one).items()} for one in kept]
    # What is gone now scores highest.
    removed([scores([9, 2], [9, 8, 3])] * 2, 60, HEADS, NEURONS, kept=kept)
    for one, old in zip(kept, before, strict=True):
        for kind, mask in vars(one).items():
            assert not (mask & ~old[kind]).any()
    assert sum(one.size(COSTS) for one in kept) <= 60


def test_smallest_size_by_hand() -> None:
    costs = UnitCosts(head_dimension=10, neuron=3, rest=1)
    kept = [dense(), dense()]
    for granularity, expected in {
        (HEADS,): 2 * (20 + 9 + 1),
        (NEURONS,): 2 * (40 + 3 + 1),
        (HEAD_DIMENSIONS,): 2 * (20 + 9 + 1),
        (HEADS, NEURONS): 2 * (20 + 3 + 1),
        (HEADS, HEAD_DIMENSIONS, NEURONS): 2 * (10 + 3 + 1),
        (LAYERS,): 40 + 9 + 1,
        (BLOCKS,): 40 + 1,
        (BLOCKS, NEURONS): 40 + 1,
        GRANULARITIES: 10 + 1,
    }.items():
        assert smallest_size([costs, costs], kept, granularity) == expected


def test_smallest_size_does_not_choose_the_layer_that_stays() -> None:
    kept = [dense(heads=1), dense(heads=4)]
    least = smallest_size([COSTS, COSTS], kept, (LAYERS,))
    assert least == 4 * 20 + 9
    of = [scores([1], [1, 1, 1], layer=1.0), scores([1] * 4, [1, 1, 1], layer=2.0)]
    remaining = removed(of, least, LAYERS, kept=kept)
    assert sum(one.size(COSTS) for one in remaining) <= least


@pytest.mark.parametrize("seed", range(60))
def test_removal_is_that_of_the_slow_implementation(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    shapes = [(number(1, 4), number(1, 4), number(1, 6)) for _ in range(number(1, 4))]
    chosen = [kind for kind in GRANULARITIES if number(0, 3)] or [NEURONS]
    costs = [
        UnitCosts(number(1, 9), number(1, 9), number(0, 9), number(0, 5), number(0, 5))
        for _ in shapes
    ]
    kept = [dense(*shape) for shape in shapes]
    layers = [slow_layer(one) for one in kept]
    least = smallest_size(costs, kept, chosen)
    full = sum(one.size(cost) for one, cost in zip(kept, costs, strict=True))
    for part in (0.3, 0.6, 1.0):  # gradually: what is gone stays gone
        size = full - int((full - least) * part)
        of = [random_scores(generator, *shape) for shape in shapes]
        before = [{kind: mask.clone() for kind, mask in vars(one).items()} for one in kept]
        totals = slow_removal(of, layers, costs, size, chosen)
        relative = relative_scores(of, kept)
        remove_least_important(relative, kept, costs, size=size, granularity=chosen)
        assert_equal(kept, layers)
        left = sum(one.size(cost) for one, cost in zip(kept, costs, strict=True))
        assert left == totals[-1] <= size
        assert all(total > size for total in totals[:-1])
        for one, old in zip(kept, before, strict=True):
            assert not any((mask & ~old[kind]).any() for kind, mask in vars(one).items())


def test_losses_are_compared_per_parameter_they_save() -> None:
    # A head saves 20 parameters, a neuron 3: heads cost 1.5 and 2.5 for each, neurons 2, 1 and 3.
    of = [scores([30, 50], [6, 3, 9])]
    for size, heads, neurons in [
        (46, [1, 1], [1, 0, 1]),
        (26, [0, 1], [1, 0, 1]),
        (23, [0, 1], [0, 0, 1]),
    ]:
        kept = [dense()]
        per_parameter = scores_per_parameter(of, kept, [COSTS])
        remove_least_important(
            per_parameter, kept, [COSTS], size=size, granularity=(HEADS, NEURONS)
        )
        assert (bits(kept[0].heads), bits(kept[0].neurons)) == (heads, neurons)


def test_layers_and_dimensions_are_compared_per_parameter_too() -> None:
    # The first layer costs 2 for 49 parameters; a dimension of the second costs 2 heads * (1 + 1)
    # for 20 parameters, five times as much.
    of = [scores([1, 2], [9, 9, 9], layer=layer) for layer in (2.0, 100.0)]
    kept = [dense(), dense()]
    first, second = scores_per_parameter(of, kept, [COSTS] * 2)
    assert float(first.layer) == pytest.approx(2 / 49)
    lost = float((second.query_key + second.value)[:, 0].mean() / 2)
    assert lost == pytest.approx(2 * (1 + 1) / 20)
    remove_least_important(
        [first, second], kept, [COSTS] * 2, size=60, granularity=(LAYERS, HEAD_DIMENSIONS)
    )
    assert [one.dropped for one in kept] == [True, False]
    assert kept[1].dimensions == 2


def with_blocks(of: Scores, *blocks: float) -> Scores:
    return replace(of, blocks=torch.tensor(blocks).float())


def test_the_least_block_goes_alone_with_what_is_its_own() -> None:
    costs = UnitCosts(head_dimension=10, neuron=3, rest=5, attention=2, feed_forward=1)
    of = [
        with_blocks(scores([1, 1], [1, 1, 1]), 9, 1),
        with_blocks(scores([1, 1], [1, 1, 1]), 2, 8),
    ]
    full = 2 * (40 + 2 + 9 + 1 + 5)
    first, second = removed(of, full - (9 + 1), BLOCKS, costs=costs)
    assert [first.blocks.tolist(), second.blocks.tolist()] == [[True, False], [True, True]]
    assert first.size(costs) == 40 + 2 + 5
    first, second = removed(of, full - (9 + 1) - (40 + 2), BLOCKS, costs=costs)
    assert [first.blocks.tolist(), second.blocks.tolist()] == [[True, False], [False, True]]
    assert not first.dropped
    # What goes with a layer goes with its last block, and one block stays.
    first, second = removed(of, 42 + 5, BLOCKS, costs=costs)
    assert first.size(costs) == 42 + 5
    assert second.dropped


def test_units_go_in_place_of_a_block_that_is_too_large() -> None:
    of = [with_blocks(scores([5, 6], [7, 8, 9]), 1, 100)] * 2
    kept = removed(of, 98 - 20, HEADS, NEURONS, BLOCKS)
    assert [one.blocks.all().item() for one in kept] == [True, True]
    assert sum(int(one.heads.sum()) for one in kept) == 3
    assert sum(one.size(COSTS) for one in kept) == 98 - 20


def test_block_goes_before_or_after_its_units_as_their_scores_say() -> None:
    of = [with_blocks(scores([5, 6], [7, 8, 9]), 100, 1)] * 2
    kept = removed(of, 98 - 9, HEADS, NEURONS, BLOCKS)
    assert sorted(one.blocks.tolist() for one in kept) == [[True, False], [True, True]]
    assert all(one.heads.all() for one in kept)
