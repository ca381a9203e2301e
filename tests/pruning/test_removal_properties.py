"""Units that go, over drawn encoders: parts are nested, and little room is left."""

from __future__ import annotations

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st
from slow_removal import dense, random_scores
from strategies import seeds

from multiprune.models.architectures import NEURONS as NEURON_UNITS
from multiprune.models.architectures import VALUE
from multiprune.pruning.removal import (
    BLOCKS,
    GRANULARITIES,
    NEURONS,
    Kept,
    UnitCosts,
    largest_unit,
    relative_scores,
    smallest_size,
)
from multiprune.pruning.removal_order import removal_order, remove_least_important

Shape = tuple[int, int, int]
shapes = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 8)), min_size=1, max_size=4
)
costs = st.builds(UnitCosts, st.integers(1, 12), st.integers(1, 9), st.integers(0, 9))
granularities = st.sets(st.sampled_from(GRANULARITIES), min_size=1).map(sorted)


def left(kept: list[Kept], of: list[UnitCosts]) -> int:
    return sum(one.size(cost) for one, cost in zip(kept, of, strict=True))


def counted(kept: Kept, cost: UnitCosts) -> int:
    """Count a layer's parameters by its masks alone."""
    values = int((kept.value & kept.heads[:, None]).sum())
    queries = int((kept.query_key & kept.heads[:, None]).sum())
    assert values == queries
    rest = cost.rest if kept.heads.any() or kept.neurons.any() else 0
    return values * cost.head_dimension + int(kept.neurons.sum()) * cost.neuron + rest


@given(shapes, costs, granularities, seeds, st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_rankings_meet_the_size_with_less_than_the_largest_unit_to_spare(
    drawn: list[Shape], cost: UnitCosts, kinds: list[str], seed: int, amounts: list[float]
) -> None:
    generator, of = torch.Generator().manual_seed(seed), [cost] * len(drawn)
    kept = [dense(*shape) for shape in drawn]
    whole, least = left(kept, of), smallest_size(of, kept, kinds)
    spare = largest_unit(of, kept, kinds) - 1
    final = least + int((whole - least) * min(amounts))
    for amount in [*sorted(amounts, reverse=True), 0.0]:
        before = copy.deepcopy(kept)
        size = max(final, final + int((whole - final) * amount)) if amount else final
        scores = relative_scores([random_scores(generator, *shape) for shape in drawn], kept)
        remove_least_important(scores, kept, of, size=size, granularity=kinds, final=final)
        for one, earlier in zip(kept, before, strict=True):
            # What is gone stays gone.
            assert not any((vars(one)[kind] & ~mask).any() for kind, mask in vars(earlier).items())
        assert [one.size(cost) for one in kept] == [counted(one, cost) for one in kept]
        assert left(kept, of) >= final - spare
    assert final - spare <= left(kept, of) <= final
    assert any(not one.dropped for one in kept)
    for one in kept:
        if not one.dropped:
            assert one.dimensions >= 1
            assert one.neurons.any() or BLOCKS in kinds


@given(shapes, st.integers(1, 12), st.integers(1, 9), granularities, seeds, st.floats(0, 1))
def test_where_neurons_go_less_than_the_smallest_unit_is_left(
    drawn: list[Shape], dimension: int, neuron: int, kinds: list[str], seed: int, amount: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Enough neurons for the room that any other unit leaves.
    many = -(-4 * 4 * dimension // neuron) + 3
    same = [(heads, size, many) for heads, size, _ in drawn]
    of, kinds = [UnitCosts(dimension, neuron, 0)] * len(same), sorted({*kinds, NEURONS})
    kept = [dense(*shape) for shape in same]
    whole = left(kept, of)
    size = int(whole * (0.6 + 0.4 * amount))
    if smallest_size(of, kept, kinds) > size or neuron > dimension:
        return
    scores = relative_scores([random_scores(generator, *shape) for shape in same], kept)
    remove_least_important(scores, kept, of, size=size, granularity=kinds)
    assert size - neuron < left(kept, of) <= size


@given(shapes, st.lists(costs, min_size=4, max_size=4), granularities, seeds, st.data())
def test_the_part_of_every_size_holds_all_smaller_ones(
    drawn: list[Shape], each: list[UnitCosts], kinds: list[str], seed: int, data: st.DataObject
) -> None:
    generator, of = torch.Generator().manual_seed(seed), each[: len(drawn)]
    kept = [dense(*shape) for shape in drawn]
    scores = relative_scores([random_scores(generator, *shape) for shape in drawn], kept)
    order = removal_order(scores, kept, of, size=0, granularity=kinds)
    sizes = order.sizes.tolist()
    assert sizes == sorted({*sizes}, reverse=True)
    assert sizes[0] == left(kept, of)
    larger, smaller = sorted(data.draw(st.lists(st.integers(0, sizes[0]), min_size=2, max_size=2)))[
        ::-1
    ]
    first, second = order.removals_for(larger), order.removals_for(smaller)
    assert first <= second
    for size, removals in ((larger, first), (smaller, second)):
        fitting = [number for number, one in enumerate(sizes) if one <= size]
        assert removals == (fitting[0] if fitting else order.smallest)
        parts = order.units(removals)
        counted_parts = 0
        for part, cost in zip(parts, of, strict=True):
            counted_parts += int(part[VALUE].sum()) * cost.head_dimension
            counted_parts += int(part[NEURON_UNITS].sum()) * cost.neuron
            counted_parts += cost.rest if part[VALUE].any() or part[NEURON_UNITS].any() else 0
        assert counted_parts == sizes[removals]
    for outer, inner in zip(order.units(first), order.units(second), strict=True):
        assert not any((inner[kind] & ~mask).any() for kind, mask in outer.items())


@given(shapes, costs, granularities, seeds, st.data())
def test_removing_down_to_a_size_is_the_start_of_the_whole_order_until_units_are_passed_over(
    drawn: list[Shape], cost: UnitCosts, kinds: list[str], seed: int, data: st.DataObject
) -> None:
    generator, of = torch.Generator().manual_seed(seed), [cost] * len(drawn)
    kept = [dense(*shape) for shape in drawn]
    scores = relative_scores([random_scores(generator, *shape) for shape in drawn], kept)
    order = removal_order(scores, kept, of, size=0, granularity=kinds)
    # A size that the whole order comes to is met by the same removals.
    size = data.draw(st.sampled_from(order.sizes.tolist()))
    remove_least_important(scores, kept, of, size=size, granularity=kinds)
    assert left(kept, of) == size


@given(shapes, st.lists(costs, min_size=4, max_size=4), granularities, seeds, st.floats(0, 1))
def test_no_unit_that_went_would_fit_into_the_room_that_is_left(
    drawn: list[Shape], each: list[UnitCosts], kinds: list[str], seed: int, amount: float
) -> None:
    generator, of = torch.Generator().manual_seed(seed), each[: len(drawn)]
    kept = [dense(*shape) for shape in drawn]
    whole, least = left(kept, of), smallest_size(of, kept, kinds)
    size = least + int((whole - least) * amount)
    scores = relative_scores([random_scores(generator, *shape) for shape in drawn], kept)
    remove_least_important(scores, kept, of, size=size, granularity=kinds)
    room = size - left(kept, of)
    assert room >= 0
    for one, cost in zip(kept, of, strict=True):
        # Of a block that went as a whole no unit can come back alone.
        if one.heads.any():
            assert one.heads.all() or one.dimensions * cost.head_dimension > room
        if one.neurons.any():
            assert one.neurons.all() or cost.neuron > room
