"""Attribution against finite differences, captum, sums by hand, and the gradients of weights."""

from __future__ import annotations

import copy
import gc
from typing import TYPE_CHECKING, Any

import captum.attr
import pytest
import torch
from tiny_encoders import CONFIGS, HIDDEN, tiny_encoder, tokens
from torch import Tensor, nn

from multiprune.models.architectures import NEURONS, QUERY_KEY, VALUE
from multiprune.models.structure import layers_of
from multiprune.pruning.attribution import (
    ActivationGradient,
    ActivationNorm,
    Attribution,
    Fisher,
    IntegratedGradients,
    Taylor,
    max_over_tokens,
    mean_over_tokens,
    sum_over_tokens,
)
from multiprune.pruning.calibration import LogProbabilities, attributed
from multiprune.pruning.importance import Scores, gate_gradients
from multiprune.pruning.sites import linear_outputs, projection_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from transformers import PreTrainedModel

    from multiprune.pruning.sites import Site, Sites

ANSWERS = torch.tensor([0, 2, 1])
METHODS = {
    "max": ActivationGradient(),
    "sum": ActivationGradient(tokens=sum_over_tokens),
    "mean": ActivationGradient(tokens=mean_over_tokens),
    "absolute": ActivationGradient(absolute=True),
    "taylor": Taylor(),
    "fisher": Fisher(),
    "integrated": IntegratedGradients(steps=3),
    "norm": ActivationNorm(),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
every_architecture = pytest.mark.parametrize("name", CONFIGS)
every_kind_of_site = pytest.mark.parametrize("sites", [linear_outputs, projection_inputs])
# What the projections of relative positions share with others counts in the gradients of weights.
SHARES_WEIGHTS = "deberta_shared_keys"


class Network(nn.Module):
    """Answers with the mean state of the tokens that are not padding."""

    def __init__(self, name: str = "bert") -> None:
        super().__init__()
        self.encoder: PreTrainedModel = tiny_encoder(name)
        torch.manual_seed(0)
        self.head = nn.Linear(HIDDEN, 3).double()

    def log_probabilities(self, batch: dict[str, Tensor]) -> Tensor:
        mask = batch["attention_mask"][:, :, None]
        states = self.encoder(**batch).last_hidden_state
        logits: Tensor = self.head((states * mask).sum(1) / mask.sum(1))
        return logits.log_softmax(-1)[range(len(logits)), ANSWERS[: len(logits)]]

    def attributed(
        self,
        method: Attribution,
        batches: Iterable[dict[str, Tensor]],
        weights: Tensor | None = None,
    ) -> list[Scores]:
        def answers(batch: dict[str, Tensor]) -> LogProbabilities:
            return LogProbabilities(self.log_probabilities(batch), weights)

        return attributed(self, self.encoder, method, batches, answers)


def one_example(batch: dict[str, Tensor], number: int, *, padding: int | None = None) -> Any:
    """Return an example of a batch, padded otherwise if that is asked for."""
    length = int(batch["attention_mask"][number].sum())
    if padding is None:
        return {name: part[number : number + 1, :length] for name, part in batch.items()}
    ids = torch.full((1, length + padding), 7)
    ids[0, :length] = batch["input_ids"][number, :length]
    mask = (torch.arange(length + padding) < length).long()[None]
    return {"input_ids": ids, "attention_mask": mask}


def assert_close(actual: Sequence[Scores], expected: Sequence[Scores], **options: Any) -> None:
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(vars(one), vars(other), **options)


class Gate:
    """Scales one unit, wherever a site reads it."""

    def __init__(self, sites: Sequence[Site], kind: str, index: int) -> None:
        self.sites, self.kind, self.index = sites, kind, index
        self.value = 1.0

    def scaled(self, site: Site, tensor: Tensor) -> Tensor:
        gates = torch.ones_like(tensor)
        for kind, part in site.parts:
            if kind == self.kind:
                gates[..., part.start + self.index] = self.value
        return tensor * gates

    def attach(self) -> None:
        for site in self.sites:
            self._attach_to(site)

    def _attach_to(self, site: Site) -> None:
        if site.reads_inputs:
            site.linear.register_forward_pre_hook(lambda _, args: (self.scaled(site, args[0]),))
        else:
            site.linear.register_forward_hook(lambda _, _args, output: self.scaled(site, output))


@every_kind_of_site
@every_architecture
def test_sum_over_tokens_is_the_finite_difference_of_a_gate(name: str, sites: Sites) -> None:
    network, batch = Network(name), tokens()
    measured = network.attributed(ActivationGradient(tokens=sum_over_tokens, sites=sites), [batch])
    for number, kind, index in ((0, QUERY_KEY, 5), (0, VALUE, 9), (-1, NEURONS, 3)):
        gated = copy.deepcopy(network)
        gate = Gate(sites(layers_of(gated.encoder)[number]), kind, index)
        gate.attach()
        if kind == QUERY_KEY and name.startswith("deberta"):
            continue  # a gate would also scale relative positions
        values = []
        step = 1e-3 if name == "modernbert" else 1e-5  # its rotary positions are float32
        for value in (1 + step, 1 - step):
            gate.value = value
            with torch.no_grad():
                values.append(float(gated.log_probabilities(batch).sum()))
        found = float(getattr(measured[number], kind).reshape(-1)[index])
        assert found == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-8)


