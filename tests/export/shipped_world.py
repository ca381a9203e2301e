"""Small models of every family of pruning, with heads of every kind, and what they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.models.architectures import NEURONS, QUERY_KEY, VALUE
from multiprune.models.from_scratch import character_tokenizer, from_scratch
from multiprune.models.hidden import hidden_states_of
from multiprune.models.low_rank import LowRankLinear
from multiprune.models.multitask import MultitaskModel
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import layers_of
from multiprune.pruning.hidden_state import HiddenState
from multiprune.tasks.classification import Classification, Regression
from multiprune.tasks.tagging import Tagging
from multiprune.tasks.task import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedModel

    from multiprune.models.structure import Layer
    from multiprune.tasks.task import Task

TOKENIZER = character_tokenizer()
_COMMON: dict[str, Any] = {
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}
TASKS: dict[str, Task] = {
    "classes": Classification(text=["sentence"], labels=["bad", "good", "fair"], **_COMMON),
    "pairs": Classification(text=["premise", "hypothesis"], labels=["no", "yes"], **_COMMON),
    "number": Regression(text=["sentence"], minimum=0, maximum=5, **_COMMON),
    "tags": Tagging(text=["tokens"], labels=["other", "agent"], **_COMMON),
}
SENTENCES = ["the fox runs", "the red dog chased one cat"]
#: What each task reads: texts, and the second ones of pairs.
READ: dict[str, tuple[Sequence[Any], Sequence[str] | None]] = {
    "classes": (SENTENCES, None),
    "pairs": (SENTENCES, ["one fox", "the dog runs"]),
    "number": (SENTENCES, None),
    "tags": ([sentence.split() for sentence in SENTENCES], None),
}


def zeros(encoder: PreTrainedModel) -> None:
    """Set half of the weights of the layers to zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in layers_of(encoder):
            for linear, _ in layer.linear_layers():
                keep = torch.rand(linear.weight.shape, generator=generator) < 0.5
                linear.weight.mul_(keep)


def heads_and_neurons(encoder: PreTrainedModel) -> None:
    """Keep all but the first head, and every other neuron."""
    for layer in layers_of(encoder):
        _cut(layer, dimensions=layer.head_size, neurons=2)


def head_dimensions(encoder: PreTrainedModel) -> None:
    """Keep 3 dimensions of each head but the first."""
    for layer in layers_of(encoder):
        _cut(layer, dimensions=3, neurons=1)


def drop_first(encoder: PreTrainedModel) -> None:
    """Drop the first layer; the others keep their shapes."""
    _drop(layers_of(encoder)[0])


def drop_and_cut(encoder: PreTrainedModel) -> None:
    """Drop the first layer, and cut the others."""
    first, *others = layers_of(encoder)
    _drop(first)
    for layer in others:
        _cut(layer, dimensions=layer.head_size, neurons=3)


def low_rank(encoder: PreTrainedModel) -> None:
    """Factorise every linear layer, each at a rank of its own."""
    linear = {id(one) for layer in layers_of(encoder) for one, _ in layer.linear_layers()}
    paths = [path for path, module in encoder.named_modules() if id(module) in linear]
    for number, path in enumerate(paths):
        parent, _, name = path.rpartition(".")
        dense = encoder.get_submodule(path)
        assert isinstance(dense, nn.Linear)
        factored = LowRankLinear.from_linear(dense, rank=1 + number % 4).factored()
        encoder.get_submodule(parent).add_module(name, factored)


def combined(encoder: PreTrainedModel) -> None:
    """Cut heads and neurons, and set half of what is left to zero."""
    heads_and_neurons(encoder)
    zeros(encoder)


def cut_and_low_rank(encoder: PreTrainedModel) -> None:
    """Cut heads and neurons, and factorise what is left."""
    heads_and_neurons(encoder)
    low_rank(encoder)


def hidden_dimensions(encoder: PreTrainedModel) -> None:
    """Keep 11 hidden dimensions, which is no multiple of the heads; cut heads and neurons."""
    state = HiddenState(hidden_states_of(encoder))
    state.keep(torch.arange(state.parts.size) % 3 != 1)
    state.zero()
    heads_and_neurons(encoder)
    state.cut(encoder)


#: Those that keep the shapes, and those that do not.
DENSE: dict[str, Callable[[PreTrainedModel], None]] = {"zeros": zeros}
CUT: dict[str, Callable[[PreTrainedModel], None]] = {
    prune.__name__: prune
    for prune in (
        heads_and_neurons,
        head_dimensions,
        drop_first,
        drop_and_cut,
        low_rank,
        combined,
        cut_and_low_rank,
        hidden_dimensions,
    )
}
FAMILIES = DENSE | CUT


def network(family: str, *, seed: int = 0) -> MultitaskModel:
    """Make a model of two layers, pruned."""
    torch.manual_seed(seed)
    encoder = from_scratch(layers=2, hidden=16, heads=2, intermediate=12).model
    FAMILIES[family](encoder)
    return MultitaskModel(encoder, TASKS).eval()


@torch.no_grad()
def logits(model: MultitaskModel, task: str) -> Tensor:
    """Return what a model answers to the texts that its task reads."""
    texts, pairs = READ[task]
    inputs = TOKENIZER(
        texts, pairs, is_split_into_words=task == "tags", padding=True, return_tensors="pt"
    )
    answers: Tensor = model(Batch(task=task, inputs=dict(inputs), labels=torch.empty(0)))
    return answers


def _cut(layer: Layer, *, dimensions: int, neurons: int) -> None:
    """Keep ``dimensions`` of all heads but the first, and one neuron in ``neurons``."""
    heads = torch.ones(layer.heads, layer.head_size, dtype=torch.bool)
    heads[0] = False
    heads[:, dimensions:] = False
    kept = torch.arange(layer.neurons) % neurons == 0
    shrink_layer(layer, {QUERY_KEY: heads.view(-1), VALUE: heads.view(-1), NEURONS: kept})


def _drop(layer: Layer) -> None:
    dimensions = torch.zeros(layer.heads * layer.head_size, dtype=torch.bool)
    neurons = torch.zeros(layer.neurons, dtype=torch.bool)
    shrink_layer(layer, {QUERY_KEY: dimensions, VALUE: dimensions, NEURONS: neurons})
