"""The loss of all sizes together is the sum of what cut copies of the model say."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from nested_world import cut
from teacher_world import SHAPE, TASKS
from tiny_encoders import CONFIGS, states_of, tiny_encoder, tokens
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from multiprune.budget import FractionBudget
from multiprune.models.from_scratch import character_tokenizer, from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.models.structure import along, layers_of
from multiprune.pruning.dynamic_sparsification import ORDER, DynamicSparsification
from multiprune.pruning.importance import WeightMagnitude
from multiprune.pruning.layer_state import STATE
from multiprune.pruning.removal import GRANULARITIES
from multiprune.tasks.rows import IGNORED
from multiprune.tasks.task import Batch
from multiprune.training.objective import Losses, Objective, PlainLoss
from multiprune.training.sandwich import Sandwich, shared_embeddings

if TYPE_CHECKING:
    from multiprune.models.nested import RemovalOrder

LABELS: dict[str, Tensor] = {
    "classes": torch.tensor([0, 2, 1]),
    "sets": torch.tensor([[0, 1], [1, 1], [0, 0]]),
    "number": torch.tensor([0.5, -1.0, 1.0]),
    "tags": torch.tensor([[IGNORED, 0, 1, 1, 0, 1, IGNORED], [1] * 7, [IGNORED] * 6 + [0]]),
}


def batch_of(task: str, number: int = 0) -> Batch:
    return Batch(task=task, inputs=tokens(number), labels=LABELS[task])


class World:
    """A model being pruned, and whole and cut copies of it."""

    def __init__(self, **options: Any) -> None:
        torch.manual_seed(0)
        encoder = from_scratch(**SHAPE, dropout=0.0).model.double()
        self.plain = MultitaskModel(encoder, TASKS).double()
        for module in self.plain.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # copies would drop other places
        with torch.no_grad():
            for parameter in self.plain.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        self.model = copy.deepcopy(self.plain).train()
        self.pruner = DynamicSparsification(
            budget=FractionBudget(fraction=0.4),
            importance=WeightMagnitude(),
            granularity=GRANULARITIES,
            **options,
        )
        self.pruner.prepare(self.model, self.model.encoder)
        self.sandwich = Sandwich(PlainLoss(), self.pruner)

    @property
    def order(self) -> RemovalOrder:
        return self.pruner.current_order()

    def parts(self, step: int = 0) -> list[MultitaskModel]:
        """Return cut copies of the sizes of a step."""
        copies = []
        for removals in self.pruner.parts_of_step(step):
            small = copy.deepcopy(self.plain)
            small.encoder = cut(self.plain.encoder, self.order, removals)
            copies.append(small)
        return copies

    def losses(self, task: str) -> Losses:
        return self.sandwich.losses(self.model, TASKS[task], batch_of(task))


def test_before_anything_is_pruned_labels_alone_are_learned() -> None:
    world = World()
    losses = world.losses("classes")
    logits = world.plain(batch_of("classes"))
    expected = functional.cross_entropy(logits.float(), LABELS["classes"])
    torch.testing.assert_close(losses.total, expected)
    assert losses.terms.keys() == {"loss"}


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_total_is_that_of_cut_copies_by_hand(weight: float) -> None:
    world = World(sampled=2, temperature=2.0, label_weight=weight)
    world.pruner.prune(1.0)
    losses = world.losses("classes")
    labels = LABELS["classes"]
    logits = world.plain(batch_of("classes")).float()
    total = own = functional.cross_entropy(logits, labels)
    parts = []
    for small in world.parts():
        found = small(batch_of("classes")).float()
        divergence = functional.kl_div(
            (found / 2).log_softmax(-1), (logits / 2).softmax(-1), reduction="batchmean"
        )
        loss = (1 - weight) * 4 * divergence + weight * functional.cross_entropy(found, labels)
        parts.append(loss)
        total = total + loss
    assert len(parts) == 3
    assert len({round(float(one.detach()), 6) for one in parts}) == 3
    torch.testing.assert_close(losses.total, total)
    torch.testing.assert_close(losses.terms["loss"], own)
    torch.testing.assert_close(losses.terms["smallest"], parts[0])
    torch.testing.assert_close(losses.logits.float(), logits)


def add_gradients(world: World, small: MultitaskModel, removals: int, into: dict[str, Any]) -> None:
    """Add the gradients of a cut copy at their places in the whole."""
    places: dict[int, tuple[int, Tensor | None]] = {}
    units_of = world.order.units(removals)
    for layer, units in zip(layers_of(world.plain.encoder), units_of, strict=True):
        for linear, slices in layer.linear_layers():
            index = along(slices, units).nonzero()[:, 0]
            places[id(linear.weight)] = (slices.dim, index)
            places[id(linear.bias)] = (0, index if slices.dim == 0 else None)
    paths = dict(world.plain.named_parameters())
    for path, parameter in small.named_parameters():
        if parameter.grad is None:
            continue
        dim, kept = places.get(id(paths[path]), (0, None))
        if kept is None:
            into[path] += parameter.grad
        else:
            into[path].index_add_(dim, kept, parameter.grad)


@pytest.mark.parametrize("task", TASKS)
def test_gradients_are_the_sum_of_those_of_cut_copies_and_none_flows_through_the_teacher(
    task: str,
) -> None:
    world = World(sampled=2, temperature=3.0, label_weight=0.3)
    world.pruner.prune(1.0)
    world.losses(task).total.backward()  # type: ignore[no-untyped-call]

    plain, batch = world.plain, batch_of(task)
    logits = plain(batch)
    TASKS[task].loss(logits, batch.labels).backward()  # type: ignore[no-untyped-call]
    expected = {
        path: torch.zeros_like(one) if one.grad is None else one.grad.clone()
        for path, one in plain.named_parameters()
    }
    plain.zero_grad()
    answers = logits.detach()
    parts = world.pruner.parts_of_step(0)
    for removals, small in zip(parts, world.parts(), strict=True):
        found = small(batch)
        distilled = TASKS[task].distillation_loss(found, answers, batch.labels, 3.0)
        loss = 0.7 * distilled + 0.3 * TASKS[task].loss(found, batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        add_gradients(world, small, removals, expected)
    for path, parameter in world.model.named_parameters():
        if path.startswith((f"encoder.{STATE}", f"encoder.{ORDER}")):
            continue
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        # Losses are in single precision.
        torch.testing.assert_close(found, expected[path], rtol=1e-4, atol=1e-6, msg=path)


class Recorded(Objective):
    """Notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    @override
    def prepare(self, *settings: Any) -> None:
        self.asked.append(settings)

    @override
    def start(self, trainer: Any) -> None:
        self.asked.append(trainer)

    @override
    def losses_by_task(self, model: Any, tasks: Any, batch: Any) -> dict[str, Losses]:
        found = PlainLoss().losses_by_task(model, tasks, batch)
        return {
            name: replace(one, total=5 * one.total, terms=dict(one.terms) | {"own": one.total})
            for name, one in found.items()
        }


