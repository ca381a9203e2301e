"""Learned gates on hidden dimensions: against autograd, by chance, and multiplied in at last."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from structured_world import Network, loss_of
from tiny_encoders import HEAD_SIZE, HIDDEN, tokens
from torch import nn

from multiprune.budget import FractionBudget
from multiprune.pruning.hard_concrete import open_probability
from multiprune.pruning.hidden_state import GatedHiddenState
from multiprune.pruning.removal import HEADS, NEURONS
from multiprune.pruning.structured_l0 import StructuredL0

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of the tiny BERT: tokens, positions and segments.
ROWS = 40 + 20 + 2


def with_gates(kinds: Sequence[str], **options: Any) -> tuple[Network, StructuredL0]:
    settings: dict[str, Any] = {
        "budget": FractionBudget(fraction=0.5),
        "drop_rate": 0.3,
        "gate_learning_rate": 0.1,
        "multiplier_learning_rate": 0.1,
        "granularity": kinds,
    }
    model = Network().double()
    pruner = StructuredL0(**(settings | options))
    pruner.prepare(model, model.encoder)
    return model.train(), pruner


def test_gradient_of_gates_is_that_of_autograd() -> None:
    model, pruner = with_gates((HEADS, "hidden"))
    for log_alpha in pruner.gates.log_alpha():
        log_alpha.fill_(0.5)  # open partly
    pruner.prune(0.2)
    watched, seen = copy.deepcopy((model, pruner))
    updates: list[Any] = []
    pruner.gates.update = lambda *arguments: updates.append(arguments)  # type: ignore[method-assign]
    assert seen.hidden is not None
    gate = seen.hidden.state.get_buffer("hidden_gate").requires_grad_()
    # Of what is masked away while a gate is closed autograd knows nothing, as norms leave it out.
    for one in (model, watched):
        loss_of(one, 0).backward()  # type: ignore[no-untyped-call]
    pruner.before_step()
    pruner.after_step()
    ((sampled, read, _),) = updates
    assert torch.equal(sampled[-1], gate)
    assert gate.grad is not None
    within = (gate > 0) & (gate < 1)
    assert within.sum() > 3
    torch.testing.assert_close(read[-1], gate.grad * within, rtol=1e-9, atol=1e-12)


def test_expected_size_is_the_mean_over_gates_that_are_drawn() -> None:
    _, pruner = with_gates((HEADS, NEURONS, "hidden"), budget=FractionBudget(0.5, of="encoder"))
    generator = torch.Generator().manual_seed(0)
    probabilities = [
        open_probability(torch.randn(one.shape, generator=generator, dtype=torch.float64))
        for one in pruner.gates.log_alpha()
    ]
    sizes = []
    for _ in range(4000):
        *units, hidden = (torch.bernoulli(one, generator=generator) for one in probabilities)
        left = int(hidden.sum())
        heads, neurons = (int(torch.cat(units[of::2]).sum()) for of in (0, 1))
        of_heads = heads * HEAD_SIZE * (4 * left + 3)
        of_neurons = neurons * (2 * left + 1)
        # Embeddings, five norms, and biases of what writes to the stream.
        sizes.append(of_heads + of_neurons + left * (ROWS + 10 + 4))
    whole = 8 * HEAD_SIZE * (4 * HIDDEN + 3) + 48 * (2 * HIDDEN + 1) + HIDDEN * (ROWS + 14)
    expected = torch.tensor(sizes, dtype=torch.float64).mean() / whole
    torch.testing.assert_close(pruner._expected_size(probabilities), expected, rtol=0.01, atol=0)


def test_gates_are_multiplied_into_norms_at_the_end() -> None:
    model, pruner = with_gates(("hidden",), drop_rate=0.5)
    generator = torch.Generator().manual_seed(0)
    (log_alpha,) = pruner.gates.log_alpha()
    log_alpha.copy_(2 * torch.randn(HIDDEN, generator=generator))
    pruner.prune(0.9)
    state = pruner.hidden.state if pruner.hidden is not None else None
    assert isinstance(state, GatedHiddenState)
    dense = Network().double()
    pruner.prune(1.0)
    kept = pruner.masks()["hidden"]
    assert torch.equal(kept, log_alpha >= log_alpha[kept].min())
    folded = pruner.gates.evaluation.folded(log_alpha) * kept
    for found, before in zip(
        state.parts.norms,
        [one for one in dense.modules() if isinstance(one, nn.LayerNorm)],
        strict=True,
    ):
        torch.testing.assert_close(found.weight, before.weight * folded)
        torch.testing.assert_close(found.bias, before.bias * folded)
    before = model(tokens())
    pruner.shrink()
    torch.testing.assert_close(model(tokens()), before, rtol=0, atol=1e-12)
    pruner.finalize()
    torch.testing.assert_close(model(tokens()), before, rtol=0, atol=1e-12)


def test_norm_leaves_out_dimensions_whose_gates_are_closed() -> None:
    model, pruner = with_gates(("hidden",))
    assert pruner.hidden is not None
    gate = pruner.hidden.state.get_buffer("hidden_gate")
    gate[::2] = 0
    gate[1] = 0.5
    norm = pruner.hidden.state.parts.norms[1]
    inputs = torch.randn(3, 4, HIDDEN, dtype=torch.float64)
    found = norm(inputs)
    expected = torch.nn.functional.layer_norm(
        inputs[..., 1::2], (16,), norm.weight[1::2], norm.bias[1::2], norm.eps
    )
    expected[..., 0] *= 0.5
    torch.testing.assert_close(found[..., 1::2], expected)
    assert not found[..., ::2].any()
    assert model.training
