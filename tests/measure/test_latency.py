from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from shipped import NEURON_COUNT, cut, dense, with_tokenizer
from typing_extensions import override

from multiprune.measure.backends import Backend, Eager, Forward
from multiprune.measure.latency import WARM_UP, Latency, Size, interleaved, time_models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from multiprune.models.encoder import Encoder


class Refuses(Backend):
    """Fails with cut models: when they are loaded, or at the first long inputs."""

    def __init__(self, *, at_once: bool) -> None:
        self.at_once = at_once

    @property
    @override
    def name(self) -> str:
        return "refuses"

    @override
    def load(self, encoder: Encoder) -> Forward:
        weight = encoder.model.get_parameter("encoder.layer.0.intermediate.dense.weight")
        cut_model = len(weight) < NEURON_COUNT
        if cut_model and self.at_once:
            raise NotImplementedError("No cut models.\nSee the manual.")
        forward = Eager().load(encoder)

        def picky(inputs: Mapping[str, Tensor]) -> Tensor:
            if cut_model and inputs["input_ids"].shape[1] > 4:
                raise RuntimeError("Too long.")
            return forward(inputs)

        return picky


def models() -> dict[str, Encoder]:
    return {"dense": with_tokenizer(dense()), "cut": with_tokenizer(cut())}


def test_every_call_takes_its_turn_in_every_round() -> None:
    order: list[str] = []
    names = ["a", "b", "c"]
    calls = {name: partial(order.append, name) for name in names}
    seconds = interleaved(calls, rounds=6)
    rounds = [order[start : start + 3] for start in range(0, len(order), 3)]
    assert len(rounds) == WARM_UP + 6
    assert all(sorted(one) == names for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1
    assert {name: len(one) for name, one in seconds.items()} == dict.fromkeys(names, 6)


def test_order_is_the_same_in_every_benchmark() -> None:
    orders: list[list[str]] = [[], []]
    for order in orders:
        interleaved({name: partial(order.append, name) for name in "abc"}, rounds=4)
    assert orders[0] == orders[1]


def test_statistics_are_those_of_numpy() -> None:
    seconds = (0.5, 0.1, 0.4, 0.2, 0.9)
    latency = Latency("model", "eager", Size(8, 4), seconds)
    assert latency.median == np.median(seconds)
    assert latency.p90 == pytest.approx(np.quantile(seconds, 0.9))
    assert latency.examples_per_second == 8 / 0.4


def test_one_round_is_its_own_median_and_p90() -> None:
    latency = Latency("model", "eager", Size(1, 4), (0.25,))
    assert (latency.median, latency.p90, latency.examples_per_second) == (0.25, 0.25, 4)


def test_each_model_is_timed_at_each_size() -> None:
    sizes = [Size(1, 3), Size(2, 5)]
    latencies = list(time_models(models(), Eager(), sizes, 2))
    assert [(one.size, one.model) for one in latencies] == [
        (size, name) for size in sizes for name in ("dense", "cut")
    ]
    assert all(len(one.seconds) == 2 and not one.failure for one in latencies)


def test_model_that_cannot_be_loaded_is_reported_and_the_others_are_timed() -> None:
    first, second = time_models(models(), Refuses(at_once=True), [Size(1, 3)], 2)
    assert len(first.seconds) == 2
    assert second.failure == "NotImplementedError: No cut models."
    assert second.seconds == ()


def test_failure_at_one_size_leaves_the_others() -> None:
    sizes = [Size(1, 3), Size(1, 6)]
    latencies = list(time_models({"cut": models()["cut"]}, Refuses(at_once=False), sizes, 1))
    assert [one.failure for one in latencies] == ["", "RuntimeError: Too long."]
