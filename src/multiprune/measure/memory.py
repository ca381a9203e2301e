"""Peak memory, measured in a separate process."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import torch

from multiprune.measure.cost import tokens
from multiprune.models.from_scratch import from_scratch

if TYPE_CHECKING:
    from torch import nn

    from multiprune.measure.reference import Blueprint

Result = TypeVar("Result")
Work = Callable[[], object]

# `getrusage` would do elsewhere, but on Linux a child inherits the peak of its parent through it.
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory(blueprint: Blueprint, batch: int, length: int, device: str = "cpu") -> int | None:
    """Return the bytes that a model and one forward pass take at most.

    On the CPU that is what ``resident_peak`` says; on CUDA, what PyTorch allocates.
    """
    work = partial(_forward, blueprint, batch, length, device)
    if device == "cpu":
        return resident_peak(work, warm_up=_small_forward)
    return _in_a_new_process(partial(_allocated, work))


def resident_peak(work: Work, *, warm_up: Work) -> int | None:
    """Return how far the resident memory of a new process rises above what it was before ``work``.

    The first of anything imports code and starts threads: ``warm_up``, which goes before, should
    do the same to something small. Both are pickled. None where there is no ``/proc``.
    """
    if not _RESET.exists():
        return None
    return _in_a_new_process(partial(_rise, work, warm_up))


def _in_a_new_process(function: Callable[[], Result]) -> Result:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        1, context, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
    ) as process:
        return process.submit(function).result()


def _rise(work: Work, warm_up: Work) -> int:
    warm_up()
    before = _resident("VmRSS")
    _RESET.write_text("5")  # lowers the peak to what is resident now
    work()
    return _resident("VmHWM") - before


def _allocated(work: Work) -> int:
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated()


@torch.inference_mode()
def _forward(blueprint: Blueprint, batch: int, length: int, device: str) -> None:
    encoder = blueprint.build()
    cast("nn.Module", encoder).to(device)
    inputs = tokens(encoder.config, batch, length)
    encoder(**{key: one.to(device) for key, one in inputs.items()})


@torch.inference_mode()
def _small_forward() -> None:
    small = from_scratch(layers=1, hidden=16, heads=2, intermediate=32).model
    small(**tokens(small.config, 2, 8))


def _resident(entry: str) -> int:
    """Return an entry of the process's status in bytes: ``VmRSS`` is now, ``VmHWM`` the peak."""
    found = re.search(rf"^{entry}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])
