"""In what two finished runs of one command differ, file by file, but for times and paths."""

from __future__ import annotations

import csv
import json
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch

from multiprune.runs.record import TIMES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Within checkpoints, what has the times of ``results.json``.
_STOPWATCH = "callbacks.Stopwatch"

#: Are byte for byte the same: what is exported, masks and answers.
_EXACT = ("model/*", "sizes/*", "masks.safetensors", "predictions.safetensors")


def differences(run: Path, other: Path) -> list[str]:
    """Return in what ``run`` differs from ``other``, a sentence each."""
    names, others = ({str(file.relative_to(one)) for file in files(one)} for one in (run, other))
    found = [f"{name} is left over" for name in sorted(names - others)]
    found += [f"{name} is missing" for name in sorted(others - names)]
    for name in sorted(names & others):
        pair = run / name, other / name
        if any(pair[0].relative_to(run).match(pattern) for pattern in _EXACT):
            found += [f"{name}: other bytes"] * (pair[0].read_bytes() != pair[1].read_bytes())
        elif name.endswith(".ckpt"):
            first, second = (_flat(torch.load(one, weights_only=False), one) for one in pair)
            found += [f"{name}: {key}" for key in _unequal(first, second)]
    if {"results.json", "metrics.csv"} <= names & others:
        first, second = results_of(run), results_of(other)
        found += [f"results.json: {key}" for key in _unequal(first, second)]
        found += different_cells(run / "metrics.csv", other / "metrics.csv")
    return found


def files(run: Path) -> Iterator[Path]:
    """Yield the files of a run, and its empty folders."""
    return (one for one in run.rglob("*") if not one.is_dir() or not any(one.iterdir()))


def results_of(run: Path) -> dict[str, Any]:
    """Return what ``results.json`` holds but times, by dotted key; its own folder is ``RUN``."""
    content = json.loads((run / "results.json").read_text())
    return _flat({key: value for key, value in content.items() if key not in TIMES}, run)


def different_cells(file: Path, other: Path) -> list[str]:
    """Return the cells in which two files of curves differ, as text."""
    rows, others = (_rows(one) for one in (file, other))
    return [
        f"metrics.csv: step {(row or expected)['step']}, {name}: {ours!r}, not {theirs!r}"
        for row, expected in zip_longest(rows, others, fillvalue=dict[str, str]())
        for name in row.keys() | expected.keys()
        if (ours := row.get(name)) != (theirs := expected.get(name))
    ]


def _rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def _flat(content: Any, place: Path) -> dict[str, Any]:
    """Return the leaves of nested containers by dotted key; paths in a run are from its folder."""
    run = str(place.parent.parent if place.suffix == ".ckpt" else place)

    def leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, dict | list | tuple) and node:
            for name, value in node.items() if isinstance(node, dict) else enumerate(node):
                yield from leaves(value, f"{key}.{name}" if key else str(name))
        else:
            yield key, node.replace(run, "RUN") if isinstance(node, str) else node

    named = {key.replace(run, "RUN"): leaf for key, leaf in leaves(content, "")}
    return {key: leaf for key, leaf in named.items() if not key.startswith(_STOPWATCH)}


def _unequal(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    return [
        key
        for key in sorted(first.keys() | second.keys())
        if key not in first or key not in second or not _is_same(first[key], second[key])
    ]


def _is_same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    return type(first) is type(second) and bool(first == second)
