"""Groups by hand, against slow implementations and other libraries, and in training."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.ao.pruning.sparsifier.weight_norm_sparsifier import WeightNormSparsifier

from multiprune.budget import Budget, CountBudget, FractionBudget, FullBudget
from multiprune.pruning.element_wise import ElementWisePruner
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.groups import Blocks, Elements, Groups, NofM, Rows, row_shares
from multiprune.pruning.magnitude import Magnitude
from multiprune.pruning.movement import Movement
from multiprune.pruning.platon import Platon
from multiprune.pruning.schedule import CubicSchedule
from multiprune.pruning.select import keep_largest
from multiprune.pruning.soft_movement import SoftMovement

#: Matrices whose sides are multiples of 4, of 2 only along the input, and of nothing.
DIVISIBLE = [(4, 8), (3, 4), (1, 12)]
RAGGED = [(5, 7), (4, 4), (1, 3), (7, 2)]


def integers(shapes: Sequence[tuple[int, int]], seed: int) -> list[Tensor]:
    """Return few different scores, so that there are many ties, whose means are exact."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(-3, 4, shape, generator=generator).float() for shape in shapes]


def weights(scores: Sequence[Tensor]) -> int:
    return sum(score.numel() for score in scores)


def kept_in(masks: Sequence[Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks)


# Single weights.


def test_elements_are_the_largest_scores() -> None:
    scores = integers(RAGGED, seed=0)
    for kept in range(weights(scores) + 1):
        masks = Elements().select(scores, kept)
        assert all(map(torch.equal, masks, keep_largest(scores, kept)))


# Blocks.


def test_blocks_by_hand() -> None:
    scores = torch.tensor(
        [
            [1.0, 1.0, 5.0, 0.0, 4.0],
            [1.0, 1.0, 0.0, 0.0, 2.0],
            [0.0, 9.0, 2.5, 2.5, 2.0],
        ]
    )
    blocks = Blocks(size=2)
    assert blocks.means(scores).tolist() == [[1.0, 1.25, 3.0], [4.5, 2.5, 2.0]]
    assert blocks.costs(scores).tolist() == [[4, 4, 2], [2, 2, 1]]
    # In the order of their means: 4.5 and 3 and 2.5 cost 2 each, 2 costs 1, 1.25 and 1 cost 4.
    (mask,) = blocks.select([scores], 6)
    assert mask.int().tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 0]]
    for kept, stay in [(1, 0), (2, 2), (5, 4), (7, 7), (10, 7), (11, 11), (14, 11), (15, 15)]:
        assert kept_in(blocks.select([scores], kept)) == stay


def blocks_one_by_one(scores: Sequence[Tensor], size: int, kept: int) -> list[Tensor]:
    found: list[tuple[float, int, int, int, list[tuple[int, int]]]] = []
    for index, score in enumerate(scores):
        rows, columns = score.shape
        for top in range(0, rows, size):
            for left in range(0, columns, size):
                places = [
                    (row, column)
                    for row in range(top, min(top + size, rows))
                    for column in range(left, min(left + size, columns))
                ]
                total = sum(float(score[place]) for place in places)
                found.append((-total / len(places), -len(places), len(found), index, places))
    masks = [torch.zeros_like(score, dtype=torch.bool) for score in scores]
    for _, cost, _, index, places in sorted(found):
        kept += cost
        if kept < 0:
            break
        for place in places:
            masks[index][place] = True
    return masks


@pytest.mark.parametrize("size", [1, 2, 3, 4, 50])
@pytest.mark.parametrize("seed", [0, 1])
def test_blocks_are_what_a_slow_implementation_keeps(size: int, seed: int) -> None:
    scores = integers(RAGGED, seed)
    largest = max(min(size, len(score)) * min(size, score.shape[1]) for score in scores)
    for kept in range(weights(scores) + 1):
        masks = Blocks(size=size).select(scores, kept)
        assert all(map(torch.equal, masks, blocks_one_by_one(scores, size, kept)))
        assert 0 <= kept - kept_in(masks) < largest


def test_blocks_of_one_weight_are_elements() -> None:
    scores = integers(RAGGED, seed=2)
    for kept in range(weights(scores) + 1):
        masks = Blocks(size=1).select(scores, kept)
        assert all(map(torch.equal, masks, Elements().select(scores, kept)))


