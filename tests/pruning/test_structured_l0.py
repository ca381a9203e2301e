"""Gates of heads, neurons, blocks, layers: against autograd, and against what is left at last."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_encoders import CONFIGS, HEAD_SIZE, HEADS_PER_LAYER, HIDDEN, INTERMEDIATE, tiny_encoder
from tiny_encoders import states_of as states
from torch.optim import AdamW

from multiprune.budget import FractionBudget, FullBudget
from multiprune.pruning.evaluation_gates import soft_gates
from multiprune.pruning.gated_state import ATTENTION_BLOCK, FEED_FORWARD_BLOCK, GATE_KINDS
from multiprune.pruning.removal import BLOCKS, HEAD_DIMENSIONS, HEADS, LAYERS, NEURONS
from multiprune.pruning.structured_l0 import StructuredL0

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

KINDS = (HEADS, NEURONS, BLOCKS, LAYERS)
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
    kinds = [kind for kind, unit in GATE_KINDS.items() if unit in pruner.granularity]
    return [state.gate(kind) for state in pruner.gated_states() for kind in kinds]


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("name", CONFIGS)
def test_gradient_of_the_gates_is_that_of_autograd(name: str, micro_batches: int) -> None:
    kinds = (HEADS, NEURONS, BLOCKS) if name == "albert" else KINDS
    encoder, pruner = with_gates(name, kinds)
    for log_alpha in pruner.gates.log_alpha():
        log_alpha.fill_(0.5)  # open partly, all of them
    pruner.prune(0.2)
    watched, seen = copy.deepcopy((encoder, pruner))
    updates: list[Any] = []
    pruner.gates.update = lambda *arguments: updates.append(arguments)  # type: ignore[method-assign]
    gates = [gate.requires_grad_() for gate in gates_of(seen)]
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


@pytest.mark.parametrize("kind", [ATTENTION_BLOCK, FEED_FORWARD_BLOCK])
def test_gate_of_a_block_closes_what_the_block_adds_and_nothing_else(kind: str) -> None:
    encoder, pruner = with_gates()
    by_hand: Any = tiny_encoder("bert").train()
    pruner.gated_states()[0].gate(kind).zero_()
    layer = by_hand.encoder.layer[0]
    output = (layer.attention if kind == ATTENTION_BLOCK else layer).output.dense
    output.weight.data.zero_()
    output.bias.data.zero_()
    torch.testing.assert_close(states(encoder), states(by_hand), rtol=0, atol=1e-12)


def test_gate_of_a_head_and_of_a_neuron_close_nothing_else() -> None:
    encoder, pruner = with_gates()
    by_hand = tiny_encoder("bert").train()
    first = pruner.gated_states()[0]
    first.gate(HEADS)[1], first.gate(NEURONS)[3] = 0.25, 0.0
    layer: Any = by_hand.get_submodule("encoder.layer.0")
    layer.attention.output.dense.weight.data[:, HEAD_SIZE : 2 * HEAD_SIZE] *= 0.25
    layer.output.dense.weight.data[:, 3] = 0
    torch.testing.assert_close(states(encoder), states(by_hand), rtol=0, atol=1e-12)


def open_with(alpha: float) -> float:
    return 1 / (1 + 1 / (alpha * 11 ** (2 / 3)))


def test_only_neurons_start_at_the_drop_rate_and_others_open() -> None:
    _, pruner = with_gates()
    kinds = list(GATE_KINDS) * 2
    for kind, log_alpha in zip(kinds, pruner.gates.log_alpha(), strict=True):
        expected = math.log(0.7 / 0.3) if kind == NEURONS else math.log(100)
        assert log_alpha.tolist() == pytest.approx([expected] * len(log_alpha)), kind


def test_expected_size_multiplies_the_gates_of_unit_block_and_layer() -> None:
    neuron, start = open_with(0.7 / 0.3), open_with(100)
    in_heads = HEADS_PER_LAYER * HEAD / LAYER
    for kinds, head, of_block in [
        (KINDS, start, start**2),
        ((HEADS, NEURONS, BLOCKS), start, start),
        ((HEADS, NEURONS, LAYERS), start, start),
        ((HEADS, NEURONS), start, 1.0),
    ]:
        _, pruner = with_gates(kinds=kinds)
        expected = of_block * (in_heads * head + (1 - in_heads) * neuron)
        assert pruner.gates.expected_size().item() == pytest.approx(expected), kinds
    _, heads = with_gates(kinds=(HEADS,))
    assert heads.gates.expected_size().item() == pytest.approx(start * in_heads + 1 - in_heads)


def test_expected_size_counts_the_biases_of_a_block_with_its_gate() -> None:
    _, pruner = with_gates(kinds=(BLOCKS,), budget=FractionBudget(fraction=0.9, of="encoder"))
    # Gates of both attentions are shut: 3 biases of 32 and the 4 matrices of each layer go.
    for number, log_alpha in enumerate(pruner.gates.log_alpha()):
        log_alpha.fill_(-50.0 if number % 2 == 0 else 50.0)
    attention = HEADS_PER_LAYER * HEAD + 4 * HIDDEN
    feed_forward = INTERMEDIATE * NEURON + INTERMEDIATE + HIDDEN
    expected = feed_forward / (attention + feed_forward)
    assert pruner.gates.expected_size().item() == pytest.approx(expected)


def test_target_goes_from_the_whole_to_the_budget() -> None:
    encoder, pruner = with_gates()
    for amount in (0.25, 0.75):
        pruner.prune(amount)
        assert encoder.get_buffer("gates_target").item() == pytest.approx(1 - amount * 0.5)


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
    learned = iter(estimated.gates.log_alpha())
    for state, units in zip(estimated.gated_states(), masked, strict=True):
        heads = units["value"].view(HEADS_PER_LAYER, HEAD_SIZE)[:, 0]
        neurons, ones = units["neurons"], torch.ones(1)
        for kind, mask in zip(
            GATE_KINDS, (heads, neurons, heads.any(), neurons.any(), ones), strict=True
        ):
            gate = soft_gates(next(learned)) * mask
            state.set_gates(kind, gate, gate)
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
    with pytest.raises(ValueError, match="Gates must be on some of heads, neurons, blocks, layers"):
        with_gates(kinds=(HEADS, HEAD_DIMENSIONS))
