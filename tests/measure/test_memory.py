from __future__ import annotations

import sys
from functools import partial

import pytest

from multiprune.measure.cost import parameter_bytes
from multiprune.measure.memory import peak_memory, resident_peak
from multiprune.measure.reference import Blueprint
from multiprune.models.from_scratch import from_scratch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.mark.slow
def test_peak_is_the_weights_and_the_states() -> None:
    encoder = from_scratch(layers=3, hidden=512, heads=8, intermediate=2048).model
    weights = parameter_bytes(encoder)
    batch, length = 8, 128
    peak = peak_memory(Blueprint.of(encoder), batch, length)
    assert peak is not None
    states = batch * length * 2048 * 4
    # Neurons before and after their activation; a few copies, and code that is imported late.
    assert weights + states < peak < weights + 4 * states + 20e6


@pytest.mark.slow
def test_peak_is_that_of_the_work_and_not_of_what_came_before() -> None:
    # A call of `bytearray` fills what it takes.
    work, warm_up = (partial(bytearray, count) for count in (50_000_000, 200_000_000))
    assert resident_peak(work, warm_up=warm_up) == pytest.approx(50e6, rel=0.1)
