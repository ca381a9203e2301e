"""Tiny models, in memory and shipped."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import nn

from multiprune.data.source import HubSource
from multiprune.export.checkpoint import save_model
from multiprune.models.encoder import nano, nano_tokenizer
from multiprune.models.multitask import MultitaskModel
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import NEURONS, QUERY_KEY, VALUE, layers_of
from multiprune.tasks.classification import Classification
from multiprune.tasks.metrics import accuracy

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

LAYERS, HIDDEN, HEADS, NEURON_COUNT = 2, 16, 4, 32


def dense(seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    encoder = nano(layers=LAYERS, hidden=HIDDEN, heads=HEADS, intermediate=NEURON_COUNT).model
    encoder.train(mode=False)
    return encoder


def cut() -> PreTrainedModel:
    """Half the heads and a quarter of the neurons of every layer."""
    encoder = dense()
    for layer in layers_of(encoder):
        values = torch.arange(HIDDEN) < HIDDEN // 2
        neurons = torch.arange(NEURON_COUNT) < NEURON_COUNT // 4
        shrink_layer(layer, {QUERY_KEY: values, VALUE: values, NEURONS: neurons})
    return encoder


def low_rank(rank: int) -> PreTrainedModel:
    """The first layer's feed-forward network as products of two."""
    encoder = dense()
    layer = encoder.get_submodule("encoder.layer.0")
    for path, inputs, outputs in (
        ("intermediate", HIDDEN, NEURON_COUNT),
        ("output", NEURON_COUNT, HIDDEN),
    ):
        product: OrderedDict[str, nn.Module] = OrderedDict()
        product["down"] = nn.Linear(inputs, rank, bias=False)
        product["up"] = nn.Linear(rank, outputs)
        layer.get_submodule(path).add_module("dense", nn.Sequential(product))
    return encoder


def masked(fraction: float) -> PreTrainedModel:
    """Zeros in dense shapes: a fraction of every linear layer's rows."""
    encoder = dense()
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            with torch.no_grad():
                module.weight[: int(fraction * len(module.weight))] = 0
    return encoder


def ship(folder: Path, encoder: PreTrainedModel) -> Path:
    task = Classification(
        labels=["bad", "good"],
        text=["sentence"],
        label="label",
        metrics={"accuracy": accuracy},
        source=HubSource(path=None, mirror="nowhere"),
    )
    tasks = {"classes": task}
    save_model(folder, MultitaskModel(encoder, tasks), nano_tokenizer(), tasks)
    return folder
