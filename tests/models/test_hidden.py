"""An encoder without some hidden dimensions computes what the masked one computes at the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_encoders import HIDDEN, states_of, tiny_encoder
from torch import Tensor
from torch.optim import AdamW

from multiprune.models.hidden import (
    attach_mask,
    cut_hidden,
    gate_gradients,
    hidden_states_of,
    mask_hidden,
    norm_over,
)

NAMES = ["bert", "roberta", "xlm_roberta", "distilbert", "camembert"]
every_architecture = pytest.mark.parametrize("name", NAMES)
KEPT = torch.arange(HIDDEN) % 3 != 1


@every_architecture
def test_cut_encoder_computes_what_the_masked_one_computes(name: str) -> None:
    encoder = tiny_encoder(name)
    states = hidden_states_of(encoder)
    whole = states_of(encoder)
    handles = attach_mask(states)
    torch.testing.assert_close(states_of(encoder), whole, rtol=0, atol=1e-12)
    mask_hidden(states, KEPT)
    masked = states_of(encoder)
    assert not masked[..., ~KEPT].any()
    for handle in handles:
        handle.remove()
    cost, before = states.cost(), sum(one.numel() for one in encoder.parameters())
    cut_hidden(encoder, states, KEPT)
    torch.testing.assert_close(states_of(encoder), masked[..., KEPT], rtol=0, atol=1e-12)
    assert encoder.config.hidden_size == int(KEPT.sum())
    after = sum(one.numel() for one in encoder.parameters())
    assert before - after == cost * int((~KEPT).sum())


def test_next_step_is_that_of_the_masked_encoder() -> None:
    encoders = [tiny_encoder("bert") for _ in range(2)]
    both = [hidden_states_of(encoder) for encoder in encoders]
    optimizers = [AdamW(one.parameters(), lr=0.01, eps=1e-4) for one in encoders]
    for encoder, states, optimizer in zip(encoders, both, optimizers, strict=True):
        handles = attach_mask(states)
        for number in range(2):
            step(encoder, optimizer, number)
            mask_hidden(states, KEPT)
        if encoder is encoders[0]:
            for handle in handles:
                handle.remove()
            cut_hidden(encoder, states, KEPT, optimizer)
        step(encoder, optimizer, 2)
    mask_hidden(both[1], KEPT)
    small, masked = states_of(encoders[0]), states_of(encoders[1])
    torch.testing.assert_close(small, masked[..., KEPT], rtol=0, atol=1e-9)


def step(encoder: Any, optimizer: AdamW, number: int) -> None:
    optimizer.zero_grad()
    states_of(encoder, number).square().sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def test_norm_over_kept_dimensions_is_that_of_torch_without_the_others() -> None:
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm(HIDDEN, dtype=torch.float64)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    inputs = torch.randn(3, 5, HIDDEN, dtype=torch.float64)
    expected = torch.nn.functional.layer_norm(
        inputs[..., KEPT], (int(KEPT.sum()),), norm.weight[KEPT], norm.bias[KEPT], norm.eps
    )
    found = norm_over(inputs, norm, KEPT)
    torch.testing.assert_close(found[..., KEPT], expected)
    assert not found[..., ~KEPT].any()


@every_architecture
def test_gradients_of_gates_are_those_of_gates_in_the_graph(name: str) -> None:
    encoder = tiny_encoder(name)
    states = hidden_states_of(encoder)
    gates = torch.ones(HIDDEN, dtype=torch.float64, requires_grad=True)

    def close(_: Any, __: Any, output: Tensor) -> Tensor:
        return output * gates

    for norm in states.norms:
        norm.register_forward_hook(close)
    (states_of(encoder).sin().sum()).backward()  # type: ignore[no-untyped-call]
    assert gates.grad is not None
    torch.testing.assert_close(gate_gradients(states).double(), gates.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["modernbert", "albert", "electra", "deberta", "mpnet"])
def test_other_architectures_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="Hidden dimensions are known of bert, roberta"):
        hidden_states_of(tiny_encoder(name))
