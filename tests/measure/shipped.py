"""Tiny models, in memory and shipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from multiprune.data.source import HubSource
from multiprune.export.checkpoint import save_model
from multiprune.metrics import Accuracy
from multiprune.models.architectures import NEURONS, QUERY_KEY, VALUE
from multiprune.models.encoder import Encoder
from multiprune.models.from_scratch import character_tokenizer, from_scratch
from multiprune.models.low_rank import LowRankLinear
from multiprune.models.multitask import MultitaskModel
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import layers_of
from multiprune.tasks.classification import Classification

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

LAYERS, HIDDEN, HEADS, NEURON_COUNT = 2, 16, 4, 32


def dense(seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    encoder = from_scratch(
        layers=LAYERS, hidden=HIDDEN, heads=HEADS, intermediate=NEURON_COUNT
    ).model
    encoder.train(mode=False)
    return encoder


def cut(encoder: PreTrainedModel | None = None) -> PreTrainedModel:
    """Half the heads and a quarter of the neurons of every layer."""
    encoder = dense() if encoder is None else encoder
    for layer in layers_of(encoder):
        values = torch.arange(layer.heads * layer.head_size) < layer.heads * layer.head_size // 2
        neurons = torch.arange(layer.neurons) < layer.neurons // 4
        shrink_layer(layer, {QUERY_KEY: values, VALUE: values, NEURONS: neurons})
    return encoder


def drop_last(encoder: PreTrainedModel) -> PreTrainedModel:
    """Nothing left of the last layer but its norms."""
    layer = layers_of(encoder)[-1]
    values = torch.zeros(layer.heads * layer.head_size, dtype=torch.bool)
    neurons = torch.zeros(layer.neurons, dtype=torch.bool)
    shrink_layer(layer, {QUERY_KEY: values, VALUE: values, NEURONS: neurons})
    return encoder


def factor(encoder: PreTrainedModel, rank: int, prefix: str = "") -> PreTrainedModel:
    """Linear layers as products of two, as they are shipped."""
    for path, module in list(encoder.named_modules()):
        if isinstance(module, nn.Linear) and path.startswith(prefix):
            factored = LowRankLinear.from_linear(module, min(rank, *module.weight.shape)).factored()
            parent, _, name = path.rpartition(".")
            encoder.get_submodule(parent).add_module(name, factored)
    return encoder


def low_rank(rank: int) -> PreTrainedModel:
    """The first layer's feed-forward network as products of two."""
    encoder = dense()
    for path in ("intermediate", "output"):
        factor(encoder, rank, f"encoder.layer.0.{path}")
    return encoder


def masked(fraction: float, encoder: PreTrainedModel | None = None) -> PreTrainedModel:
    """Zeros in the shapes there are: a fraction of every linear layer's rows."""
    encoder = dense() if encoder is None else encoder
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            with torch.no_grad():
                module.weight[: int(fraction * len(module.weight))] = 0
    return encoder


def with_tokenizer(encoder: PreTrainedModel) -> Encoder:
    return Encoder(encoder, character_tokenizer())


def ship(folder: Path, encoder: PreTrainedModel) -> Path:
    task = Classification(
        labels=["bad", "good"],
        text=["sentence"],
        label="label",
        metrics={"accuracy": Accuracy()},
        source=HubSource(path=None, mirror="nowhere"),
    )
    tasks = {"classes": task}
    save_model(folder, MultitaskModel(encoder, tasks), character_tokenizer(), tasks)
    return folder
