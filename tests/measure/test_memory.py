from __future__ import annotations

import sys

import pytest

from multiprune.measure.cost import parameter_bytes
from multiprune.measure.memory import peak_memory
from multiprune.measure.reference import Blueprint
from multiprune.models.encoder import nano


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_peak_is_the_weights_and_the_states() -> None:
    encoder = nano(layers=3, hidden=512, heads=8, intermediate=2048).model
    weights = parameter_bytes(encoder)
    batch, length = 8, 128
    peak = peak_memory(Blueprint.of(encoder), batch, length)
    assert peak is not None
    states = batch * length * 2048 * 4
    # Neurons before and after their activation; a few copies, and code that is imported late.
    assert weights + states < peak < weights + 4 * states + 20e6
