"""Peak memory of a model, measured in a process of its own."""

from __future__ import annotations

import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from multiprune.measure.cost import tokens
from multiprune.models.encoder import nano

if TYPE_CHECKING:
    from torch import nn

    from multiprune.measure.reference import Blueprint

# `getrusage` would do elsewhere, but on Linux a child inherits the peak of its parent through it.
_STATUS = Path("/proc/self/status")


def peak_memory(blueprint: Blueprint, batch: int, length: int, device: str = "cpu") -> int | None:
    """Return the bytes that a model and one forward pass take at most.

    On the CPU that is how far the resident memory of a fresh process rises above what it was
    before the model was built, and None where there is no ``/proc``; on CUDA, what is allocated.
    """
    if device == "cpu" and not _STATUS.exists():
        return None
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        threads = torch.get_num_threads()
        return process.submit(_measure, blueprint, batch, length, device, threads).result()


@torch.inference_mode()
def _measure(blueprint: Blueprint, batch: int, length: int, device: str, threads: int) -> int:
    torch.set_num_threads(threads)
    # The first forward pass of any model imports code and starts threads.
    small = nano(layers=1, hidden=16, heads=2, intermediate=32).model
    small(**tokens(small.config, 2, 8))
    before = _resident("VmRSS")
    encoder = blueprint.build()
    cast("nn.Module", encoder).to(device)
    inputs = tokens(encoder.config, batch, length)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    encoder(**{key: one.to(device) for key, one in inputs.items()})
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    return _resident("VmHWM") - before


def _resident(entry: str) -> int:
    """Return an entry of the process's status in bytes: ``VmRSS`` is now, ``VmHWM`` the peak."""
    if not _STATUS.exists():
        return 0
    found = re.search(rf"^{entry}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])
