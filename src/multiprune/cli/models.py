"""Commands that make or measure models: export, pack, frontier, benchmark."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.quiet import quiet_libraries

if TYPE_CHECKING:
    from multiprune.cli import Commands


def add_model_commands(commands: Commands) -> None:
    """Add ``export``, ``pack``, ``frontier`` and ``benchmark``."""
    _add_export(commands)
    _add_pack(commands)
    _add_frontier(commands)
    _add_benchmark(commands)


def _add_export(commands: Commands) -> None:
    export = commands.add_parser("export", help="write the model of a run to a folder")
    export.add_argument("run", type=Path, help="folder of a run, or of an exported model")
    export.add_argument("--out", type=Path, required=True, help="new folder")
    export.add_argument("--format", default="transformers", help="transformers or onnx")
    export.add_argument("--storage", default="dense", help="dense, or bitmask: store no zeros")
    export.add_argument("--dtype", help="fp32, fp16 or bf16")
    export.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="keep only tokens that these texts, one a line, are made of",
    )
    export.add_argument(
        "--density",
        type=float,
        help="that size of a run with pruner=dynamic_sparsification (default: its smallest)",
    )
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> None:
    from multiprune.export.convert import ExportSettings, export_model

    quiet_libraries()
    settings = ExportSettings(format=options.format, storage=options.storage, dtype=options.dtype)
    corpus = None
    if options.vocabulary is not None:
        corpus = options.vocabulary.read_text().splitlines()
    export_model(options.run, options.out, settings, corpus=corpus, density=options.density)
    _print_size(options.out)


def _add_pack(commands: Commands) -> None:
    pack = commands.add_parser(
        "pack",
        help="write the models of runs that share frozen weights to one folder",
        description="Write models that keep parts of the same weights, trained with "
        "pruner=frozen_movement from one encoder, to one folder: the weights once, and a mask and "
        "the heads of each run. What is loaded from it switches masks by the task it is asked for.",
    )
    pack.add_argument("runs", type=Path, nargs="+", help="folders of runs, or of exported models")
    pack.add_argument("--out", type=Path, required=True, help="new folder")
    pack.set_defaults(command=_pack)


def _pack(options: argparse.Namespace) -> None:
    from multiprune.export.pack import pack

    quiet_libraries()
    print(pack(options.runs, options.out))
    _print_size(options.out)


def _add_frontier(commands: Commands) -> None:
    frontier = commands.add_parser(
        "frontier",
        help="what every size of a model of many sizes scores",
        description="Evaluate a ladder of sizes of a run with pruner=dynamic_sparsification, in "
        "one pass over the data of its tasks. The numbers are written to frontier.json in its "
        "folder, too, where `multiprune report` finds them.",
    )
    frontier.add_argument("run", type=Path, help="folder of a run")
    text = "of sizes (default: every tenth, and the smallest)"
    frontier.add_argument("--densities", type=_densities, metavar="D,D", help=text)
    text = "validation or test (default: %(default)s)"
    frontier.add_argument(
        "--split", choices=["validation", "test"], default="validation", help=text
    )
    frontier.add_argument("--mirror", metavar="DIR", help="read data there instead")
    add_allow_targets(frontier)
    text = "write the numbers there as well"
    frontier.add_argument("--json", type=Path, metavar="FILE", help=text)
    frontier.set_defaults(command=_frontier)


def _frontier(options: argparse.Namespace) -> None:
    from multiprune.frontier import frontier, print_sizes, write_frontier, write_sizes

    quiet_libraries()
    sizes = frontier(
        options.run,
        options.densities,
        split=options.split,
        mirror=options.mirror,
        allow_targets=options.allow_targets,
    )
    print_sizes(sizes)
    if options.json is not None:
        write_sizes(sizes, options.json)
    # Last, as the folder may be one that others may only read.
    write_frontier(sizes, options.run, split=options.split)


def _add_benchmark(commands: Commands) -> None:
    benchmark = commands.add_parser(
        "benchmark",
        help="measure size and speed, beside dense",
        description="Measure pruned encoders beside dense ones of the same configuration, with "
        "random weights: parameters, bytes on disk, peak memory, multiply-adds, latency "
        "(median and 90th percentile of forward passes that take turns, without padding), and "
        "throughput. `allowed` is the speed-up that multiply-adds or the bytes of weights allow, "
        "whichever is more; one above it is marked as disturbed. A folder in ONNX is timed as it "
        "is, with its heads, by ONNX Runtime.",
    )
    benchmark.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="RUN_OR_DIR",
        help="folder of a run, or of an exported model",
    )
    for flag, count, default in (
        ("--batch", "examples", "1,8,32"),
        ("--length", "tokens", "32,128"),
    ):
        text = f"numbers of {count} (default: %(default)s)"
        benchmark.add_argument(flag, type=_numbers, metavar="N,N", default=default, help=text)
    text = "how often each model takes its turn (default: %(default)s)"
    benchmark.add_argument("--rounds", type=int, metavar="N", default=10, help=text)
    text = "by what models are run (default: %(default)s)"
    every = "eager,compiled,onnx"
    benchmark.add_argument("--backend", type=names, metavar="NAME,NAME", default=every, help=text)
    text = "cpu, cuda (default: those there are)"
    benchmark.add_argument("--device", type=names, metavar="NAME,NAME", help=text)
    benchmark.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as well")
    benchmark.set_defaults(command=_benchmark)


def _benchmark(options: argparse.Namespace) -> None:
    from multiprune.measure import backends, report

    report(
        options.paths,
        batches=options.batch,
        lengths=options.length,
        rounds=options.rounds,
        backends=backends(options.backend, options.device),
        json=options.json,
    )


def add_allow_targets(command: argparse.ArgumentParser) -> None:
    """Add ``--allow-targets``, for a command that builds tasks from a run's configuration."""
    command.add_argument(
        "--allow-targets",
        type=names,
        metavar="PACKAGE,PACKAGE",
        default=[],
        help="import classes and functions that the run's configuration names from these packages, "
        "too (default: those of multiprune and torchmetrics alone)",
    )


def names(text: str) -> list[str]:
    """Return names that stand between commas."""
    return text.split(",")


def _densities(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be numbers such as 0.5,0.25, but is {text!r}"
        ) from None


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(
            f"must be whole numbers from 1 on, such as 1,8, but is {text!r}"
        )
    return [int(part) for part in parts]


def _print_size(folder: Path) -> None:
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size / 1e6:.2f} MB")