@every_architecture
def test_taylor_is_what_the_gradients_of_weights_say(name: str) -> None:
    network, batches = Network(name), [tokens(0), tokens(1)]
    measured = network.attributed(Taylor(), batches)
    sum(network.log_probabilities(batch).sum() for batch in batches).backward()  # type: ignore[union-attr]
    expected = [gate_gradients(layer) for layer in layers_of(network.encoder)]
    for one, other in zip(measured, expected, strict=True):
        for kind, part in vars(other).items():
            if kind == "query_key" and name == SHARES_WEIGHTS:
                continue
            # Gradients of gates are rounded to float32 there.
            torch.testing.assert_close(getattr(one, kind).float(), part.abs())


def test_activation_gradient_is_captums() -> None:
    network, batch = Network(), tokens()
    measured = network.attributed(ActivationGradient(tokens=max_over_tokens), [batch])
    layer: Any = network.encoder.get_submodule("encoder.layer.1")

    def forward(ids: Tensor) -> Tensor:
        return network.log_probabilities({**batch, "input_ids": ids})

    def of(linear: nn.Module) -> Tensor:
        found = captum.attr.LayerGradientXActivation(forward, linear).attribute(batch["input_ids"])
        assert isinstance(found, Tensor)
        rows = zip(found.detach(), batch["attention_mask"].bool(), strict=True)
        return torch.stack([row[mask].amax(0) for row, mask in rows]).sum(0)

    attention = layer.attention.self
    expected = of(attention.query) + of(attention.key)
    torch.testing.assert_close(measured[1].query_key.view(-1), expected)
    torch.testing.assert_close(measured[1].value.view(-1), of(attention.value))
    torch.testing.assert_close(measured[1].neurons, of(layer.intermediate.dense))


@pytest.mark.parametrize("number", [0, 1])
def test_integrated_gradients_are_captums(number: int) -> None:
    network, batch = Network(), tokens()
    measured = network.attributed(IntegratedGradients(steps=20), [batch])[number]
    for path, found in (
        ("attention.output.dense", measured.value.view(-1)),
        ("output.dense", measured.neurons),
    ):
        linear = network.encoder.get_submodule(f"encoder.layer.{number}.{path}")
        torch.testing.assert_close(found, _integrated_from_zero(network, batch, linear, steps=20))


