"""In which order units go, and what is left each time: beside a slow implementation of the rule."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from slow_removal import assert_equal, dense, random_scores, slow_layer, slow_removal

from multiprune.models.architectures import NEURONS as NEURON_UNITS
from multiprune.models.architectures import QUERY_KEY, VALUE
from multiprune.pruning.importance import Scores
from multiprune.pruning.removal import (
    GRANULARITIES,
    HEADS,
    LAYERS,
    NEURONS,
    Kept,
    UnitCosts,
    relative_scores,
)
from multiprune.pruning.removal_order import removal_order, remove_least_important

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.models.nested import RemovalOrder


class Case:
    """Layers, costs and scores, all random; some units may be gone already."""

    def __init__(self, seed: int, *, fresh: bool = False) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.shapes = [
            (self._number(1, 4), self._number(1, 4), self._number(1, 6))
            for _ in range(self._number(1, 4))
        ]
        self.granularity = [kind for kind in GRANULARITIES if self._number(0, 3)] or [NEURONS]
        self.costs = [
            UnitCosts(*(self._number(low, 9) for low in (1, 1, 0, 0, 0))) for _ in self.shapes
        ]
        self.kept = [dense(*shape) for shape in self.shapes]
        if not fresh and self._number(0, 1):
            remove_least_important(
                relative_scores(self.scores(), self.kept),
                self.kept,
                self.costs,
                size=int(0.7 * self.left(self.kept)),
                granularity=self.granularity,
            )

    def _number(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def scores(self) -> list[Scores]:
        return [random_scores(self.generator, *shape) for shape in self.shapes]

    def left(self, kept: Sequence[Kept]) -> int:
        return sum(one.size(cost) for one, cost in zip(kept, self.costs, strict=True))


def after(kept: Sequence[Kept], order: RemovalOrder, removals: int) -> list[Kept]:
    left = copy.deepcopy(list(kept))
    for one, layer in zip(left, order.layers, strict=True):
        one.leave(layer, removals)
    return left


@pytest.mark.parametrize("seed", range(40))
def test_each_removal_is_that_of_the_slow_implementation(seed: int) -> None:
    case = Case(seed)
    of = case.scores()
    relative = relative_scores(of, case.kept)
    order = removal_order(relative, case.kept, case.costs, size=0, granularity=case.granularity)
    assert order.smallest == len(order.sizes) - 1
    for removals, size in enumerate(order.sizes.tolist()):
        left = after(case.kept, order, removals)
        assert case.left(left) == size
        slow = [slow_layer(one) for one in case.kept]
        totals = slow_removal(of, slow, case.costs, size, case.granularity)
        assert totals == order.sizes[: removals + 1].tolist()
        assert_equal(left, slow)
        again = copy.deepcopy(case.kept)
        remove_least_important(relative, again, case.costs, size=size, granularity=case.granularity)
        for one, other in zip(again, left, strict=True):
            assert all(torch.equal(vars(one)[kind], mask) for kind, mask in vars(other).items())


@pytest.mark.parametrize("seed", range(20))
def test_every_size_holds_all_smaller_ones_and_sizes_fall(seed: int) -> None:
    case = Case(seed, fresh=True)
    relative = relative_scores(case.scores(), case.kept)
    order = removal_order(relative, case.kept, case.costs, size=0, granularity=case.granularity)
    assert order.sizes[0] == case.left(case.kept)
    assert (order.sizes.diff() < 0).all()
    for removals in range(order.smallest):
        for larger, smaller in zip(order.units(removals), order.units(removals + 1), strict=True):
            assert not any((mask & ~larger[kind]).any() for kind, mask in smaller.items())
    for units, kept in zip(order.units(0), case.kept, strict=True):
        assert all(mask.all() for mask in units.values())
        assert {kind: len(mask) for kind, mask in units.items()} == {
            QUERY_KEY: kept.query_key.numel(),
            VALUE: kept.value.numel(),
            NEURON_UNITS: len(kept.neurons),
        }


@pytest.mark.parametrize("rankings", [1, 20])
@pytest.mark.parametrize("seed", range(8))
def test_room_is_filled_down_to_less_than_the_smallest_unit(seed: int, rankings: int) -> None:
    case = Case(seed, fresh=True)
    case.costs = [UnitCosts(head_dimension=21, neuron=3, rest=5)] * len(case.shapes)
    shapes = [(heads, size, 20) for heads, size, _ in case.shapes]
    case.shapes, kinds = shapes, [*{*case.granularity, NEURONS}]
    whole = case.left([dense(*shape) for shape in shapes])
    for tenth in range(6, 10):
        kept, final = [dense(*shape) for shape in shapes], whole * tenth // 10
        for ranking in range(1, rankings + 1):
            remove_least_important(
                relative_scores(case.scores(), kept),
                kept,
                case.costs,
                size=whole - (whole - final) * ranking // rankings,
                granularity=kinds,
                final=final,
            )
            assert case.left(kept) > final - 3
        assert case.left(kept) <= final


# Two layers of 2 heads (20 each) and 3 neurons (3 each): 49 each.
BY_HAND = UnitCosts(head_dimension=10, neuron=3, rest=0)


def scores_by_hand(heads: list[float], neurons: list[float], layer: float) -> Scores:
    of_heads, of_neurons, of_layer = (torch.tensor(one).float() for one in (heads, neurons, layer))
    ones = torch.ones(2, 2)
    return Scores(of_heads, ones, ones, of_neurons, ones[0], of_layer)


def left_by_hand(of: list[Scores], size: int, *, final: int | None = None) -> list[Kept]:
    kept, kinds = [dense(), dense()], (HEADS, NEURONS, LAYERS)
    remove_least_important(of, kept, [BY_HAND] * 2, size=size, granularity=kinds, final=final)
    return kept


def test_a_head_that_would_leave_room_for_a_neuron_is_passed_over() -> None:
    of = [scores_by_hand([0.1, 9], [4, 5, 6], 9), scores_by_hand([9, 9], [1, 2, 3], 9)]
    first, second = left_by_hand(of, 98 - 20 + 2)  # 2 left over: no neuron fits
    assert first.heads.tolist() == [False, True]
    assert first.neurons.all()
    assert second.heads.all()
    assert second.neurons.all()
    first, second = left_by_hand(of, 98 - 6)  # 14 would be
    assert first.heads.all()
    assert second.neurons.tolist() == [False, False, True]


def test_of_a_layer_that_cannot_go_as_a_whole_the_least_important_units_go() -> None:
    of = [scores_by_hand([7, 8], [7, 8, 9], 0.1), scores_by_hand([1, 2], [1, 2, 3], 9)]
    first, second = left_by_hand(of, 98 - 23)
    assert (first.heads.tolist(), first.neurons.tolist()) == ([False, True], [False, True, True])
    assert second.heads.all()
    assert second.neurons.all()


def test_before_the_last_ranking_nothing_goes_that_would_leave_room_in_the_end() -> None:
    of = [scores_by_hand([0.1, 9], [4, 5, 6], 9), scores_by_hand([9, 9], [1, 2, 3], 9)]
    first, second = left_by_hand(of, 98 - 1, final=98 - 6)
    assert first.heads.all()
    assert second.neurons.tolist() == [False, True, True]
    first, _ = left_by_hand(of, 98 - 1, final=98 - 20)
    assert first.heads.tolist() == [False, True]


def test_least_number_of_removals_that_fit_a_size() -> None:
    case = Case(5, fresh=True)
    relative = relative_scores(case.scores(), case.kept)
    order = removal_order(relative, case.kept, case.costs, size=0, granularity=GRANULARITIES)
    sizes = order.sizes.tolist()
    for size in range(sizes[-1], sizes[0] + 3):
        assert order.removals_for(size) == next(k for k, one in enumerate(sizes) if one <= size)
    assert order.removals_for(sizes[-1] - 1) == order.smallest


def test_layer_that_goes_takes_all_it_has_left_at_once() -> None:
    # Of both layers one neuron goes (0.1), then the first layer (0.2), then heads of the second.
    of = [
        random_scores(torch.Generator().manual_seed(0), 2, 2, 3),
        random_scores(torch.Generator().manual_seed(1), 2, 2, 3),
    ]
    for number, score in enumerate(of):
        score.neurons.copy_(torch.tensor([0.1 + 0.01 * number, 5, 6]))
        score.heads.copy_(torch.tensor([0.3, 0.4]))
        score.layer.fill_(0.2 + number)
    kept, costs = [dense(), dense()], [UnitCosts(10, 3, 1)] * 2
    order = removal_order(of, kept, costs, size=0, granularity=(HEADS, NEURONS, LAYERS))
    # 2 * (40 + 9 + 1), less 3 twice, less a layer of 47, less a head of 20, less a neuron of 3.
    assert order.sizes.tolist() == [100, 97, 94, 47, 27, 24]
    first, second = order.layers
    assert first.neurons.tolist() == [0, 2, 2]
    assert first.heads.tolist() == [2, 2]
    never = torch.iinfo(torch.int32).max
    assert second.neurons.tolist() == [1, 4, never]
    assert second.heads.tolist() == [3, never]
