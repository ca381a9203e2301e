"""Schedules of any start and stop: they rise from 0 to 1, and end at the step that they say."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multiprune.pruning.schedule import CubicSchedule, LinearSchedule, OneShotSchedule, Schedule

shares = st.floats(0, 1) | st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)
spans = (
    st.tuples(shares, shares.filter(bool))
    .map(lambda pair: sorted(pair))
    .filter(lambda pair: pair[1] > 0)
)
kinds = st.sampled_from([CubicSchedule, LinearSchedule, OneShotSchedule])


def made(kind: type[Schedule], start: float, stop: float) -> Schedule:
    return OneShotSchedule(at=stop) if kind is OneShotSchedule else kind(start=start, stop=stop)


@given(kinds, spans, st.lists(shares, min_size=2))
def test_amounts_rise_from_nothing_to_everything(
    kind: type[Schedule], span: list[float], progress: list[float]
) -> None:
    schedule = made(kind, *span)
    amounts = [schedule(one) for one in sorted(progress)]
    assert amounts == sorted(amounts)
    assert all(0 <= amount <= 1 for amount in amounts)
    for one in progress:
        if one >= schedule.stop:
            assert schedule(one) == 1
        elif one <= schedule.start:
            assert schedule(one) == 0
    assert schedule(1.0) == 1


@given(spans, st.floats(0, 1))
def test_the_ramps_are_those_of_their_formulas(span: list[float], position: float) -> None:
    start, stop = span
    progress = start + position * (stop - start)
    if not start < progress < stop:
        return
    exact = (progress - start) / (stop - start)
    assert LinearSchedule(start=start, stop=stop)(progress) == pytest.approx(exact)
    # Zhu & Gupta (2017), equation 1, from a sparsity of 0 to one of 1.
    cubic = 1 + (0 - 1) * (1 - exact) ** 3
    assert CubicSchedule(start=start, stop=stop)(progress) == pytest.approx(cubic)


@given(kinds, spans, st.integers(1, 400))
@example(LinearSchedule, [0.0, 0.55], 100)
def test_the_step_at_which_pruning_is_done_is_the_first_of_amount_1(
    kind: type[Schedule], span: list[float], total: int
) -> None:
    schedule = made(kind, *span)
    done = [step for step in range(1, total + 1) if step / total >= schedule.stop]
    assert schedule.stop_step(total) == done[0]
    assert schedule(done[0] / total) == 1