def _integrated_from_zero(
    network: Network, batch: dict[str, Tensor], linear: nn.Module, steps: int
) -> Tensor:
    """Integrate with captum over what a linear layer reads, handed over as an input."""
    read: list[Tensor] = []
    handle = linear.register_forward_pre_hook(lambda _, args: read.append(args[0].detach()))
    network.log_probabilities(batch)
    handle.remove()

    def forward(activations: Tensor) -> Tensor:
        hook = linear.register_forward_pre_hook(lambda *_: (activations,))
        copies = len(activations) // len(ANSWERS)
        mask = batch["attention_mask"].repeat(copies, 1)
        ids = batch["input_ids"].repeat(copies, 1)
        states = network.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        hook.remove()
        weights = mask[:, :, None]
        logits = network.head((states * weights).sum(1) / weights.sum(1))
        answers: Tensor = logits.log_softmax(-1)[range(len(logits)), ANSWERS.repeat(copies)]
        return answers

    found: Any = captum.attr.IntegratedGradients(forward).attribute(
        read[0], n_steps=steps, method="riemann_middle"
    )
    total: Tensor = found.sum((0, 1))
    return total


@every_kind_of_site
@pytest.mark.parametrize("name", ["bert", "deberta", "modernbert", "albert"])
def test_integrated_gradients_add_up_to_what_the_units_of_a_place_do(
    name: str, sites: Sites
) -> None:
    network, batch = Network(name), tokens()
    measured = network.attributed(IntegratedGradients(steps=50, sites=sites), [batch])
    for number, one in enumerate(measured):
        # All of query, key and value are the outputs of one linear layer.
        fused = name == "modernbert" and sites is linear_outputs
        of_attention = one.value.sum() + (one.query_key.sum() if fused else 0)
        for kind, total in ((VALUE, of_attention), (NEURONS, one.neurons.sum())):
            closed = copy.deepcopy(network)
            nn.init.zeros_(layers_of(closed.encoder)[number].output_of(kind).weight)
            with torch.no_grad():
                difference = network.log_probabilities(batch) - closed.log_probabilities(batch)
            assert float(total) == pytest.approx(float(difference.sum()), rel=1e-3, abs=1e-5)


def test_error_of_integrated_gradients_falls_with_the_square_of_the_steps() -> None:
    network, batch = Network(), tokens()
    exact, coarse, fine = (
        network.attributed(IntegratedGradients(steps=steps), [batch])[0].neurons
        for steps in (64, 4, 16)
    )
    assert (fine - exact).norm() < (coarse - exact).norm() / 8


@every_method
def test_padding_changes_nothing(method: Attribution) -> None:
    network, batch = Network(), tokens()
    assert not batch["attention_mask"].all()
    for number in range(3):
        bare = network.attributed(method, [one_example(batch, number)])
        padded = network.attributed(method, [one_example(batch, number, padding=5)])
        assert_close(padded, bare)


@every_method
def test_examples_are_summed_however_they_are_batched(method: Attribution) -> None:
    network, batch = Network(), tokens()
    whole = network.attributed(method, [batch, batch])
    answers = ANSWERS.tolist()
    parts = []
    for number in range(3):
        single = one_example(batch, number)
        network_of_one = _answering(network, answers[number])
        parts.append(network_of_one.attributed(method, [single]))

    def summed(*values: Tensor) -> Tensor:
        raw = [one.square() if isinstance(method, ActivationNorm) else one for one in values]
        total = 2 * torch.stack(raw).sum(0)
        return total.sqrt() if isinstance(method, ActivationNorm) else total

    if isinstance(method, Taylor):
        return  # takes the absolute value of the sum, which the gradients of weights tell above
    for layer, by_example in zip(whole, zip(*parts, strict=True), strict=True):
        for name, value in vars(layer).items():
            expected = summed(*(getattr(one, name) for one in by_example))
            torch.testing.assert_close(value, expected)


def _answering(network: Network, answer: int) -> Network:
    """Return the network with its answers in another order: 0 stands for ``answer``."""
    permuted = copy.deepcopy(network)
    order = [answer, *(one for one in range(3) if one != answer)]
    with torch.no_grad():
        permuted.head.weight.copy_(network.head.weight[order])
        permuted.head.bias.copy_(network.head.bias[order])
    return permuted