def pruned_by_torch(weight: Tensor, density: float, block: tuple[int, int], zeros: int) -> Tensor:
    """Prune ``zeros`` weights, ranked by L1 norm, in each of the blocks that ``density`` leaves."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data.copy_(weight)
    sparsifier = WeightNormSparsifier(1 - density, block, zeros, norm=1)
    sparsifier.prepare(nn.Sequential(layer), [{"tensor_fqn": "0.weight"}])  # type: ignore[no-untyped-call]
    sparsifier.step()
    sparsifier.squash_mask()
    return layer.weight


@pytest.mark.parametrize("size", [2, 4])
def test_blocks_of_magnitude_are_those_of_torch(size: int) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(16, 8)
    theirs = pruned_by_torch(layer.weight, 0.25, (size, size), size**2)
    pruner = Magnitude(budget=FractionBudget(fraction=0.25), groups=Blocks(size=size))
    pruner.prepare(layer)
    pruner.prune(1.0)
    assert int(layer.weight.count_nonzero()) == 32
    assert torch.equal(layer.weight, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_blocks_of_half_precision_are_averaged_in_single(dtype: torch.dtype) -> None:
    scores = torch.full((64, 128), 60.0, dtype=dtype)  # the sum of a block is above 65504
    scores[0, 64] = 61.0  # 61 / 4096 is lost in a mean of half precision
    (mask,) = Blocks(size=64).select([scores], 64 * 64)
    assert not mask[:, :64].any()
    assert mask[:, 64:].all()


# Patterns.


def test_n_of_m_by_hand() -> None:
    scores = torch.tensor([[9.0, 8.0, 7.0, 1.0, 2.0, 5.0, 2.0, 2.0]])
    groups = NofM(n=2, m=4)
    # 9 and 8, 5 and the first 2 stay; of the others 1 goes first, then the last 2, and 7 the last.
    assert [groups.select([scores], kept)[0].int().tolist()[0] for kept in range(8, -1, -1)] == [
        [1, 1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 0, 1, 1, 1, 1],
        [1, 1, 1, 0, 1, 1, 1, 0],
        [1, 1, 1, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]


def n_of_m_one_by_one(scores: Sequence[Tensor], n: int, m: int, kept: int) -> list[Tensor]:
    order = []
    for index, score in enumerate(scores):
        for row, values in enumerate(score.tolist()):
            for column, value in enumerate(values):
                start = column - column % m
                rivals = values[start : start + m]
                before = [
                    v >= value if start + i < column else v > value for i, v in enumerate(rivals)
                ]
                order.append((sum(before) >= n, -value, index, row, column))
    masks = [torch.zeros_like(score, dtype=torch.bool) for score in scores]
    for *_, index, row, column in sorted(order)[:kept]:
        masks[index][row, column] = True
    return masks


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (1, 2)])
@pytest.mark.parametrize("seed", [0, 1])
def test_n_of_m_is_what_a_slow_implementation_keeps(n: int, m: int, seed: int) -> None:
    scores = integers(DIVISIBLE, seed)
    for kept in range(weights(scores) + 1):
        masks = NofM(n=n, m=m).select(scores, kept)
        assert kept_in(masks) == kept
        assert all(map(torch.equal, masks, n_of_m_one_by_one(scores, n, m, kept)))


@pytest.mark.parametrize(
    "scores", [torch.zeros(3, 8), -torch.ones(3, 8), torch.full((3, 8), -torch.inf)]
)
def test_equal_scores_keep_the_first_of_each_group(scores: Tensor) -> None:
    (mask,) = NofM(n=2, m=4).select([scores], 12)
    assert mask.tolist() == [[True, True, False, False] * 2] * 3


def test_n_of_m_of_transposed_scores_runs_along_the_input() -> None:
    scores = torch.arange(32.0).view(8, 4).t()
    (mask,) = NofM(n=2, m=4).select([scores], 16)
    assert mask.tolist() == [[False, False, True, True] * 2] * 4


def test_2_of_4_magnitudes_are_those_of_torch() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(16, 8)
    theirs = pruned_by_torch(layer.weight, 0.0, (1, 4), 2)
    pruner = Magnitude(budget=FractionBudget(fraction=0.5), groups=NofM(n=2, m=4))
    pruner.prepare(layer)
    pruner.prune(1.0)
    assert torch.equal(layer.weight, theirs)


# Rows.


def test_rows_by_hand() -> None:
    scores = torch.tensor([[9.0, 8.0, 7.0, 6.0], [1.0, 3.0, 3.0, 3.0]])
    kept = {
        0: [[0, 0, 0, 0], [0, 0, 0, 0]],
        1: [[1, 0, 0, 0], [0, 0, 0, 0]],
        4: [[1, 1, 0, 0], [0, 1, 1, 0]],
        5: [[1, 1, 1, 0], [0, 1, 1, 0]],
        8: [[1, 1, 1, 1], [1, 1, 1, 1]],
    }
    for count, expected in kept.items():
        assert Rows().select([scores], count)[0].int().tolist() == expected


@pytest.mark.parametrize("seed", range(3))
def test_rows_keep_their_best_and_the_same_fraction(seed: int) -> None:
    scores = integers(RAGGED, seed)
    dense = weights(scores)
    for kept in range(dense + 1):
        masks = Rows().select(scores, kept)
        assert kept_in(masks) == kept
        for score, mask in zip(scores, masks, strict=True):
            for row, chosen in zip(score, mask, strict=True):
                share = int(chosen.sum())
                assert abs(share - kept * len(row) / dense) <= 1
                best = row.sort(descending=True, stable=True).indices[:share]
                assert sorted(best.tolist()) == chosen.nonzero()[:, 0].tolist()


def test_no_share_of_a_row_falls_when_more_is_shared() -> None:
    sizes = [7, 3, 3, 2, 7, 5]
    before = [0] * len(sizes)
    for total in range(1, sum(sizes) + 1):
        shares = row_shares(total, sizes)
        assert sum(shares) == total
        assert all(one <= other for one, other in zip(before, shares, strict=True))
        before = shares
    assert before == sizes


# What all of them promise.


@pytest.mark.parametrize(
    ("groups", "shapes"),
    [
        (Elements(), RAGGED),
        (Blocks(size=2), RAGGED),
        (Blocks(size=3), RAGGED),
        (NofM(n=2, m=4), DIVISIBLE),
        (NofM(n=1, m=2), DIVISIBLE),
        (Rows(), RAGGED),
    ],
    ids=["elements", "blocks_2", "blocks_3", "2_of_4", "1_of_2", "rows"],
)
def test_what_is_pruned_and_scores_0_stays_pruned(
    groups: Groups, shapes: list[tuple[int, int]]
) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        masks = [torch.ones(shape, dtype=torch.bool) for shape in shapes]
        dense = weights(masks)
        draws = torch.randint(dense + 1, (6,), generator=generator)
        for kept in draws.repeat_interleave(2).sort(descending=True).values.tolist():
            # Weights that are trained between two rankings, so that their order changes.
            scores = [(0.1 + torch.rand(mask.shape, generator=generator)) * mask for mask in masks]
            before, masks = masks, groups.select(scores, kept)
            assert not any((mask & ~one).any() for mask, one in zip(masks, before, strict=True))


# In a pruner.


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 9))


def prepared(groups: Groups, budget: Budget, *, per_layer: bool = False) -> Magnitude:
    pruner = Magnitude(budget=budget, groups=groups, per_layer=per_layer)
    pruner.prepare(network())
    return pruner


def test_blocks_of_each_layer_fit_into_its_share() -> None:
    # 240 and 180 weights; 30 % of 420 are 126, of which the layers have 72 and 54.
    pruner = prepared(Blocks(size=4), FractionBudget(fraction=0.3), per_layer=True)
    scores = pruner.scores()
    pruner.prune(1.0)
    for mask, score, share in zip(pruner.masks().values(), scores, [72, 54], strict=True):
        assert torch.equal(mask, blocks_one_by_one([score], 4, share)[0])
        assert 0 <= share - int(mask.sum()) < 16


@pytest.mark.parametrize("fraction", [0.5, 0.3])
def test_pattern_of_each_layer_is_exact(fraction: float) -> None:
    pruner = prepared(NofM(n=2, m=4), FractionBudget(fraction=fraction), per_layer=True)
    pruner.prune(1.0)
    shares = [240 * fraction, 180 * fraction]
    for mask, share in zip(pruner.masks().values(), shares, strict=True):
        assert int(mask.sum()) == share
        assert mask.view(len(mask), -1, 4).sum(-1).max() == 2


def trained(groups: Groups, fraction: float) -> tuple[nn.Sequential, Magnitude, list[int]]:
    """Prune under a cubic schedule, checking that what is pruned stays so; return what was kept."""
    model = network()
    pruner = Magnitude(budget=FractionBudget(fraction=fraction), groups=groups)
    pruner.prepare(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    schedule = CubicSchedule(start=0.0, stop=0.8)
    driver = GradualPruning(pruner, schedule, total_steps=20, every_n_steps=2)
    driver.attach(optimizer)
    inputs = torch.randn(16, 12)
    kept = []
    for _ in range(20):
        before = [mask.clone() for mask in pruner.masks().values()]
        optimizer.zero_grad()
        (model(inputs) - inputs[:, :9].roll(1, 0)).square().mean().backward()
        optimizer.step()
        masks = list(pruner.masks().values())
        assert not any((mask & ~one).any() for mask, one in zip(masks, before, strict=True))
        kept.append(kept_in(masks))
    return model, pruner, kept


def test_gradual_magnitude_pruning_ends_in_2_of_4_everywhere() -> None:
    model, pruner, kept = trained(NofM(n=2, m=4), fraction=0.5)
    assert kept[0] == 420  # dense, then down in steps to the pattern
    assert 210 < kept[5] < 420
    assert kept[-1] == 210
    for path in pruner.masks():
        weight = model.get_parameter(path)
        assert (weight.view(len(weight), -1, 4).count_nonzero(-1) == 2).all()


def test_gradual_magnitude_pruning_ends_in_whole_blocks() -> None:
    model, pruner, kept = trained(Blocks(size=4), fraction=0.3)
    assert kept[0] == 420
    assert 126 < kept[5] < 420
    assert 126 - 16 < kept[-1] <= 126
    for path, mask in pruner.masks().items():
        for block in (one for rows in torch.split(mask, 4) for one in torch.split(rows, 4, 1)):
            assert block.all() or not block.any()
        assert torch.equal(model.get_parameter(path) != 0, mask)


@pytest.mark.parametrize(
    "method",
    [
        lambda groups: Magnitude(budget=FullBudget(), groups=groups),
        lambda groups: Movement(budget=FullBudget(), groups=groups, score_learning_rate=0.1),
        lambda groups: Platon(budget=FullBudget(), groups=groups, beta1=0.5, beta2=0.5),
    ],
    ids=["magnitude", "movement", "platon"],
)
def test_full_budget_prunes_nothing_with_any_groups(
    method: Callable[[Groups | None], ElementWisePruner],
) -> None:
    for groups in (None, Elements(), Blocks(size=4), NofM(n=2, m=4), Rows()):
        pruner = method(groups)
        pruner.prepare(network())
        pruner.prune(1.0)
        assert all(mask.all() for mask in pruner.masks().values())


# Bad input.


def test_soft_movement_takes_elements_only() -> None:
    def soft_movement(groups: Groups) -> SoftMovement:
        return SoftMovement(
            budget=FullBudget(), score_learning_rate=0.1, threshold=0.1, penalty=1.0, groups=groups
        )

    soft_movement(Elements())
    with pytest.raises(ValueError, match="must be Elements, but are Blocks"):
        soft_movement(Blocks(size=2))


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_size_of_blocks_is_a_positive_whole_number(size: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, but is {size}"):
        Blocks(size=size)


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 4), (5, 4), (-1, 2), (1.5, 4), (1, 4.0)])
def test_pattern_that_is_none_is_an_error(n: int, m: int) -> None:
    with pytest.raises(
        ValueError, match=rf"`n` must be .*\[1, {m}\), but is {n}|`m` must be .*but is {m}"
    ):
        NofM(n=n, m=m)


@pytest.mark.parametrize("groups", [Blocks(size=2), NofM(n=2, m=4), Rows()])
def test_vectors_have_no_blocks_or_patterns(groups: Groups) -> None:
    budget = FractionBudget(fraction=0.5, of="total")
    pruner = Magnitude(budget=budget, parts=("encoder_linear", "encoder_other"), groups=groups)
    with pytest.raises(ValueError, match=r"need matrices, but 0\.bias has shape \(20,\)\."):
        pruner.prepare(network())


def test_input_dimension_that_m_does_not_divide_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"divisible by 8 for 2:8 groups, but 0\.weight .* 12\)"):
        prepared(NofM(n=2, m=8), FractionBudget(fraction=0.2))


@pytest.mark.parametrize("per_layer", [False, True])
def test_budget_that_keeps_more_than_the_pattern_is_an_error(per_layer: bool) -> None:
    prepared(NofM(n=2, m=4), CountBudget(count=210), per_layer=per_layer)
    with pytest.raises(ValueError, match=r"at most \d+ of \d+ weights, .* but keeps \d+"):
        prepared(NofM(n=2, m=4), CountBudget(count=211), per_layer=per_layer)
    with pytest.raises(ValueError, match=r"at most 210 of 420 weights, .* but keeps 252"):
        prepared(NofM(n=2, m=4), FractionBudget(fraction=0.6))


def test_budget_without_room_for_a_block_is_an_error() -> None:
    prepared(Blocks(size=4), CountBudget(count=16))
    with pytest.raises(ValueError, match=r"keeps 15 weights where a block of 0\.weight .* has 16"):
        prepared(Blocks(size=4), CountBudget(count=15))
    # The second layer has 180 of 420 weights, and its share is 81 of 189, but 80 of 187.
    prepared(Blocks(size=9), CountBudget(count=189), per_layer=True)
    with pytest.raises(ValueError, match=r"keeps 80 weights where a block of 2\.weight .* has 81"):
        prepared(Blocks(size=9), CountBudget(count=187), per_layer=True)
