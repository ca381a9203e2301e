"""What the element-wise methods share: scope, shares of each layer, and the mask on gradients."""

import pytest
import torch
from torch import Tensor, nn

from multiprune.budget import Budget, CountBudget, FractionBudget, FullBudget
from multiprune.pruning.element_wise import ElementWisePruner, proportional_shares
from multiprune.pruning.magnitude import Magnitude
from multiprune.pruning.movement import Movement


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(tokens))
        return logits


def magnitude(model: Network, budget: Budget, parts: tuple[str, ...]) -> Magnitude:
    pruner = Magnitude(budget=budget, parts=parts)
    pruner.prepare(model, model.encoder)
    return pruner


@pytest.mark.parametrize(
    ("total", "sizes", "shares"),
    [
        (5, [10, 10], [3, 2]),  # 2.5 and 2.5: the first of equals is first
        (26, [48, 40], [14, 12]),  # 14.18 and 11.82
        (7, [1, 2, 4], [1, 2, 4]),
        (2, [3, 3, 3], [1, 1, 0]),  # three times 0.67, and two to give
        (0, [3, 4], [0, 0]),
        (6, [4, 0, 4], [3, 0, 3]),
    ],
)
def test_shares_are_proportional_and_add_up(
    total: int, sizes: list[int], shares: list[int]
) -> None:
    assert proportional_shares(total, sizes) == shares


def test_no_share_is_above_its_size() -> None:
    sizes = [1, 5, 9, 2, 2]
    for total in range(sum(sizes) + 1):
        shares = proportional_shares(total, sizes)
        assert sum(shares) == total
        assert all(
            abs(share - total * size / 19) < 1 and share <= size
            for share, size in zip(shares, sizes, strict=True)
        )


def test_half_the_amount_prunes_half_of_the_excess() -> None:
    model = Network()
    pruner = magnitude(model, CountBudget(count=7), ("encoder_linear",))
    assert pruner.excess == 17
    pruner.prune(0.5)  # 24 - floor(17 / 2)
    assert pruner.ledger().kept_in("encoder_linear") == 16


@pytest.mark.parametrize(
    ("parts", "paths"),
    [
        (("encoder_linear",), ["encoder.2.weight"]),
        (("embeddings",), ["encoder.0.weight"]),
        (("encoder_other",), ["encoder.1.weight", "encoder.1.bias", "encoder.2.bias"]),
        (("heads",), ["head.weight", "head.bias"]),
        (
            ("embeddings", "encoder_linear", "heads"),
            ["encoder.0.weight", "encoder.2.weight", "head.weight", "head.bias"],
        ),
    ],
)
def test_only_parts_in_scope_are_masked(parts: tuple[str, ...], paths: list[str]) -> None:
    pruner = magnitude(Network(), FractionBudget(fraction=0.95, of="total"), parts)
    assert list(pruner.masks()) == paths
    pruner.prune(1.0)
    # 20 + 24 + 14 in the encoder and 21 in the head are 79; 95 % of it is 75.05.
    assert pruner.ledger().kept_in("total") == 75
    for part in {"embeddings", "encoder_linear", "encoder_other", "heads"} - set(parts):
        assert pruner.ledger().kept[part] == pruner.ledger().dense[part]


@pytest.mark.parametrize("parts", [("attention",), ()])
def test_unknown_or_no_parts_are_an_error(parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"some of embeddings, encoder_linear, .* but are \["):
        Magnitude(budget=FullBudget(), parts=parts)


def test_model_without_the_parts_is_an_error() -> None:
    with pytest.raises(ValueError, match="LayerNorm has no parameters to prune in encoder_linear"):
        Magnitude(budget=FullBudget()).prepare(nn.LayerNorm(3))


def test_pruning_what_the_budget_does_not_count_is_an_error() -> None:
    budget = FractionBudget(fraction=0.5, of="encoder_linear")
    with pytest.raises(ValueError, match="embeddings, encoder_linear and the budget counts"):
        magnitude(Network(), budget, ("embeddings", "encoder_linear"))


def test_full_budget_prunes_nothing_in_any_scope() -> None:
    model = Network()
    pruner = magnitude(model, FullBudget(), ("embeddings", "encoder_linear"))
    pruner.prune(1.0)
    assert pruner.excess == 0
    assert all(mask.all() for mask in pruner.masks().values())


@pytest.mark.parametrize(
    "pruner",
    [
        Magnitude(budget=FractionBudget(fraction=0.25)),
        Movement(budget=FractionBudget(fraction=0.25), score_learning_rate=0.1),
    ],
    ids=["magnitude", "movement"],
)
def test_gradients_of_pruned_weights_reach_neither_clipping_nor_moments(
    pruner: ElementWisePruner,
) -> None:
    model = Network()
    pruner.prepare(model, model.encoder)
    pruner.prune(1.0)
    (mask,) = pruner.masks().values()
    weight = model.get_parameter("encoder.2.weight")
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.tensor([0, 1, 2])).square().sum().backward()
    assert weight.grad is not None
    dense = weight.grad.clone()
    pruner.before_step()
    assert torch.equal(weight.grad, dense * mask)
    assert dense[~mask].any()
    optimizer.step()
    pruner.after_step()
    assert not optimizer.state[weight]["exp_avg"][~mask].any()
    assert optimizer.state[weight]["exp_avg"][mask].any()


def test_masks_follow_a_model_that_moves() -> None:
    model = Network()
    pruner = magnitude(model, CountBudget(count=7), ("encoder_linear",))
    model.to(torch.float16)
    pruner.prune(1.0)
    assert int(model.get_buffer("encoder.2.weight_mask").sum()) == 7
    assert int(model.get_parameter("encoder.2.weight").count_nonzero()) == 7