@every_method
def test_weight_of_two_is_an_example_twice_and_of_zero_none(method: Attribution) -> None:
    network, batch = Network(), tokens()
    every = torch.arange(3)
    weighted = network.attributed(method, [batch], weights=2.0 * (every == 1))
    alone = _answering(network, int(ANSWERS[1]))
    once = one_example(batch, 1)
    twice = alone.attributed(method, [once, once])
    assert_close(weighted, twice)


def test_reductions_over_tokens_by_hand() -> None:
    values = torch.tensor(
        [[[1.0, -5.0], [3.0, -1.0], [9.0, 9.0]], [[2.0, 2.0], [0.0, 0.0], [7, 7]]]
    )
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert max_over_tokens(values, mask).tolist() == [[3, -1], [2, 2]]
    assert sum_over_tokens(values, mask).tolist() == [[4, -6], [2, 2]]
    assert mean_over_tokens(values, mask).tolist() == [[2, -3], [2, 2]]


@pytest.mark.parametrize("reduce", [max_over_tokens, sum_over_tokens, mean_over_tokens])
def test_example_without_tokens_counts_nothing(reduce: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert reduce(torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool)).tolist() == [[0, 0, 0]]


def test_fisher_is_the_sum_of_squares_over_examples_of_what_their_gates_get() -> None:
    network, batch = Network(), tokens()
    measured = network.attributed(Fisher(), [batch])[0]
    answers = ANSWERS.tolist()
    squares = torch.zeros(4, dtype=torch.float64)
    for number in range(3):
        one = _answering(network, answers[number])
        one.log_probabilities(one_example(batch, number)).sum().backward()  # type: ignore[no-untyped-call]
        dense: Any = one.encoder.get_submodule("encoder.layer.0.attention.output.dense")
        squares += (dense.weight * dense.weight.grad).sum(0).view(4, 8).sum(1).square()
    torch.testing.assert_close(measured.heads, squares)


def test_steps_must_be_one_or_more() -> None:
    with pytest.raises(
        ValueError, match=r"`steps` must be a whole number of at least 1, but is 0\."
    ):
        IntegratedGradients(steps=0)


def test_model_is_left_as_it_was_also_after_a_failure() -> None:
    network = Network().train()
    frozen = network.encoder.embeddings.word_embeddings.weight.requires_grad_(False)  # type: ignore[union-attr]
    before = {name: one.clone() for name, one in network.state_dict().items()}
    network.attributed(METHODS["max"], [tokens()])

    def fails(_: object) -> LogProbabilities:
        raise RuntimeError("no answer")

    with pytest.raises(RuntimeError, match="no answer"):
        attributed(network, network.encoder, METHODS["max"], [0], fails)
    assert all(module.training for module in network.modules())
    assert all(one.grad is None for one in network.parameters())
    assert [one for one in network.parameters() if not one.requires_grad] == [frozen]
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    assert not any(getattr(module, name) for module in network.modules() for name in hooks)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


@pytest.mark.slow
@every_method
def test_memory_does_not_grow_with_the_number_of_batches(method: Attribution) -> None:
    network = Network()
    held: list[int] = []

    def answers(number: int) -> LogProbabilities:
        found = [one for one in gc.get_objects() if issubclass(type(one), Tensor)]
        held.append(sum(one.untyped_storage().nbytes() for one in found))
        return LogProbabilities(network.log_probabilities(tokens(number)))

    attributed(network, network.encoder, method, range(6), answers)
    passes = len(method.passes(2 * len(projection_inputs(layers_of(network.encoder)[0]))))
    assert len(held) == 6 * passes
    assert held[2 * passes] == held[-passes]


def test_no_examples_are_refused() -> None:
    network = Network()
    with pytest.raises(ValueError, match=r"No batches were given"):
        network.attributed(METHODS["max"], [])
