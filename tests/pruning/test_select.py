"""The selection, against a stable sort of everything, or one group after the other."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from multiprune.pruning.select import (
    close_smallest,
    keep_largest,
    keep_largest_groups,
    kth_largest,
)

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SHAPES = [(7, 5), (1,), (3, 2, 4), (40,)]
SIZE = 100


def split(flat: Tensor) -> list[Tensor]:
    sizes = [torch.Size(shape).numel() for shape in SHAPES]
    return [part.view(shape) for part, shape in zip(torch.split(flat, sizes), SHAPES, strict=True)]


def kept_by_sorting(scores: Sequence[Tensor], count: int) -> Tensor:
    flat = torch.cat([score.reshape(-1) for score in scores]).double() + 0.0  # -0.0 becomes 0.0
    kept = torch.zeros(flat.numel(), dtype=torch.bool)
    kept[flat.sort(descending=True, stable=True).indices[:count]] = True
    return kept


def values(kind: str, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(SIZE, generator=generator)
    finfo = torch.finfo(dtype)
    smallest = finfo.smallest_normal * finfo.eps
    flat = {
        "random": normal,
        "positive": normal.abs(),
        "negative": -normal.abs(),
        "ties": normal.mul(1.5).round(),
        "equal": torch.full((SIZE,), -0.25),
        "zeros": torch.where(normal > 0, 0.0, -0.0),
        "signed_zeros_among_others": normal.mul(0.8).round() * 0.5,
        "denormals": normal.mul(4).round().double() * smallest,
        "infinities": normal.where(normal.abs() < 1, normal.sign() * torch.inf),
        "range": torch.logspace(-30, 30, SIZE, dtype=torch.float64) * normal.sign(),
    }[kind]
    return flat[torch.randperm(SIZE, generator=generator)].to(dtype)


KINDS = [
    "random",
    "positive",
    "negative",
    "ties",
    "equal",
    "zeros",
    "signed_zeros_among_others",
    "denormals",
    "infinities",
    "range",
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_keeps_what_a_stable_sort_keeps(kind: str, dtype: torch.dtype) -> None:
    scores = split(values(kind, dtype))
    for count in [0, 1, 2, 34, 35, 36, 50, 63, 98, 99, 100]:
        masks = keep_largest(scores, count)
        assert [mask.shape for mask in masks] == [score.shape for score in scores]
        assert all(mask.dtype == torch.bool for mask in masks)
        flat = torch.cat([mask.reshape(-1) for mask in masks])
        assert torch.equal(flat, kept_by_sorting(scores, count))


@pytest.mark.parametrize("dtype", DTYPES)
def test_cases_hold_what_their_names_say(dtype: torch.dtype) -> None:
    denormals = values("denormals", dtype)
    assert denormals.abs().max() < torch.finfo(dtype).smallest_normal
    assert denormals.count_nonzero() > SIZE // 2
    assert set(values("zeros", dtype).signbit().tolist()) == {True, False}
    assert {torch.inf, -torch.inf} <= set(values("infinities", dtype).tolist())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_kth_largest_is_that_of_torch(kind: str, dtype: torch.dtype) -> None:
    flat = values(kind, dtype)
    for k in [1, 2, 49, 50, 99, 100]:
        expected = torch.kthvalue(flat.double(), SIZE + 1 - k).values
        threshold = kth_largest(split(flat), k)
        assert threshold.dtype == dtype
        assert threshold.shape == ()
        assert threshold.double() == expected


def test_many_scores_that_differ_in_their_last_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = [1 + torch.rand(200, 300, generator=generator) * 1e-3 for _ in range(2)]
    masks = keep_largest(scores, 12_345)
    flat = torch.cat([mask.reshape(-1) for mask in masks])
    assert torch.equal(flat, kept_by_sorting(scores, 12_345))


def test_ties_go_to_earlier_tensors_then_to_earlier_elements() -> None:
    scores = [torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 3.0], [1.0, 1.0]])]
    first, second = keep_largest(scores, 4)
    assert first.tolist() == [True, True]
    assert second.tolist() == [[True, True], [False, False]]


def test_zeros_of_either_sign_are_tied() -> None:
    (mask,) = keep_largest([torch.tensor([-0.0, 0.0, -0.0, 0.0])], 2)
    assert mask.tolist() == [True, True, False, False]


def test_transposed_scores_are_ranked_in_the_order_of_their_indices() -> None:
    scores = torch.tensor([[1.0, 1.0], [2.0, 1.0]]).t()  # [[1, 2], [1, 1]]
    (mask,) = keep_largest([scores], 2)
    assert mask.tolist() == [[True, True], [False, False]]


def test_selecting_does_not_change_the_scores() -> None:
    scores = values("ties", torch.float32)
    before = scores.clone()
    keep_largest([scores], 33)
    assert torch.equal(scores, before)


@pytest.mark.parametrize("count", [-1, 4])
def test_count_outside_the_scores_is_an_error(count: int) -> None:
    with pytest.raises(ValueError, match=rf"\[0, 3\], but is {count}\."):
        keep_largest([torch.zeros(2), torch.zeros(1)], count)


def test_double_precision_is_an_error() -> None:
    with pytest.raises(TypeError, match="float64"):
        keep_largest([torch.zeros(3, dtype=torch.float64)], 1)


def kept_one_by_one(scores: Sequence[Tensor], costs: Sequence[Tensor], budget: int) -> list[bool]:
    score = [value for one in scores for value in one.reshape(-1).tolist()]
    cost = [value for one in costs for value in one.reshape(-1).tolist()]
    kept, left = [False] * len(score), budget
    for index in sorted(range(len(score)), key=lambda i: (-score[i], -cost[i], i)):
        if cost[index] > left:
            break
        kept[index] = True
        left -= cost[index]
    return kept


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_taken_until_one_does_not_fit(kind: str, dtype: torch.dtype) -> None:
    scores = split(values(kind, dtype))
    costs = split(torch.randint(1, 9, (SIZE,), generator=torch.Generator().manual_seed(1)))
    total = sum(int(cost.sum()) for cost in costs)
    for budget in [0, 1, 7, 8, 60, 200, total // 2, total - 1, total, total + 1]:
        masks = keep_largest_groups(scores, costs, budget)
        assert [mask.shape for mask in masks] == [score.shape for score in scores]
        flat = torch.cat([mask.reshape(-1) for mask in masks])
        assert flat.tolist() == kept_one_by_one(scores, costs, budget)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_of_one_are_ranked_like_single_weights(kind: str) -> None:
    scores = split(values(kind, torch.float32))
    ones = [torch.ones_like(score, dtype=torch.int64) for score in scores]
    for budget in [0, 1, 50, 99, 100]:
        by_group, by_weight = (
            keep_largest_groups(scores, ones, budget),
            keep_largest(scores, budget),
        )
        assert all(map(torch.equal, by_group, by_weight))


def test_a_group_that_does_not_fit_ends_the_ranking() -> None:
    scores, costs = torch.tensor([3.0, 5.0, 4.0, 1.0]), torch.tensor([2, 4, 3, 1])
    kept = {
        budget: keep_largest_groups([scores], [costs], budget)[0] for budget in (3, 6, 7, 9, 10)
    }
    assert not kept[3].any()  # the best costs 4
    assert kept[6].tolist() == [False, True, False, False]
    assert kept[7].tolist() == [False, True, True, False]
    assert kept[9].tolist() == [True, True, True, False]
    assert kept[10].all()


def test_of_equal_scores_the_costliest_comes_first_then_the_first() -> None:
    scores = [torch.zeros(3), torch.zeros(2)]
    costs = [torch.tensor([1, 4, 2]), torch.tensor([4, 2])]
    first, second = keep_largest_groups(scores, costs, 10)
    assert first.tolist() == [False, True, True]
    assert second.tolist() == [True, False]
    first, second = keep_largest_groups(scores, costs, 5)
    assert first.tolist() == [False, True, False]
    assert not second.any()


def test_negative_budget_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"at least 0, but is -1\."):
        keep_largest_groups([torch.zeros(1)], [torch.ones(1, dtype=torch.int64)], -1)


def closed_one_by_one(
    scores: Sequence[Tensor], savings: Sequence[Tensor], needed: int, final: int
) -> list[list[bool]]:
    """Close the smallest score, the last of equals, of all that may be closed; repeat."""
    kept = [[True] * len(score) for score in scores]
    smallest = min(max(one.tolist()) for one in savings if len(one))
    done, passed_over = 0, set()
    while done < needed:
        open_groups = [
            (score[group].item(), -vector, -group)
            for vector, score in enumerate(scores)
            for group in range(len(score))
            if kept[vector][group] and kept[vector].count(False) < len(savings[vector])
        ]
        saving = {
            one: int(savings[-one[1]][kept[-one[1]].count(False)])
            for one in open_groups
            if one == min(other for other in open_groups if other[1] == one[1])
        }
        going = min((one for one in saving if one[1] not in passed_over), default=None)
        if going is None:
            if needed < final:
                break
            going = min(saving, key=lambda one: (saving[one], one))
        elif done + saving[going] >= final + smallest:
            passed_over.add(going[1])
            continue
        done += saving[going]
        kept[-going[1]][-going[2]] = False
    return kept


@pytest.mark.parametrize("rounding", [1, 100])
@pytest.mark.parametrize("seed", range(5))
def test_groups_are_closed_as_one_by_one(seed: int, rounding: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = [(torch.randn(size, generator=generator) * rounding).round() for size in (5, 1, 8)]
    savings = [torch.randint(7, (size,), generator=generator) for size in (5, 0, 6)]
    for needed in range(int(torch.cat(savings).sum()) + 1):
        for final in (needed, needed + 2):
            masks = close_smallest(scores, savings, needed, final=final)
            expected = closed_one_by_one(scores, savings, needed, final)
            assert [mask.tolist() for mask in masks] == expected


def test_of_equal_groups_the_earlier_stay() -> None:
    scores, savings = [torch.zeros(2), torch.zeros(3)], [torch.ones(2).int(), torch.ones(3).int()]
    masks = close_smallest(scores, savings, 4)
    assert [mask.tolist() for mask in masks] == [[True, False], [False, False, False]]


@pytest.mark.parametrize("needed", [-1, 4])
def test_more_than_all_groups_save_is_refused(needed: int) -> None:
    with pytest.raises(ValueError, match=r"`needed` must be in \[0, 3\]"):
        close_smallest([torch.zeros(2)], [torch.tensor([1, 2])], needed)
