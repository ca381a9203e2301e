"""The ramps at their ends and in the middle."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from multiprune.pruning.schedule import (
    CubicSchedule,
    LinearSchedule,
    OneShotSchedule,
    Schedule,
)

FILES = sorted((Path(__file__).parents[2] / "conf" / "schedule").glob("*.yaml"))

SCHEDULES = [
    CubicSchedule(start=0.25, stop=0.75),
    LinearSchedule(start=0.25, stop=0.75),
    OneShotSchedule(at=0.5),
]


def configured() -> list[Schedule]:
    assert FILES, "conf/schedule holds no file"
    return [instantiate(OmegaConf.load(file)) for file in FILES]


@pytest.mark.parametrize("schedule", SCHEDULES + configured())
def test_amount_rises_from_0_to_1(schedule: Schedule) -> None:
    amounts = [schedule(i / 1000) for i in range(1001)]
    assert amounts == sorted(amounts)
    assert schedule(0.0) == schedule(schedule.start * 0.99) == 0.0
    assert schedule(schedule.stop) == schedule(1.0) == 1.0
    assert schedule(schedule.stop * 0.99) < 1.0


def test_cubic_ramp() -> None:
    schedule = CubicSchedule(start=0.25, stop=0.75)
    assert schedule(0.25) == 0.0
    assert schedule(0.375) == 1 - 0.75**3 == 0.578125
    assert schedule(0.5) == 1 - 0.5**3 == 0.875
    assert schedule(0.625) == 1 - 0.25**3 == 0.984375


def test_linear_ramp() -> None:
    schedule = LinearSchedule(start=0.25, stop=0.75)
    assert [schedule(0.25), schedule(0.375), schedule(0.5)] == [0.0, 0.25, 0.5]


def test_one_shot_jumps() -> None:
    schedule = OneShotSchedule(at=0.5)
    assert [schedule(0.499), schedule(0.5)] == [0.0, 1.0]


def test_ramp_may_cover_the_whole_training() -> None:
    schedule = LinearSchedule(start=0.0, stop=1.0)
    assert [schedule(0.0), schedule(0.125), schedule(1.0)] == [0.0, 0.125, 1.0]


@pytest.mark.parametrize(
    ("stop", "total_steps", "step"), [(0.5, 10, 5), (0.5, 11, 6), (1.0, 7, 7), (0.01, 10, 1)]
)
def test_schedule_stops_at_the_first_step_that_reaches_it(
    stop: float, total_steps: int, step: int
) -> None:
    assert LinearSchedule(start=0.0, stop=stop).stop_step(total_steps) == step


def test_amount_is_1_at_the_stop_step_and_not_before() -> None:
    for total_steps in range(1, 201):
        for percent in range(1, 101):
            schedule = LinearSchedule(start=0.0, stop=percent / 100)
            step = schedule.stop_step(total_steps)
            assert step == max(1, -(-percent * total_steps // 100))
            assert schedule(step / total_steps) == 1.0
            assert schedule((step - 1) / total_steps) < 1.0


def test_stop_before_start_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"`start` is 0\.6 and `stop` is 0\.5"):
        CubicSchedule(start=0.6, stop=0.5)


@pytest.mark.parametrize(("start", "stop"), [(-0.1, 0.5), (0.5, 1.1), (0.0, 0.0), (10, 70)])
def test_fractions_out_of_range_are_an_error(start: float, stop: float) -> None:
    with pytest.raises(ValueError, match=r"must be in .0, 1\], but is |not stop before it starts"):
        LinearSchedule(start=start, stop=stop)
