"""Latency of interleaved forward passes, as machines are shared and noisy."""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.measure.cost import tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from multiprune.measure.backends import Backend, Forward
    from multiprune.models.encoder import Encoder

#: Rounds that are not counted: memory is allocated, kernels are chosen, clocks rise.
WARM_UP = 2


@dataclass(frozen=True)
class Size:
    """The shape of inputs: examples, and tokens of each."""

    batch: int
    length: int


@dataclass(frozen=True)
class Latency:
    """The forward passes of one model at one size, by one backend.

    Attributes:
        seconds: one entry a round; empty if the backend failed.
        failure: why it did, or empty.
    """

    model: str
    backend: str
    size: Size
    seconds: tuple[float, ...] = ()
    failure: str = ""

    @property
    def median(self) -> float:
        """Median latency in seconds."""
        return statistics.median(self.seconds)

    @property
    def p90(self) -> float:
        """The latency in seconds that nine of ten forward passes keep."""
        if len(self.seconds) == 1:
            return self.seconds[0]
        return statistics.quantiles(self.seconds, n=10, method="inclusive")[-1]

    @property
    def examples_per_second(self) -> float:
        """Throughput at the median latency."""
        return self.size.batch / self.median


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time calls that take turns, in an order shuffled anew each round; return seconds by name."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    turns = list(calls)
    for number in range(WARM_UP + rounds):
        random.Random(number).shuffle(turns)
        for name in turns:
            start = clock()
            calls[name]()
            if number >= WARM_UP:
                seconds[name].append(clock() - start)
    return seconds


def time_models(
    encoders: Mapping[str, Encoder],
    backend: Backend,
    sizes: Sequence[Size],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Latency]:
    """Time encoders by one backend, size by size; yield one latency a model and size.

    A machine that others use too is fairer by ``clock=time.process_time``, with one thread.
    """
    ready: dict[str, Forward] = {}
    failures: dict[str, str] = {}
    for name, encoder in encoders.items():
        try:
            ready[name] = backend.load(encoder)
        except Exception as error:
            failures[name] = _sentence(error)
    for size in sizes:
        calls: dict[str, Callable[[], object]] = {}
        failed = dict(failures)
        for name, forward in ready.items():
            call = _bound(forward, encoders[name], size, backend.device)
            try:
                call()
            except Exception as error:
                failed[name] = _sentence(error)
            else:
                calls[name] = call
        seconds = interleaved(calls, rounds=rounds, clock=clock)
        for name in encoders:
            yield Latency(
                name, backend.name, size, tuple(seconds.get(name, ())), failed.get(name, "")
            )


def _bound(forward: Forward, encoder: Encoder, size: Size, device: str) -> Callable[[], object]:
    drawn = tokens(encoder.model.config, size.batch, size.length)
    inputs = {key: one.to(device) for key, one in drawn.items()}
    return lambda: forward(inputs)


def _sentence(error: Exception) -> str:
    """Return the first line of what a backend says, which may be pages."""
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])