def test_whole_learns_what_the_inner_objective_says() -> None:
    world = World()
    world.pruner.prune(1.0)
    alone = world.losses("classes")
    inner = Recorded()
    world.sandwich.inner = inner
    world.sandwich.prepare(1, 2, 3)  # type: ignore[arg-type]
    world.sandwich.start(trainer := SimpleNamespace(global_step=0))  # type: ignore[arg-type]
    assert inner.asked == [(1, 2, 3), trainer]
    losses = world.losses("classes")
    torch.testing.assert_close(losses.total - alone.total, 4 * alone.terms["loss"])
    assert losses.terms.keys() == {"loss", "own", "smallest"}


def test_all_ranks_train_the_sizes_of_their_common_step() -> None:
    world = World(sampled=2)
    world.pruner.prune(1.0)
    trained: list[list[int]] = []
    lend = world.pruner._resizable.resize
    order = world.order

    def noting(units: Any) -> None:
        trained[-1].append(sum(int(mask.sum()) for one in units for mask in one.values()))
        lend(units)

    world.pruner._resizable.resize = noting  # type: ignore[method-assign]
    for rank, step in ((0, 7), (1, 7), (0, 8)):
        trained.append([])
        torch.manual_seed(rank)
        trainer: Any = SimpleNamespace(global_step=step, global_rank=rank)
        world.sandwich.start(trainer)
        world.losses("classes")
        expected = [
            sum(int(mask.sum()) for one in order.units(removals) for mask in one.values())
            for removals in world.pruner.parts_of_step(step)
        ]
        assert trained[-1] == expected
    assert trained[0] == trained[1] != trained[2]


def graph(loss: Tensor) -> set[Any]:
    seen: set[Any] = {loss.grad_fn}
    left = [loss.grad_fn]
    while left:
        node: Any = left.pop()
        fresh = {one for one, _ in node.next_functions if one is not None} - seen
        seen |= fresh
        left += fresh
    return seen


def test_words_are_looked_up_once_a_step() -> None:
    world = World(sampled=3)
    world.pruner.prune(1.0)
    table = len(character_tokenizer())
    assert table not in {2, 512}  # the tables of segments and positions are others
    words = [
        one
        for one in graph(world.losses("classes").total)
        if "EmbeddingBackward" in one.name() and one.next_functions[0][0].variable.shape[0] == table
    ]
    assert len(words) == 1


@pytest.mark.parametrize("name", CONFIGS)
def test_shared_lookups_change_neither_answers_nor_gradients(name: str) -> None:
    encoder, alone = tiny_encoder(name), tiny_encoder(name)

    def trained(model: nn.Module) -> Tensor:
        first, second = tokens(0), tokens(1)
        states = [model(**one).last_hidden_state for one in (first, second, first, second)]
        weights = range(1, 5)
        total = sum(w * one.square().sum() for w, one in zip(weights, states, strict=True))
        assert isinstance(total, Tensor)
        total.backward()  # type: ignore[no-untyped-call]
        return torch.stack(states)

    with shared_embeddings(encoder):
        states = trained(encoder)
    torch.testing.assert_close(states, trained(alone))
    for path, parameter in alone.named_parameters():
        torch.testing.assert_close(encoder.get_parameter(path).grad, parameter.grad, msg=path)
    assert not encoder.get_input_embeddings()._forward_hooks


def test_lookups_are_shared_no_longer_than_asked_for() -> None:
    encoder = tiny_encoder("bert")
    with pytest.raises(IndexError), shared_embeddings(encoder):
        encoder(input_ids=torch.tensor([[10_000]]))
    assert not encoder.get_input_embeddings()._forward_hooks
    with torch.no_grad():
        before = states_of(encoder)
        encoder.get_input_embeddings().get_parameter("weight").mul_(2)
        assert not torch.allclose(states_of(encoder), before)
