"""Whether cut models are as fast as their multiply-adds allow: BERT-base beside what is left of it.

    OMP_NUM_THREADS=2 python benchmarks/export_speed.py
    python benchmarks/export_speed.py --backends eager compiled onnx

Random weights, no padding. Models take turns, one forward pass each, in an order that is shuffled
every round, because machines are shared and noisy. Where they are so busy that threads wait for
each other, ``OMP_NUM_THREADS=1`` with ``--clock process`` measures the time of the processor. ``of allowed`` is the speed-up as a fraction of
what the multiply-adds allow; ``linear`` counts the weights of the encoder's linear layers. 2:4
sparsity is timed on one linear layer of BERT-large in bf16, where there is a GPU for it.
"""

from __future__ import annotations

import argparse
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from multiprune.measure.backends import backends_here
from multiprune.measure.benchmark import machine
from multiprune.measure.cost import multiply_adds
from multiprune.measure.latency import Size, interleaved, time_models
from multiprune.measure.table import print_machine
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import NEURONS, QUERY_KEY, VALUE, layers_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

    from multiprune.measure.latency import Latency
    from multiprune.models.structure import Layer

LINEAR_KEPT = 0.3

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


def dense() -> PreTrainedModel:
    """Return BERT-base with random weights."""
    torch.manual_seed(0)
    encoder = BertModel(BertConfig(), add_pooling_layer=False)
    encoder.train(mode=False)
    return encoder


def half() -> PreTrainedModel:
    """Half the heads and half the neurons of every layer."""
    encoder = dense()
    for layer in layers_of(encoder):
        first = torch.arange(layer.heads) < layer.heads // 2
        _cut(layer, first, torch.arange(layer.neurons) < layer.neurons // 2)
    return encoder


def uneven(multiple: int = 1) -> PreTrainedModel:
    """About 30 % of the units, at random; numbers of neurons are rounded up to a multiple."""
    encoder = dense()
    draw = torch.Generator().manual_seed(0)
    for layer in layers_of(encoder):
        share = 2 * LINEAR_KEPT * float(torch.rand((), generator=draw))
        heads = torch.rand(layer.heads, generator=draw).argsort() < max(1, share * layer.heads)
        neurons = torch.rand(layer.neurons, generator=draw).argsort()
        kept = -(-max(1, int(share * layer.neurons)) // multiple) * multiple
        _cut(layer, heads, neurons < kept)
    return encoder


def low_rank(multiple: int = 1) -> PreTrainedModel:
    """A product of two for every linear layer, with 30 % of its weights."""
    encoder = dense()
    for layer in layers_of(encoder):
        for path in layer.architecture.linear:
            _factorize(encoder.get_submodule(layer.path), path, multiple)
    return encoder


def _cut(layer: Layer, heads: Tensor, neurons: Tensor) -> None:
    values = heads.repeat_interleave(layer.head_size)
    shrink_layer(layer, {QUERY_KEY: values, VALUE: values, NEURONS: neurons})


def _factorize(layer: nn.Module, path: str, multiple: int) -> None:
    old = layer.get_submodule(path)
    if not isinstance(old, nn.Linear):
        return
    inputs, outputs = old.in_features, old.out_features
    rank = int(LINEAR_KEPT * inputs * outputs / (inputs + outputs))
    rank = max(multiple, rank // multiple * multiple)
    parent, _, name = path.rpartition(".")
    down, up = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs)
    layer.get_submodule(parent).add_module(name, nn.Sequential(OrderedDict(down=down, up=up)))


def linear_weights(encoder: nn.Module) -> int:
    """Count the weights of an encoder's linear layers."""
    linear = [one for one in encoder.modules() if isinstance(one, nn.Linear)]
    return sum(one.weight.numel() for one in linear)


def semi_structured(rounds: int) -> None:
    """Time 2:4 sparsity on one linear layer, 1024 to 4096 as in BERT-large, 8 x 128 tokens."""
    if not torch.cuda.is_available():
        Console().print("2:4 sparsity: skipped, because there is no CUDA device.")
        return
    linear = nn.Linear(1024, 4096, bias=False, device="cuda", dtype=torch.bfloat16)
    states = torch.randn(8 * 128, 1024, device="cuda", dtype=torch.bfloat16)
    pattern = torch.tensor([1, 1, 0, 0], device="cuda", dtype=torch.bfloat16).repeat(4096, 256)
    sparse = torch.sparse.to_sparse_semi_structured(linear.weight.detach() * pattern)

    def repeated(weight: Tensor) -> Callable[[], None]:
        def call() -> None:
            for _ in range(100):
                nn.functional.linear(states, weight)
            torch.cuda.synchronize()

        return call

    with torch.inference_mode():
        calls = {"dense": repeated(linear.weight), "2:4": repeated(sparse)}
        seconds = interleaved(calls, rounds=rounds)
    medians = {name: float(torch.tensor(one).median()) / 100 for name, one in seconds.items()}
    Console().print(
        f"2:4 sparsity, bf16, 1024 x 4096, 1024 tokens: {1e6 * medians['2:4']:.1f} us, dense "
        f"{1e6 * medians['dense']:.1f} us, speed-up {medians['dense'] / medians['2:4']:.2f}."
    )


def models() -> dict[str, PreTrainedModel]:
    """Return what takes part by name, the dense model first."""
    return {
        "dense": dense(),
        "half": half(),
        "low rank": low_rank(),
        "low rank, multiples of 16": low_rank(16),
        "uneven": uneven(),
        "uneven, multiples of 16": uneven(16),
    }


def print_table(encoders: dict[str, PreTrainedModel], size: Size, latencies: list[Latency]) -> None:
    """Print the latencies by one backend; the dense model's is the first."""
    table = Table("model", title=f"{latencies[0].backend}, {size.batch} x {size.length} tokens")
    columns = ("linear", "median ms", "p90 ms", "speed-up", "allowed", "of allowed")
    for column in columns:
        table.add_column(column, justify="right")
    counts = {name: multiply_adds(one, size.batch, size.length) for name, one in encoders.items()}
    weights = {name: linear_weights(one) for name, one in encoders.items()}
    for one in latencies:
        if one.failure:
            table.add_row(one.model, "", one.failure)
            continue
        speed_up = latencies[0].median / one.median
        allowed = counts["dense"] / counts[one.model]
        table.add_row(
            one.model,
            f"{weights[one.model] / weights['dense']:.3f}",
            *(f"{1e3 * seconds:.1f}" for seconds in (one.median, one.p90)),
            *(f"{ratio:.2f}" for ratio in (speed_up, allowed, speed_up / allowed)),
        )
    Console().print(table)


@torch.no_grad()
def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    here = backends_here()
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--backends", nargs="+", choices=here, default=["eager"])
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    size, encoders = Size(options.batch, options.length), models()
    print_machine(machine())
    for name in options.backends:
        latencies = time_models(encoders, here[name], [size], options.rounds, CLOCKS[options.clock])
        print_table(encoders, size, list(latencies))
    semi_structured(options.rounds)


if __name__ == "__main__":
    main()
