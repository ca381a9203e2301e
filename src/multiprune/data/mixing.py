"""Task mixing: weights of tasks, and the order of their batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from multiprune.arguments import check_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class Mixing(ABC):
    """How often each task is trained."""

    @abstractmethod
    def weights(self, sizes: Mapping[str, int]) -> Mapping[str, float]:
        """Return a weight a task, from the size of each; only ratios matter."""

    def probabilities(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Return the probability of each task, in the order of ``sizes``."""
        weights = self.weights(sizes)
        if set(weights) != set(sizes) or min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(
                "Mixing needs one weight of at least 0 for each task "
                f"({', '.join(sizes)}), but has {dict(weights)}."
            )
        whole = sum(weights.values())
        return {name: weights[name] / whole for name in sizes}


class ProportionalMixing(Mixing):
    """``p ~ n``: with sizes in batches, every example of every task once an epoch."""

    @override
    def weights(self, sizes: Mapping[str, int]) -> Mapping[str, float]:
        return dict(sizes)


class TemperatureMixing(Mixing):
    """``p ~ n^(1/T)``: between proportional (T = 1) and uniform (T to infinity)."""

    def __init__(self, *, temperature: float) -> None:
        check_number("temperature", temperature, above=0)
        self.temperature = temperature

    @override
    def weights(self, sizes: Mapping[str, int]) -> Mapping[str, float]:
        # Relative to the largest, as no power of it might be a number.
        largest = max(sizes.values(), default=1)
        return {name: (size / largest) ** (1 / self.temperature) for name, size in sizes.items()}


class UniformMixing(Mixing):
    """Every task equally often."""

    @override
    def weights(self, sizes: Mapping[str, int]) -> Mapping[str, float]:
        return dict.fromkeys(sizes, 1.0)


class FixedMixing(Mixing):
    """Weights that the user states, one a task."""

    def __init__(self, *, weights: Mapping[str, float]) -> None:
        if not isinstance(weights, Mapping):
            raise ValueError(f"`weights` must be a number for each task, but is {weights!r}.")
        for name, weight in weights.items():
            check_number(f"weights.{name}", weight, at_least=0)
        self._weights = dict(weights)

    @override
    def weights(self, sizes: Mapping[str, int]) -> Mapping[str, float]:
        return self._weights


@dataclass(frozen=True)
class BatchPlan:
    """Which examples of which task make up batch number ``n``, for every ``n`` from 0.

    The answer depends on nothing but this plan and ``n``, so that training can stop and continue
    anywhere. An epoch has as many batches as all tasks together; each task gets its share of them,
    in an order shuffled anew each epoch. A task walks through its own examples, shuffled anew each
    time it has seen them all; a streamed one has examples without end, in an order of their own.

    Attributes:
        lengths: for each task that is not streamed, the number of tokens of every example.
        probabilities: for each task, its share of the batches.
        batch_size: examples a batch, over all ranks; the last batch of a walk may be smaller.
        seed: of all shuffling.
        sort_window: so many consecutive batches of a task are filled with examples of similar
            length; 1 keeps the shuffled order, as streamed tasks do.
        streamed: for each streamed task, how many examples an epoch counts.
    """

    lengths: Mapping[str, NDArray[np.int64]]
    probabilities: Mapping[str, float]
    batch_size: int
    seed: int
    sort_window: int = 1
    streamed: Mapping[str, int] = field(default_factory=dict)

    _walks: dict[str, tuple[int, list[NDArray[np.int64]]]] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def batches_per_walk(self) -> dict[str, int]:
        """The number of batches that hold all examples of a task, as an epoch counts them."""
        counts = {name: len(one) for name, one in self.lengths.items()} | dict(self.streamed)
        return {name: -(-count // self.batch_size) for name, count in counts.items()}

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches of an epoch."""
        return sum(self.batches_per_walk.values())

    @property
    def share(self) -> dict[str, int]:
        """The number of batches of each task in an epoch."""
        total = self.batches_per_epoch
        exact = {name: total * p for name, p in self.probabilities.items()}
        share = {name: int(count) for name, count in exact.items()}
        by_remainder = sorted(exact, key=lambda name: share[name] - exact[name])
        for name in by_remainder[: total - sum(share.values())]:
            share[name] += 1
        if starved := [name for name, p in self.probabilities.items() if p and not share[name]]:
            raise ValueError(
                f"{', '.join(starved)} would get none of the {total} batches of an epoch: "
                "raise its weight in the mixing."
            )
        return share

    def batches(self, start: int = 0) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Yield task and example numbers of batch ``start`` and all that follow, without end."""
        share = self.share
        epoch, skip = divmod(start, self.batches_per_epoch)
        while True:
            taken = {name: epoch * count for name, count in share.items()}
            for position, name in enumerate(self._order(epoch, share)):
                if position >= skip:
                    yield name, self._examples(name, taken[name])
                taken[name] += 1
            epoch, skip = epoch + 1, 0

    def _order(self, epoch: int, share: Mapping[str, int]) -> list[str]:
        order = [name for name, count in share.items() for _ in range(count)]
        permutation = np.random.default_rng([self.seed, epoch]).permutation(len(order))
        return [order[index] for index in permutation]

    def _examples(self, name: str, number: int) -> NDArray[np.int64]:
        if name in self.streamed:
            return np.arange(number * self.batch_size, (number + 1) * self.batch_size)
        walk, batch = divmod(number, self.batches_per_walk[name])
        return self._walk(name, walk)[batch]

    def _walk(self, name: str, walk: int) -> list[NDArray[np.int64]]:
        """Return the batches of a task's walk through its examples."""
        if name in self._walks and self._walks[name][0] == walk:
            return self._walks[name][1]
        task = list(self.lengths).index(name)
        generator = np.random.default_rng([self.seed, task + 1, walk, 1])
        lengths = self.lengths[name]
        examples = generator.permutation(len(lengths))
        window = self.batch_size * self.sort_window
        if self.sort_window > 1:
            for first in range(0, len(examples), window):
                part = examples[first : first + window]
                examples[first : first + window] = part[np.argsort(lengths[part], kind="stable")]
        batches = [
            examples[first : first + self.batch_size]
            for first in range(0, len(examples), self.batch_size)
        ]
        if self.sort_window > 1:
            batches = [batches[index] for index in generator.permutation(len(batches))]
        self._walks[name] = (walk, batches)
        return batches
