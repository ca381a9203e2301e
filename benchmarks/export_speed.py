"""Whether exported models are as fast as their multiply-adds allow: BERT-base, and what is left.

    python benchmarks/export_speed.py
    OMP_NUM_THREADS=1 python benchmarks/export_speed.py --clock process --backend eager,onnx

Random weights, no padding. Every model is written as a run writes it, exported in a process of its
own, whose peak memory is measured, and timed as it is loaded from there. Models take turns, one
forward pass each, in an order that is shuffled every round, because machines are shared and noisy;
where threads wait for those of others, ``--clock process`` measures the time of the processor.

``of allowed`` is the speed-up as a fraction of what the multiply-adds allow; ``linear`` counts the
weights of the encoder's linear layers. 2:4 sparsity is timed on the linear layers of one layer of
BERT-large, 4096 tokens, in bf16, where there is a GPU for it.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from multiprune.export.checkpoint import save_encoder, save_heads
from multiprune.export.convert import ExportSettings, export_model
from multiprune.export.loading import load
from multiprune.measure import backends
from multiprune.measure.benchmark import machine
from multiprune.measure.cost import multiply_adds, parameter_bytes
from multiprune.measure.latency import Size, interleaved, time_models
from multiprune.measure.memory import resident_peak
from multiprune.measure.table import print_machine
from multiprune.models.architectures import NEURONS, QUERY_KEY, VALUE
from multiprune.models.encoder import Encoder
from multiprune.models.from_scratch import character_tokenizer, from_scratch
from multiprune.models.modeling_multiprune import FactoredLinear
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import layers_of
from multiprune.models.task_heads import TaskHeads
from multiprune.tasks.outputs.heads import SequenceHead

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transformers import PreTrainedModel

    from multiprune.measure.latency import Latency
    from multiprune.models.structure import Layer

LINEAR_KEPT = 0.3

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}

#: The linear layers of one layer of BERT-large: how many, inputs, outputs.
BERT_LARGE = ((4, 1024, 1024), (1, 1024, 4096), (1, 4096, 1024))

#: By what is asked: whether more is better, and how much is asked.
GOALS = {
    "half: of allowed": (True, 0.85),
    "uneven: of allowed": (True, 0.85),
    "half: speed-up": (True, 1.8),
    "low rank: speed-up": (True, 1.0),
    "2:4: speed-up": (True, 1.2),
    "export: peak memory in dense models": (False, 2.0),
}


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


def uneven() -> PreTrainedModel:
    """About 30 % of the units, at random, and in every layer another number."""
    encoder = dense()
    draw = torch.Generator().manual_seed(0)
    for layer in layers_of(encoder):
        share = 2 * LINEAR_KEPT * float(torch.rand((), generator=draw))
        heads = torch.rand(layer.heads, generator=draw).argsort() < max(1, share * layer.heads)
        neurons = torch.rand(layer.neurons, generator=draw).argsort()
        _cut(layer, heads, neurons < max(1, share * layer.neurons))
    return encoder


def low_rank() -> PreTrainedModel:
    """A product of two for every linear layer, with 30 % of its weights."""
    encoder = dense()
    for path, module in list(encoder.named_modules()):
        if isinstance(module, nn.Linear):
            inputs, outputs = module.in_features, module.out_features
            rank = int(LINEAR_KEPT * inputs * outputs / (inputs + outputs))
            factors = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs)
            encoder.set_submodule(path, FactoredLinear(*factors))
    return encoder


@torch.no_grad()
def zeros() -> PreTrainedModel:
    """Half the weights of every linear layer are zero."""
    encoder = dense()
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            module.weight.mul_(torch.rand_like(module.weight) < 0.5)
    return encoder


def _cut(layer: Layer, heads: Tensor, neurons: Tensor) -> None:
    values = heads.repeat_interleave(layer.head_size)
    shrink_layer(layer, {QUERY_KEY: values, VALUE: values, NEURONS: neurons})


MODELS = {"dense": dense, "half": half, "uneven": uneven, "low rank": low_rank, "zeros": zeros}

#: Ways to export beside the default, by what they are called and of which model.
EXPORTS = {
    "zeros, bitmask": ("zeros", ExportSettings(storage="bitmask")),
    "half, ONNX": ("half", ExportSettings(format="onnx")),
    "zeros, ONNX": ("zeros", ExportSettings(format="onnx")),
}


def write(folder: Path, encoder: PreTrainedModel) -> None:
    """Write a model as a run does."""
    folder.mkdir()
    save_encoder(folder, encoder)
    heads = TaskHeads({"task": SequenceHead(encoder.config.hidden_size, 2, dropout=0.1)})
    save_heads(folder, heads, {"task": {"kind": "classes", "labels": ["no", "yes"]}})
    character_tokenizer().save_pretrained(folder)


def export_all(root: Path) -> tuple[dict[str, Encoder], dict[str, int | None]]:
    """Export all models; return them as they are loaded, and the peak memory of each export."""
    write(root / "small", from_scratch(layers=1, hidden=16, heads=2, intermediate=32).model)
    peaks: dict[str, int | None] = {}
    for name, make in MODELS.items():
        write(root / name, make())
        exports = {name: (name, ExportSettings())} | EXPORTS
        for called, (model, settings) in exports.items():
            if model == name:
                work, warm_up = (
                    partial(export_model, root / one, root / f"{called}, {one}", settings)
                    for one in (name, "small")
                )
                peaks[called] = resident_peak(work, warm_up=warm_up)
        shutil.rmtree(root / name)
    loaded = {name: load(root / f"{name}, {name}") for name in MODELS}
    return {name: Encoder(one.encoder, one.tokenizer) for name, one in loaded.items()}, peaks


def linear_weights(encoder: nn.Module) -> int:
    """Count the weights of an encoder's linear layers."""
    linear = [one for one in encoder.modules() if isinstance(one, nn.Linear)]
    return sum(one.weight.numel() for one in linear)


