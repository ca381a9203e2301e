"""What methods of rank pruning share, with scores that the test hands out."""

import copy
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from typing_extensions import override

from multiprune.budget import Budget, CountBudget, FractionBudget, FullBudget, ParameterLedger
from multiprune.models.from_scratch import from_scratch
from multiprune.models.low_rank import LowRankLinear
from multiprune.models.modeling_multiprune import FactoredLinear
from multiprune.pruning.ranks import RankPruner


class Given(RankPruner):
    """Ranks by the scores it is given."""

    def __init__(self, budget: Budget, scores: Sequence[Tensor]) -> None:
        super().__init__(budget=budget)
        self.given = list(scores)

    @override
    def scores(self) -> list[Tensor]:
        return [score.clone() for score in self.given]


class Network(nn.Module):
    """Two layers: 3 ranks of 9 parameters for 18, and 8 ranks of 16 for 64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 3), nn.Linear(8, 8)
        self.double()

    def forward(self, states: Tensor) -> Tensor:
        inner = torch.cat([self.first(states).tanh(), states[..., :5]], -1)
        outer: Tensor = self.second(inner)
        return outer


SCORES = [
    torch.tensor([5.0, 1.0, 3.0]),
    torch.tensor([8.0, 7.0, 6.0, 0.5, 0.4, 0.3, 0.2, 0.1]),
]
DENSE = 18 + 64


def states(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 6, dtype=torch.float64, generator=generator)


def prepared(
    count: int = 40, scores: Sequence[Tensor] = SCORES, of: str = "encoder_linear"
) -> tuple[Network, Given]:
    model, pruner = Network(), Given(CountBudget(count=count, of=of), scores)
    pruner.prepare(model)
    return model, pruner


def kept_ranks(pruner: RankPruner) -> list[list[int]]:
    return [mask.nonzero()[:, 0].tolist() for mask in pruner.masks().values()]


ALL_3, ALL_8 = list(range(3)), list(range(8))


@pytest.mark.parametrize(
    ("asked", "kept", "ranks"),
    [
        (82, 82, [ALL_3, ALL_8]),
        # Four closings of the second layer leave 4 ranks, 64 parameters, no fewer than dense. The
        # next would leave room for a rank of 9, unlike that of the first layer, whose 2 ranks are
        # as many as dense.
        (81, 73, [[0], ALL_8]),
        (74, 66, [ALL_3, [0, 1, 2]]),
        (66, 66, [ALL_3, [0, 1, 2]]),
        (65, 57, [[0], [0, 1, 2]]),
        (56, 41, [[0], [0, 1]]),
        (40, 25, [[0], [0]]),
        (25, 25, [[0], [0]]),
    ],
)
def test_allocation_by_hand(asked: int, kept: int, ranks: list[list[int]]) -> None:
    _, pruner = prepared(asked)
    pruner.prune(1.0)
    assert kept_ranks(pruner) == ranks
    ledger = pruner.ledger()
    assert (ledger.dense_in("encoder_linear"), ledger.kept_in("encoder_linear")) == (82, kept)
    assert ledger.kept["encoder_other"] == ledger.dense["encoder_other"] == 3 + 8


def test_budget_below_one_rank_a_layer_is_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"each of 2 factorised layers one rank, 25 .* them 24"):
        prepared(24)


def test_layers_without_anything_to_factorise_are_refused() -> None:
    # 2 x 2 weights: one rank is as large.
    with pytest.raises(ValueError, match=r"Sequential has none that this would make smaller"):
        Given(FullBudget(), []).prepare(nn.Sequential(nn.Embedding(4, 2), nn.Linear(2, 2)))


def closed_one_by_one(scores: Sequence[Tensor], shapes: Sequence[Any], asked: int) -> list[int]:
    """Return how many ranks each layer keeps when they are closed one after the other."""
    kept = [len(score) for score in scores]
    order = sorted((value, layer) for layer, score in enumerate(scores) for value in score.tolist())
    smallest = min(sum(shape) for shape in shapes)

    def total(*ranks: int) -> int:
        return sum(
            min(count * sum(shape), shape[0] * shape[1])
            for count, shape in zip(ranks, shapes, strict=True)
        )

    def with_one_less(layer: int) -> list[int]:
        return [count - (number == layer) for number, count in enumerate(kept)]

    passed_over: set[int] = set()
    for _, layer in order:
        if total(*kept) <= asked:
            break
        if layer in passed_over or kept[layer] == 1:
            continue
        if total(*with_one_less(layer)) > asked - smallest:
            kept = with_one_less(layer)
        else:
            passed_over.add(layer)
    if total(*kept) > asked:
        kept = max((with_one_less(layer) for layer in passed_over), key=lambda one: total(*one))
    return [
        ranks if ranks * sum(shape) < shape[0] * shape[1] else min(shape)
        for ranks, shape in zip(kept, shapes, strict=True)
    ]


@pytest.mark.parametrize("seed", range(10))
def test_allocation_by_brute_force(seed: int) -> None:
    torch.manual_seed(seed)
    shapes = [(int(torch.randint(3, 9, ())), int(torch.randint(3, 9, ()))) for _ in range(4)]
    scores = [torch.rand(min(shape)) for shape in shapes]
    dense = sum(rows * columns for rows, columns in shapes)
    fewest = sum(rows + columns for rows, columns in shapes)
    for asked in range(fewest, dense + 1, 9):
        pruner = Given(CountBudget(count=asked), scores)
        pruner.prepare(nn.ModuleList(nn.Linear(*shape) for shape in shapes))
        pruner.prune(1.0)
        kept = pruner.ledger().kept_in("encoder_linear")
        assert asked - max(sum(shape) for shape in shapes) < kept <= asked
        assert not _has_room(pruner, asked - kept)
        assert [len(one) for one in kept_ranks(pruner)] == closed_one_by_one(scores, shapes, asked)


def _has_room(pruner: RankPruner, room: int) -> bool:
    """Whether as much is left as the smallest rank has of those that could still be closed."""
    closable = [one.cost for one in pruner.targets if one.mask.sum() > 1]
    return bool(closable) and room >= min(closable)


@pytest.mark.parametrize("rankings", [1, 7])
def test_ten_budgets_are_met_with_less_than_the_smallest_rank_to_spare(rankings: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(12, 12)] * 6 + [(12, 40)] * 2
    for percent in range(40, 100, 6):
        pruner = Given(FractionBudget(fraction=percent / 100), [])
        pruner.prepare(nn.ModuleList(nn.Linear(*shape) for shape in shapes))
        for ranking in range(1, rankings + 1):
            pruner.given = [torch.rand(12, generator=generator) for _ in shapes]
            pruner.prune(ranking / rankings)
        asked = (6 * 144 + 2 * 480) * percent // 100
        assert asked - 24 < pruner.ledger().kept_in("encoder_linear") <= asked, percent


def test_closed_rank_does_not_return_whatever_its_score() -> None:
    _, pruner = prepared(25)
    before = [torch.ones(3, dtype=torch.bool), torch.ones(8, dtype=torch.bool)]
    generator = torch.Generator().manual_seed(0)
    for tenth in range(11):
        pruner.given = [torch.randn(score.shape, generator=generator) for score in SCORES]
        pruner.prune(tenth / 10)
        masks = [mask.clone() for mask in pruner.masks().values()]
        assert all((old | ~new).all() for old, new in zip(before, masks, strict=True))
        assert pruner.ledger().kept_in("encoder_linear") <= DENSE - int(57 * tenth / 10)
        before = masks
    pruner.prune(0.0)
    assert all(torch.equal(*pair) for pair in zip(before, pruner.masks().values(), strict=True))


def test_budget_may_count_what_is_never_pruned() -> None:
    # 11 biases besides the 82 weights.
    _, pruner = prepared(68, of="total")
    assert pruner.excess == 25
    pruner.prune(1.0)
    assert pruner.ledger().kept_in("total") == 11 + 57
    with pytest.raises(ValueError, match="must hold what is never pruned"):
        prepared(10, of="total")


def test_full_budget_prunes_nothing_and_leaves_the_dense_layers() -> None:
    model, pruner = Network(), Given(FullBudget(), SCORES)
    expected = model(states())
    pruner.prepare(model)
    pruner.prune(1.0)
    assert pruner.excess == 0
    assert not pruner.shrink()
    pruner.finalize()
    assert type(model.first) is type(model.second) is nn.Linear
    assert torch.allclose(model(states()), expected, rtol=0, atol=1e-12)


def test_prepare_keeps_what_an_encoder_computes() -> None:
    torch.manual_seed(0)
    encoder = from_scratch(layers=1, hidden=16, heads=2, intermediate=32).model
    encoder.eval()  # type: ignore[no-untyped-call]
    tokens = torch.arange(12).view(2, 6)
    ledger, expected = ParameterLedger.of(encoder), encoder(tokens).last_hidden_state
    pruner = Given(FractionBudget(fraction=0.5), [])
    pruner.prepare(encoder)
    assert torch.allclose(encoder(tokens).last_hidden_state, expected, rtol=0, atol=1e-5)
    assert len(pruner.targets) == 6
    assert pruner.ledger().dense == ledger.dense
    assert not any(type(module) is nn.Linear for module in _outside_factors(encoder))


def _outside_factors(model: nn.Module) -> Iterable[nn.Module]:
    for child in model.children():
        if not isinstance(child, LowRankLinear):
            yield child
            yield from _outside_factors(child)


class Special(nn.Linear):
    """Uses its weight in a way of its own."""


def test_tied_shared_thin_and_special_layers_are_left_alone() -> None:
    shared, tied, embedding = nn.Linear(6, 6), nn.Linear(6, 6), nn.Embedding(9, 6)
    output = nn.Linear(6, 9)
    output.weight = embedding.weight
    other = nn.Linear(6, 6)
    other.weight = tied.weight
    model = nn.ModuleDict(
        {
            "shared": shared,
            "again": shared,
            "tied": tied,
            "other": other,
            "embedding": embedding,
            "output": output,
            "thin": nn.Linear(6, 1),
            "special": Special(6, 6),
            "plain": nn.Linear(6, 6, bias=False),
        }
    )
    pruner = Given(CountBudget(count=36 + 36 + 6 + 36 + 12), [torch.arange(6.0)])
    pruner.prepare(model)
    assert [target.path for target in pruner.targets] == ["plain"]
    assert pruner.ledger().fixed_in("encoder_linear") == 36 + 36 + 6 + 36
    pruner.prune(1.0)
    assert kept_ranks(pruner) == [[5]]
    assert model["again"] is model["shared"]
    assert model["output"].weight is embedding.weight


def test_only_the_encoder_is_factorised() -> None:
    model = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(6, 6)), "head": nn.Linear(6, 6)})
    pruner = Given(FractionBudget(fraction=0.5), [torch.arange(6.0)])
    pruner.prepare(model, model["encoder"])
    assert list(pruner.masks()) == ["encoder.0.ranks"]
    assert pruner.ledger().dense["heads"] == 42


def adamw(parameters: Iterable[Tensor]) -> Optimizer:
    return AdamW(parameters, lr=0.02, weight_decay=0.1)


def momentum(parameters: Iterable[Tensor]) -> Optimizer:
    return SGD(parameters, lr=0.05, momentum=0.9)


def step(model: nn.Module, pruner: RankPruner, optimizer: Optimizer, seed: int) -> None:
    optimizer.zero_grad()
    model(states(seed)).square().mean().backward()
    pruner.before_step()
    optimizer.step()
    pruner.after_step()


def trained(
    optimizer_of: Callable[[Iterable[Tensor]], Optimizer], count: int = 60
) -> tuple[Network, Given, Optimizer]:
    model, pruner = prepared(count)
    optimizer = optimizer_of(model.parameters())
    for seed in range(3):
        step(model, pruner, optimizer, seed)
    pruner.prune(1.0)
    step(model, pruner, optimizer, 3)
    return model, pruner, optimizer


both_optimizers = pytest.mark.parametrize("optimizer_of", [adamw, momentum])


@both_optimizers
def test_shrunken_model_trains_on_like_the_masked_one(
    optimizer_of: Callable[[Iterable[Tensor]], Optimizer],
) -> None:
    masked_model, masked, masked_optimizer = trained(optimizer_of)
    model, pruner, optimizer = trained(optimizer_of)
    assert pruner.shrink(optimizer)
    assert not pruner.shrink(optimizer)
    owned = {id(one) for group in optimizer.param_groups for one in group["params"]}
    assert owned == {id(one) for one in model.parameters()}
    assert [target.layer.rank for target in pruner.targets] == [1, 3]
    for seed in range(4, 7):
        assert torch.allclose(model(states()), masked_model(states()), rtol=0, atol=1e-12)
        step(masked_model, masked, masked_optimizer, seed)
        step(model, pruner, optimizer, seed)
    pruner.skip_step()
    assert torch.allclose(model(states()), masked_model(states()), rtol=0, atol=1e-12)
    for target, whole in zip(pruner.targets, masked.targets, strict=True):
        for cut, zeroed in zip(target.factors(), whole.factors(), strict=True):
            assert torch.allclose(cut, zeroed[:, whole.mask], rtol=0, atol=1e-12)
            assert not zeroed[:, ~whole.mask].any()
    assert pruner.ledger() == masked.ledger()
    assert kept_ranks(pruner) == kept_ranks(masked)
    pruner.prune(1.0)
    assert kept_ranks(pruner) == kept_ranks(masked)


def test_nothing_is_cut_before_the_budget_is_met() -> None:
    model, pruner = prepared(25)
    pruner.prune(0.5)
    shapes = [parameter.shape for parameter in model.parameters()]
    assert not pruner.shrink()
    assert [parameter.shape for parameter in model.parameters()] == shapes


def test_layer_that_stays_dense_keeps_all_ranks_until_the_end() -> None:
    model, pruner, optimizer = trained(adamw, count=66)
    assert pruner.shrink(optimizer)
    assert [target.layer.rank for target in pruner.targets] == [3, 3]
    expected, ledger = model(states()), pruner.ledger()
    masks = {path: mask.clone() for path, mask in pruner.masks().items()}
    pruner.finalize()
    assert type(model.first) is nn.Linear
    assert type(model.second) is FactoredLinear
    assert torch.allclose(model(states()), expected, rtol=0, atol=1e-12)
    assert list(model.state_dict()) == [
        "first.weight",
        "first.bias",
        "second.weight",
        "second.bias",
        "second.down.weight",
    ]
    linear = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 2)
    assert linear == ledger.kept_in("encoder_linear") == 66
    assert pruner.ledger() == ledger
    assert all(torch.equal(masks[path], mask) for path, mask in pruner.masks().items())


def save(*parts: Any) -> bytes:
    file = io.BytesIO()
    torch.save([part.state_dict() for part in parts], file)
    return file.getvalue()


@both_optimizers
@pytest.mark.parametrize("shrink_before", [True, False])
def test_run_resumed_around_a_cut_equals_the_straight_run_bit_for_bit(
    optimizer_of: Callable[[Iterable[Tensor]], Optimizer], shrink_before: bool
) -> None:
    model, pruner, optimizer = trained(optimizer_of)
    if shrink_before:
        pruner.shrink(optimizer)
    saved = save(model, optimizer)
    fresh, fresh_pruner = prepared(60)
    fresh_optimizer = optimizer_of(fresh.parameters())
    states_saved = torch.load(io.BytesIO(saved))
    fresh.load_state_dict(states_saved[0])
    fresh_optimizer.load_state_dict(states_saved[1])
    for one, its_pruner, its_optimizer in (
        (model, pruner, optimizer),
        (fresh, fresh_pruner, fresh_optimizer),
    ):
        step(one, its_pruner, its_optimizer, 4)
        assert its_pruner.shrink(its_optimizer) is not shrink_before
        step(one, its_pruner, its_optimizer, 5)
    assert kept_ranks(fresh_pruner) == kept_ranks(pruner)
    for name, value in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value), name


def test_checkpoint_from_before_the_cut_can_be_loaded_after_it() -> None:
    model, pruner, optimizer = trained(adamw)
    saved, expected = copy.deepcopy(model.state_dict()), model(states())
    pruner.shrink(optimizer)
    step(model, pruner, optimizer, 4)
    model.load_state_dict(saved)
    assert torch.allclose(model(states()), expected, rtol=0, atol=1e-12)
    pruner.finalize()
    assert torch.allclose(model(states()), expected, rtol=0, atol=1e-12)


def test_frozen_layer_is_pruned_all_the_same() -> None:
    model = Network()
    model.second.requires_grad_(False)
    pruner = Given(CountBudget(count=25), SCORES)
    pruner.prepare(model)
    pruner.prune(1.0)
    step(model, pruner, adamw(one for one in model.parameters() if one.requires_grad), 0)
    assert [name for name, one in model.named_parameters() if not one.requires_grad] == [
        "second.down.weight",
        "second.up.weight",
        "second.up.bias",
    ]
    up, down = pruner.targets[1].factors()
    assert up.count_nonzero(1).tolist() == down.count_nonzero(1).tolist() == [1] * 8
