"""Gates of heads, neurons and layers: against autograd, and against what is left at the end."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_encoders import CONFIGS, HEAD_SIZE, HEADS_PER_LAYER, HIDDEN, INTERMEDIATE, tiny_encoder
from tiny_encoders import states_of as states
from torch.optim import AdamW

from multiprune.budget import FractionBudget, FullBudget
from multiprune.pruning.removal import HEAD_DIMENSIONS, HEADS, LAYERS, NEURONS
from multiprune.pruning.structured_l0 import StructuredL0

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

KINDS = (HEADS, NEURONS, LAYERS)
HEAD, NEURON = 4 * HEAD_SIZE * HIDDEN, 2 * HIDDEN
LAYER = HEADS_PER_LAYER * HEAD + INTERMEDIATE * NEURON


def with_gates(
    name: str = "bert", kinds: Sequence[str] = KINDS, **options: Any
) -> tuple[nn.Module, StructuredL0]:
    encoder = tiny_encoder(name)
    settings: dict[str, Any] = {
        "budget": FractionBudget(fraction=0.5),
        "drop_rate": 0.3,
        "gate_learning_rate": 0.1,
        "multiplier_learning_rate": 0.1,
        "granularity": kinds,
    }
    pruner = StructuredL0(**(settings | options))
    pruner.prepare(encoder)
    return encoder.train(), pruner


def backward(encoder: nn.Module, number: int = 0) -> None:
    (states(encoder, number) - 1).square().mean().backward()  # type: ignore[no-untyped-call]


def step(encoder: nn.Module, pruner: StructuredL0, optimizer: AdamW, number: int) -> None:
    optimizer.zero_grad()
    backward(encoder, number)
    pruner.before_step()
    optimizer.step()
    pruner.after_step()


def gates_of(pruner: StructuredL0) -> list[Tensor]:
    return [state.gate(kind) for state in pruner.gated_states() for kind in KINDS]


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("name", CONFIGS)
def test_gradient_of_the_gates_is_that_of_autograd(name: str, micro_batches: int) -> None:
    kinds = (HEADS, NEURONS) if name == "albert" else KINDS
    encoder, pruner = with_gates(name, kinds)
    pruner.prune(0.2)
    watched, seen = copy.deepcopy((encoder, pruner))
    updates: list[Any] = []
    pruner.gates.update = lambda *arguments: updates.append(arguments)  # type: ignore[method-assign]
    gates = [gate.requires_grad_() for gate in gates_of(seen)]
    if name == "albert":
        gates = gates[:2]
    for number in range(micro_batches):
        backward(encoder, number)
        backward(watched, number)
    pruner.before_step(0.7)
    pruner.after_step()
    ((sampled, read, scale),) = updates
    assert scale == 0.7
    open_partly = 0
    for gate, value, gradient in zip(gates, sampled, read, strict=True):
        assert torch.equal(gate, value)
        assert gate.grad is not None
        within = (value > 0) & (value < 1)
        open_partly += int(within.sum())
        torch.testing.assert_close(gradient, gate.grad * within, rtol=1e-9, atol=1e-12)
    assert open_partly > 3


def test_gate_of_a_layer_closes_all_that_the_layer_adds() -> None:
    encoder, pruner = with_gates()
    for state in pruner.gated_states():
        state.gate(LAYERS).zero_()
    layer: Any = encoder.get_submodule("encoder.layer.0")
    hidden = torch.randn(2, 5, HIDDEN, dtype=torch.float64)
    expected = layer.output.LayerNorm(layer.attention.output.LayerNorm(hidden))
    torch.testing.assert_close(layer(hidden), expected, rtol=0, atol=1e-12)


def test_gate_of_a_head_and_of_a_neuron_close_nothing_else() -> None:
    encoder, pruner = with_gates()
    by_hand = tiny_encoder("bert").train()
    first = pruner.gated_states()[0]
    first.gate(HEADS)[1], first.gate(NEURONS)[3] = 0.25, 0.0
    layer: Any = by_hand.get_submodule("encoder.layer.0")
    layer.attention.output.dense.weight.data[:, HEAD_SIZE : 2 * HEAD_SIZE] *= 0.25
    layer.output.dense.weight.data[:, 3] = 0
    torch.testing.assert_close(states(encoder), states(by_hand), rtol=0, atol=1e-12)


def test_expected_size_multiplies_the_gate_of_the_layer() -> None:
    _, pruner = with_gates()
    # Each gate is open with the same probability p, and what is in a layer with p^2.
    alpha = 0.7 / 0.3
    probability = 1 / (1 + 1 / (alpha * 11 ** (2 / 3)))
    assert pruner.gates.expected_size().item() == pytest.approx(probability**2)
    _, without = with_gates(kinds=(HEADS, NEURONS))
    assert without.gates.expected_size().item() == pytest.approx(probability)
    _, heads = with_gates(kinds=(HEADS,))
    share = HEADS_PER_LAYER * HEAD / LAYER
    assert heads.gates.expected_size().item() == pytest.approx(probability * share + 1 - share)


def test_target_goes_from_the_expected_start_to_the_budget() -> None:
    encoder, pruner = with_gates()
    start = pruner.gates.expected_size().item()
    for amount in (0.25, 0.75):
        pruner.prune(amount)
        target = encoder.get_buffer("gates_target").item()
        assert target == pytest.approx(start + amount * (0.5 - start))


def test_expected_size_follows_its_target_and_what_the_loss_does_not_see_goes() -> None:
    """The loss is that of a teacher whose second layer adds nothing."""
    encoder, pruner = with_gates(drop_rate=0.05)
    layer: Any = encoder.get_submodule("encoder.layer.1")
    for linear in (layer.attention.output.dense, layer.output.dense):
        linear.weight.data *= 1e-3
        linear.bias.data.zero_()
    teacher = copy.deepcopy(encoder).eval()
    optimizer = AdamW(encoder.parameters(), lr=1e-5)
    for number in range(150):
        pruner.prune(min(0.999, (number + 1) / 100))
        optimizer.zero_grad()
        expected = states(teacher, number).detach()
        (states(encoder, number) - expected).square().mean().backward()  # type: ignore[no-untyped-call]
        pruner.before_step()
        optimizer.step()
        pruner.after_step()
    assert pruner.gates.expected_size().item() == pytest.approx(0.5, abs=0.06)
    pruner.prune(1.0)
    first, second = (state.kept() for state in pruner.states)
    kept = (int(first.heads.sum()), int(first.neurons.sum()))
    assert kept == (HEADS_PER_LAYER, INTERMEDIATE)
    assert second.dropped


def test_gates_are_folded_into_the_weights_at_the_end() -> None:
    encoder, pruner = with_gates(kinds=KINDS)
    optimizer = AdamW(encoder.parameters(), lr=0.01)
    pruner.prune(0.5)
    for number in range(8):
        step(encoder, pruner, optimizer, number)
    before, estimated = copy.deepcopy((encoder, pruner))
    assert not torch.allclose(states(encoder), states(encoder.eval()))
    encoder.train()
    pruner.prune(1.0)
    masked = [state.units() for state in pruner.states]
    for state, units in zip(estimated.gated_states(), masked, strict=True):
        heads = units["value"].view(HEADS_PER_LAYER, HEAD_SIZE)[:, 0]
        for kind, mask in ((HEADS, heads), (NEURONS, units["neurons"])):
            gate = state.gate(kind, training=False)
            state.set_gates(kind, gate, gate * mask)
        if not heads.any():
            state.set_gates(LAYERS, *[torch.zeros(1)] * 2)
    before.eval()
    torch.testing.assert_close(states(encoder), states(before), rtol=0, atol=1e-12)
    assert all((gate == 1).all() for gate in gates_of(pruner))
    assert not pruner.gates.learning
    expected = states(encoder)
    assert pruner.shrink()
    torch.testing.assert_close(states(encoder), expected, rtol=0, atol=1e-12)
    pruner.prune(1.0)
    torch.testing.assert_close(states(encoder), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("learned", [False, True])
def test_finalized_encoder_has_no_gates_and_computes_what_evaluation_did(
    learned: bool,
) -> None:
    encoder, pruner = with_gates()
    if learned:
        pruner.prune(0.5)
    pruner.prune(1.0)
    expected = states(encoder.eval())
    pruner.finalize()
    torch.testing.assert_close(states(encoder), expected, rtol=0, atol=1e-12)
    assert not [name for name, _ in encoder.named_buffers() if "gate" in name]
    assert not [one for one in encoder.modules() if one._forward_hooks or one._forward_pre_hooks]


def test_full_budget_opens_no_gates() -> None:
    encoder, pruner = with_gates(budget=FullBudget())
    expected = states(encoder)
    pruner.prune(0.5)
    pruner.prune(1.0)
    assert torch.equal(states(encoder), expected)
    assert not pruner.gates.learning


def test_dimensions_of_heads_have_no_gates() -> None:
    with pytest.raises(ValueError, match="Gates must be on some of heads, neurons, layers, but"):
        with_gates(kinds=(HEADS, HEAD_DIMENSIONS))