def print_speed(
    encoders: Mapping[str, Encoder], size: Size, latencies: list[Latency]
) -> dict[str, float]:
    """Print the latencies by one backend; return what was reached of the goals."""
    table = Table("model", title=f"{latencies[0].backend}, {size.batch} x {size.length} tokens")
    columns = ("linear", "median ms", "p90 ms", "speed-up", "allowed", "of allowed")
    for column in columns:
        table.add_column(column, justify="right")
    models = {name: one.model for name, one in encoders.items()}
    counts = {name: multiply_adds(one, size.batch, size.length) for name, one in models.items()}
    weights = {name: linear_weights(one) for name, one in models.items()}
    reached: dict[str, float] = {}
    for one in latencies:
        if one.failure:
            table.add_row(one.model, "", one.failure)
            continue
        speed_up = latencies[0].median / one.median
        allowed = counts["dense"] / counts[one.model]
        reached[f"{one.model}: speed-up"] = speed_up
        reached[f"{one.model}: of allowed"] = speed_up / allowed
        table.add_row(
            one.model,
            f"{weights[one.model] / weights['dense']:.3f}",
            *(f"{1e3 * seconds:.1f}" for seconds in (one.median, one.p90)),
            *(f"{ratio:.2f}" for ratio in (speed_up, allowed, speed_up / allowed)),
        )
    Console().print(table)
    Console().print("`zeros`: element-wise zeros do not speed up dense kernels.")
    return reached


def semi_structured(rounds: int) -> float | None:
    """Return the speed-up of 2:4 sparsity over one layer of BERT-large; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    kinds: dict[str, list[tuple[int, Tensor, Tensor]]] = {"dense": [], "2:4": []}
    for count, inputs, outputs in BERT_LARGE:
        states = torch.randn(4096, inputs, device="cuda", dtype=torch.bfloat16)
        weight = torch.randn(outputs, inputs, device="cuda", dtype=torch.bfloat16)
        weight *= torch.tensor([1, 1, 0, 0], device="cuda").repeat(outputs, inputs // 4)
        sparse = torch.sparse.to_sparse_semi_structured(weight)
        kinds["dense"].append((count, states, weight))
        kinds["2:4"].append((count, states, sparse))

    def passes(layers: list[tuple[int, Tensor, Tensor]]) -> Callable[[], None]:
        def call() -> None:
            # Many passes for one wait: calls are shorter than what it takes to ask for them.
            for _ in range(20):
                for count, states, weight in layers:
                    for _ in range(count):
                        nn.functional.linear(states, weight)
            torch.cuda.synchronize()

        return call

    with torch.inference_mode():
        calls = {name: passes(layers) for name, layers in kinds.items()}
        seconds = interleaved(calls, rounds=rounds)
    return statistics.median(seconds["dense"]) / statistics.median(seconds["2:4"])


def print_goals(reached: Mapping[str, float | None]) -> None:
    """Print what was asked beside what was reached."""
    table = Table("goal", "asked", "reached", "met")
    for name, (more, asked) in GOALS.items():
        for one, value in reached.items():
            if one.startswith(name):
                met = "" if value is None else "yes" if (value >= asked) == more else "no"
                shown = "not measured" if value is None else f"{value:.2f}"
                table.add_row(one, f"{'>=' if more else '<='} {asked}", shown, met)
    Console().print(table)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--backend", default="eager")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    size, clock = Size(options.batch, options.length), CLOCKS[options.clock]
    print_machine(machine())
    with tempfile.TemporaryDirectory() as root:
        encoders, peaks = export_all(Path(root))
        whole = parameter_bytes(encoders["dense"].model)
        memory = {
            f"export: peak memory in dense models ({name})": peak and peak / whole
            for name, peak in peaks.items()
        }
        for backend in backends(options.backend.split(","), ["cpu"]):
            latencies = list(time_models(encoders, backend, [size], options.rounds, clock))
            print_goals(print_speed(encoders, size, latencies))
    print_goals(memory | {"2:4: speed-up": semi_structured(options.rounds)})


if __name__ == "__main__":
    main()
