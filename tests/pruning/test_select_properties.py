"""Rankings of any scores, against Python's own sort and sets that are counted."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, vectors
from test_select import closed_one_by_one
from torch import Tensor

from multiprune.pruning.groups import Blocks, Elements, Groups, NofM
from multiprune.pruning.select import (
    close_smallest,
    keep_largest,
    keep_largest_groups,
    kth_largest,
)

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def parts(dtype: torch.dtype) -> st.SearchStrategy[list[Tensor]]:
    """Draw tensors of which some are empty."""
    return st.lists(vectors(dtype, st.integers(0, 9)), min_size=1, max_size=4)


scores = st.sampled_from(DTYPES).flatmap(parts)


def flat(tensors: list[Tensor]) -> list[float]:
    return [value for tensor in tensors for value in tensor.reshape(-1).tolist()]


@given(scores, st.data())
def test_the_largest_are_kept_and_of_equals_the_first(
    drawn: list[Tensor], data: st.DataObject
) -> None:
    values = flat(drawn)
    count = data.draw(st.integers(0, len(values)))
    # Python's sort is stable, also in reverse.
    order = sorted(range(len(values)), key=values.__getitem__, reverse=True)
    masks = keep_largest(drawn, count)
    assert {place for place, kept in enumerate(flat(masks)) if kept} == set(order[:count])
    assert [mask.shape for mask in masks] == [score.shape for score in drawn]
    if count:
        assert float(kth_largest(drawn, count)) == values[order[count - 1]]


@given(scores, st.data())
def test_a_smaller_number_keeps_nothing_else(drawn: list[Tensor], data: st.DataObject) -> None:
    total = len(flat(drawn))
    more = data.draw(st.integers(0, total))
    fewer = data.draw(st.integers(0, more))
    for larger, smaller in zip(keep_largest(drawn, more), keep_largest(drawn, fewer), strict=True):
        assert not (smaller & ~larger).any()


@given(scores, seeds, st.data())
def test_groups_are_the_longest_start_of_the_order_that_fits(
    drawn: list[Tensor], seed: int, data: st.DataObject
) -> None:
    generator = np.random.default_rng(seed)
    costs = [torch.from_numpy(generator.integers(1, 9, len(score))) for score in drawn]
    values, prices = flat(drawn), [int(cost) for cost in flat(costs)]
    budget = data.draw(st.integers(0, sum(prices) + 1))
    order = sorted(range(len(values)), key=lambda place: (-values[place], -prices[place], place))
    # All beginnings are tried.
    fitting = [0, *accumulate(prices[place] for place in order)]
    length = max(size for size, cost in enumerate(fitting) if cost <= budget)
    kept = flat(keep_largest_groups(drawn, costs, budget))
    assert {place for place, keep in enumerate(kept) if keep} == set(order[:length])
    if length < len(order):
        assert budget - fitting[length] < prices[order[length]]


@given(
    st.lists(
        st.integers(1, 6).flatmap(
            lambda size: st.tuples(
                vectors(torch.float32, st.just(size)),
                st.lists(st.sampled_from([0, 1, 2, 9]), max_size=size),
            )
        ),
        min_size=2,
        max_size=4,
    ),
    st.data(),
)
def test_closing_saves_enough_and_no_group_more_than_needed(
    drawn: list[tuple[Tensor, list[int]]], data: st.DataObject
) -> None:
    values = [score for score, _ in drawn]
    savings = [torch.tensor(saved, dtype=torch.int64) for _, saved in drawn]
    most = sum(sum(saved) for _, saved in drawn)
    needed = data.draw(st.integers(0, most))
    final = data.draw(st.just(needed) | st.integers(needed, most))
    if needed:
        slow = closed_one_by_one(values, savings, needed, final)
        masks = close_smallest(values, savings, needed, final=final)
        assert [mask.tolist() for mask in masks] == slow
    masks = close_smallest(values, savings, needed)
    closed = [int((~mask).count_nonzero()) for mask in masks]
    done = sum(sum(saved[:count]) for (_, saved), count in zip(drawn, closed, strict=True))
    assert done >= needed
    largest = max((max(saved, default=0) for _, saved in drawn), default=0)
    assert done == needed == 0 or done < needed + largest
    for (score, saved), mask in zip(drawn, masks, strict=True):
        # In each vector the lowest go, of equals the last, and never more than may.
        order = sorted(range(len(score)), key=lambda place: (float(score[place]), -place))
        gone = {place for place, keep in enumerate(mask.tolist()) if not keep}
        assert gone == set(order[: len(gone)])
        assert len(gone) <= len(saved)


shapes = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3)


def matrices(sizes: list[tuple[int, int]], seed: int, *, rounded: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.rand(size, generator=generator) for size in sizes]
    return [matrix.mul(3).ceil() if rounded else matrix for matrix in drawn]


@given(shapes, st.integers(1, 4), seeds, st.booleans(), st.data())
def test_blocks_of_the_largest_means_stay_as_a_whole(
    sizes: list[tuple[int, int]], side: int, seed: int, rounded: bool, data: st.DataObject
) -> None:
    drawn, blocks = matrices(sizes, seed, rounded=rounded), Blocks(size=side)
    kept = data.draw(st.integers(0, sum(rows * columns for rows, columns in sizes)))
    found: list[tuple[float, int, bool]] = []
    for matrix, mask in zip(drawn, blocks.select(drawn, kept), strict=True):
        for row in range(0, len(matrix), side):
            for column in range(0, matrix.shape[1], side):
                where = (slice(row, row + side), slice(column, column + side))
                block = mask[where]
                assert block.all() or not block.any()
                found.append((matrix[where].mean().item(), block.numel(), bool(block.all())))
    left = kept - sum(size for _, size, keep in found if keep)
    assert left >= 0
    gone = [(mean, size) for mean, size, keep in found if not keep]
    if gone:
        best = max(mean for mean, _ in gone)
        assert left < max(size for mean, size in gone if mean > best - 1e-6)
        assert all(mean > best - 1e-6 for mean, _, keep in found if keep)


@given(
    st.integers(2, 5).flatmap(lambda m: st.tuples(st.integers(1, m - 1), st.just(m))),
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=3),
    seeds,
    st.booleans(),
    st.data(),
)
def test_patterns_keep_so_many_weights_and_at_their_density_n_of_every_m(
    pattern: tuple[int, int],
    sizes: list[tuple[int, int]],
    seed: int,
    rounded: bool,
    data: st.DataObject,
) -> None:
    n, m = pattern
    drawn = matrices([(rows, groups * m) for rows, groups in sizes], seed, rounded=rounded)
    total = sum(matrix.numel() for matrix in drawn)
    kept = data.draw(st.integers(0, total) | st.just(total // m * n))
    masks = NofM(n=n, m=m).select(drawn, kept)
    assert sum(int(mask.count_nonzero()) for mask in masks) == kept
    for matrix, mask in zip(drawn, masks, strict=True):
        counts = mask.reshape(-1, m).sum(1)
        if kept <= total // m * n:
            assert (counts <= n).all()
        else:
            assert (counts >= n).all()
        for row, keep in zip(
            matrix.reshape(-1, m).tolist(), mask.reshape(-1, m).tolist(), strict=True
        ):
            order = sorted(range(m), key=lambda place: -row[place])
            assert {place for place in range(m) if keep[place]} == set(order[: sum(keep)])


@pytest.mark.parametrize(
    "groups", [Elements(), Blocks(size=2), NofM(n=2, m=4)], ids=lambda kind: type(kind).__name__
)
@given(seed=seeds, tenths=st.lists(st.integers(0, 10), min_size=2, max_size=4))
def test_what_was_pruned_and_scores_nothing_never_comes_back(
    groups: Groups, seed: int, tenths: list[int]
) -> None:
    drawn = matrices([(4, 8), (3, 4)], seed, rounded=seed % 2 == 0)
    before = [torch.ones_like(matrix, dtype=torch.bool) for matrix in drawn]
    for tenth in sorted(tenths, reverse=True):
        masks = groups.select(drawn, 44 * tenth // 10)
        for mask, earlier in zip(masks, before, strict=True):
            assert not (mask & ~earlier).any()
        drawn = [matrix * mask for matrix, mask in zip(drawn, masks, strict=True)]
        before = masks


@given(scores)
@example([torch.tensor([math.inf, -math.inf, 0.0])])
def test_ranking_changes_no_score(drawn: list[Tensor]) -> None:
    before = [score.clone() for score in drawn]
    keep_largest(drawn, len(flat(drawn)) // 2)
    keep_largest_groups(drawn, [torch.ones(len(score)).long() for score in drawn], 3)
    assert all(map(torch.equal, drawn, before))
