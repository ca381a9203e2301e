from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from multiprune.training import timing
from multiprune.training.timing import Stopwatch


class Clock:
    """Stands where it is put."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


ANY: Any = SimpleNamespace()


def train(watch: Stopwatch, clock: Clock, *, steps: list[float], pause: float) -> None:
    """Take steps of so many seconds, with a pause (an evaluation) after each."""
    for number, seconds in enumerate(steps):
        watch.on_train_batch_start(ANY, ANY, None, number)
        clock.now += seconds
        watch.on_train_batch_end(ANY, ANY, None, None, number)
        clock.now += pause


def test_wall_time_counts_evaluation_and_step_time_does_not(clock: Clock) -> None:
    watch = Stopwatch()
    clock.now = 100.0  # before training; not counted
    watch.on_fit_start(ANY, ANY)
    train(watch, clock, steps=[1.0, 3.0], pause=5.0)
    watch.on_fit_end(ANY, ANY)
    assert watch.wall_seconds == 1 + 3 + 2 * 5
    assert watch.seconds_per_step == 2.0


def test_no_steps_take_no_time() -> None:
    assert Stopwatch().seconds_per_step == 0.0


def test_saving_does_not_count_time_twice(clock: Clock) -> None:
    watch = Stopwatch()
    watch.on_fit_start(ANY, ANY)
    train(watch, clock, steps=[2.0], pause=0.0)
    assert watch.state_dict()["wall_seconds"] == 2.0
    assert watch.state_dict()["wall_seconds"] == 2.0
    train(watch, clock, steps=[4.0], pause=0.0)
    watch.on_fit_end(ANY, ANY)
    assert watch.wall_seconds == 6.0


def test_a_resumed_run_adds_to_the_time_before_it_was_stopped(clock: Clock) -> None:
    stopped = Stopwatch()
    stopped.on_fit_start(ANY, ANY)
    train(stopped, clock, steps=[1.0, 2.0], pause=1.0)
    saved = stopped.state_dict()

    clock.now = 7.0  # the clock of another process
    resumed = Stopwatch()
    resumed.load_state_dict(saved)
    resumed.on_fit_start(ANY, ANY)
    train(resumed, clock, steps=[6.0], pause=0.0)
    resumed.on_fit_end(ANY, ANY)
    assert resumed.wall_seconds == (1 + 2 + 2) + 6
    assert resumed.seconds_per_step == (1 + 2 + 6) / 3
