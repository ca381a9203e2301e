"""Gates in layers, against autograd through the gates themselves."""

import pytest
import torch
from torch import Tensor, nn

from multiprune.pruning.layer_gates import GateVector


class Gated(nn.Module):
    """Two linear layers behind gates, each of which is that of two inputs, and an output gate."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = (nn.Linear(4, 3, dtype=torch.float64) for _ in range(2))
        for name, value in (("inputs_gate", [0.3, 0.9]), ("outputs_gate", [0.6])):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))
            self.register_buffer(f"{name.removesuffix('gate')}evaluation_gate", torch.zeros(2))

    def loss(self, states: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
        first: Tensor = self.first(states * inputs.repeat_interleave(2)) * outputs
        second: Tensor = self.second(states) * outputs
        return (first**3).sum() + (second**3).sum()


@pytest.mark.parametrize("gates_outputs", [False, True])
def test_gradient_is_that_of_autograd(gates_outputs: bool) -> None:
    model, states = Gated(), torch.randn(5, 4, dtype=torch.float64)
    gates = [model.get_buffer(f"{name}_gate").clone() for name in ("inputs", "outputs")]
    for gate in gates:
        gate.requires_grad_()
    (expected,) = torch.autograd.grad(model.loss(states, *gates), gates[gates_outputs])

    gated = (
        ("outputs_", [model.first, model.second]) if gates_outputs else ("inputs_", [model.first])
    )
    # The weights of the model are those behind the gates: backward reads the gates off them.
    model.loss(states, *(gate.detach() for gate in gates)).backward()  # type: ignore[no-untyped-call]
    vector = GateVector(model, *gated, gates_outputs=gates_outputs)
    torch.testing.assert_close(vector.gradient(), expected)


def test_a_loss_that_does_not_depend_on_the_layers_has_no_gradient() -> None:
    model = Gated()
    assert GateVector(model, "inputs_", [model.first]).gradient().tolist() == [0, 0]


def test_values_are_shown_to_the_module() -> None:
    model = Gated()
    training, evaluation = torch.tensor([0.1, 0.2]).double(), torch.tensor([0.0, 1.0])
    GateVector(model, "inputs_", []).show(training, evaluation)
    assert torch.equal(model.get_buffer("inputs_gate"), training)
    assert torch.equal(model.get_buffer("inputs_evaluation_gate"), evaluation)
    assert model.get_buffer("outputs_gate").tolist() == [0.6]
