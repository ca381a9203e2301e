"""The least squares behind rescaling, by another solver, and what it does to a cut encoder."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_encoders import HEAD_SIZE, HEADS_PER_LAYER, INTERMEDIATE, tiny_encoder, tokens
from torch import Tensor, nn

from multiprune.models.architectures import NEURONS, QUERY_KEY, VALUE
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import layers_of
from multiprune.pruning.rescale import Moments, rescale, unit_factors

TOKENS, UNITS, SIZE, OUT = 40, 3, 2, 5


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return draw(TOKENS, UNITS * SIZE), draw(OUT, UNITS * SIZE), draw(TOKENS, OUT)


def moments_of(inputs: Tensor, outputs: Tensor) -> Moments:
    size = inputs.shape[1]
    zeros = inputs.new_zeros
    moments = Moments(zeros(size, size), zeros(size, outputs.shape[1]))
    for part, wanted in zip(inputs.split(7), outputs.split(7), strict=True):  # type: ignore[no-untyped-call]
        moments.add(part, wanted)
    return moments


def columns(inputs: Tensor, weight: Tensor, units: int) -> Tensor:
    """Return what each unit contributes to every output of every token, one column a unit."""
    size = weight.shape[1] // units
    parts = [slice(at * size, (at + 1) * size) for at in range(units)]
    return torch.stack([(inputs[:, one] @ weight[:, one].T).reshape(-1) for one in parts], 1)


@pytest.mark.parametrize("damping", [1e-9, 0.1, 3.0])
def test_factors_are_those_of_least_squares_centred_at_1(damping: float) -> None:
    inputs, weight, outputs = problem()
    found = unit_factors(moments_of(inputs, outputs), weight, UNITS, damping=damping)
    matrix = columns(inputs, weight, UNITS)
    ridge = (damping * matrix.square().sum(0).mean()) ** 0.5 * torch.eye(UNITS).double()
    stacked = torch.cat([matrix, ridge])
    wanted = torch.cat([outputs.reshape(-1), ridge.sum(1)])
    torch.testing.assert_close(found, torch.linalg.lstsq(stacked, wanted).solution)


def test_factors_by_hand() -> None:
    # Two units of one input that give 1 and 2 of one output in turn, where 3 and 1 are wanted.
    inputs, weight = torch.eye(2).double(), torch.tensor([[1.0, 2.0]]).double()
    outputs = torch.tensor([[3.0], [1.0]]).double()
    found = unit_factors(moments_of(inputs, outputs), weight, 2, damping=1e-12)
    torch.testing.assert_close(found, torch.tensor([3.0, 0.5]).double())


def test_what_is_right_already_stays() -> None:
    inputs, weight, _ = problem()
    found = unit_factors(moments_of(inputs, inputs @ weight.T), weight, UNITS, damping=0.1)
    torch.testing.assert_close(found, torch.ones(UNITS).double())


def test_units_that_do_nothing_keep_their_scale() -> None:
    inputs, weight, outputs = problem()
    moments = moments_of(inputs, outputs)
    assert unit_factors(moments, torch.zeros_like(weight), UNITS, damping=0.1).tolist() == [1, 1, 1]


def cut(name: str, *, heads: int = 2, neurons: int = 9) -> tuple[nn.Module, nn.Module]:
    """Return an encoder cut to its last heads and neurons, and the whole one."""
    whole = tiny_encoder(name)
    encoder = copy.deepcopy(whole)
    for layer in layers_of(encoder):
        dimensions = torch.arange(HEADS_PER_LAYER).repeat_interleave(HEAD_SIZE)
        kept = dimensions >= HEADS_PER_LAYER - heads
        rest = torch.arange(INTERMEDIATE) >= INTERMEDIATE - neurons
        shrink_layer(layer, {QUERY_KEY: kept, VALUE: kept, NEURONS: rest})
    return encoder.train(False), whole.train(False)


def given(encoder: nn.Module, number: int, kind: str) -> Tensor:
    """Return what an output projection gives to the tokens of a batch."""
    found: list[Tensor] = []
    linear = layers_of(encoder)[number].output_of(kind)
    handle = linear.register_forward_hook(lambda _, _args, output: found.append(output.detach()))
    with torch.no_grad():
        encoder(**tokens())
    handle.remove()
    return torch.stack(found)[:, tokens()["attention_mask"].bool()]


@pytest.mark.parametrize("name", ["bert", "distilbert", "modernbert", "albert"])
def test_first_projection_comes_closer_to_the_whole_encoder(name: str) -> None:
    encoder, whole = cut(name)
    wanted = given(whole, 0, VALUE)
    before = (given(encoder, 0, VALUE) - wanted).norm()
    assert rescale(encoder, whole, [tokens()]) == len(layers_of(whole))
    # The projections of a shared layer are read anew where others have changed.
    assert name == "albert" or (given(encoder, 0, VALUE) - wanted).norm() < before


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_last_sum_on_the_residual_stream_comes_as_close_as_factors_can(name: str) -> None:
    encoder, whole = cut(name)
    unscaled = layers_of(encoder)[-1].output_of(NEURONS).weight.detach().clone()
    rescale(encoder, whole, [tokens()], damping=0.2)
    found = layers_of(encoder)[-1].output_of(NEURONS)
    rescaled = found.weight.detach().clone()
    with torch.no_grad():
        found.weight.copy_(unscaled)
    bias = 0 if found.bias is None else found.bias.detach()
    output, residual = summed(encoder)
    wanted = sum(summed(whole)) - residual - bias
    matrix = columns(read_by(found, encoder), unscaled, len(unscaled.T))
    torch.testing.assert_close(matrix.sum(1).view_as(output), output - bias)
    ridge = (0.2 * matrix.square().sum(0).mean()).sqrt() * torch.eye(matrix.shape[1]).double()
    stacked, targets = torch.cat([matrix, ridge]), torch.cat([wanted.reshape(-1), ridge.sum(1)])
    factors = torch.linalg.lstsq(stacked, targets).solution
    torch.testing.assert_close(rescaled, unscaled * factors)


def summed(encoder: nn.Module) -> tuple[Tensor, Tensor]:
    """Return what the last feed-forward network gives to tokens, and what that is added to."""
    last = layers_of(encoder)[-1]
    layer = encoder.get_submodule(last.path)
    sums: list[Tensor] = []
    if not last.architecture.norms:  # the layer returns the sum
        handle = layer.register_forward_hook(lambda _, _args, output: sums.append(output))
    else:
        norm = layer.get_submodule(last.architecture.norms[-1])
        handle = norm.register_forward_pre_hook(lambda _, args: sums.append(args[0]))
    output = given(encoder, len(layers_of(encoder)) - 1, NEURONS)[0]
    handle.remove()
    return output, sums[0].detach()[tokens()["attention_mask"].bool()] - output


def read_by(linear: nn.Linear, encoder: nn.Module) -> Tensor:
    """Return what a linear layer reads of the tokens of a batch."""
    found: list[Tensor] = []
    handle = linear.register_forward_pre_hook(lambda _, args: found.append(args[0].detach()))
    with torch.no_grad():
        encoder(**tokens())
    handle.remove()
    return found[0][tokens()["attention_mask"].bool()]


def test_whole_encoder_stays_as_it_is() -> None:
    encoder, whole = cut("bert", heads=HEADS_PER_LAYER, neurons=INTERMEDIATE)
    assert rescale(encoder, whole, [tokens(0), tokens(1)]) == 2
    torch.testing.assert_close(dict(encoder.state_dict()), dict(whole.state_dict()))


def test_padding_and_batches_change_nothing() -> None:
    batch = tokens()
    longer = {name: nn.functional.pad(part, (0, 3)) for name, part in batch.items()}
    single = [{name: part[row : row + 1] for name, part in batch.items()} for row in range(3)]
    states = []
    for batches in ([batch], [longer], single):
        encoder, whole = cut("bert")
        rescale(encoder, whole, batches)
        states.append(dict(encoder.state_dict()))
    torch.testing.assert_close(states[0], states[1])
    torch.testing.assert_close(states[0], states[2])


def test_layer_whose_factors_are_not_to_be_believed_stays_and_so_do_those_behind() -> None:
    encoder, whole = cut("bert")
    second = layers_of(whole)[1].output_of(NEURONS)
    with torch.no_grad():
        second.weight *= 1e4
    before = copy.deepcopy(encoder)
    assert rescale(encoder, whole, [tokens()]) == 1
    first, last = (
        [one.output_of(kind).weight for kind in (VALUE, NEURONS)] for one in layers_of(encoder)
    )
    old_first, old_last = (
        [one.output_of(kind).weight for kind in (VALUE, NEURONS)] for one in layers_of(before)
    )
    torch.testing.assert_close(last, old_last, rtol=0, atol=0)
    assert not any(torch.equal(*pair) for pair in zip(first, old_first, strict=True))
