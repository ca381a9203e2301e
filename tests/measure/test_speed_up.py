"""What a speed-up may be, by hand, and what is said of one above it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from multiprune.measure.benchmark import Benchmark
from multiprune.measure.contestant import Cost
from multiprune.measure.latency import Latency, Size
from multiprune.measure.table import print_latencies

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = Size(8, 32)


def cost(model: str, multiply_adds: int, weight_bytes: int) -> Cost:
    return Cost(
        model=model,
        dense="dense",
        parameters=1,
        without_embeddings=1,
        nonzero=1,
        bytes=1,
        weight_bytes=weight_bytes,
        peak_bytes={},
        multiply_adds={SIZE: multiply_adds},
    )


COSTS = [
    cost("dense", 400, 4000),
    cost("half", 200, 2000),
    cost("int8", 400, 1000),
    cost("wide", 100, 4000),
]


def latency(model: str, *seconds: float, failure: str = "") -> Latency:
    return Latency(model, "eager", SIZE, seconds, failure)


def rows_of(latencies: Sequence[Latency]) -> dict[str, list[object]]:
    found = Benchmark({}, COSTS, list(latencies)).as_json()["latencies"]
    keys = ("speed_up", "allowed", "disturbed")
    return {one["model"]: [one[key] for key in keys if key in one] for one in found}


def test_speed_up_above_multiply_adds_and_bytes_is_disturbed() -> None:
    rows = rows_of(
        [
            latency("dense", 8.0, 8.68, 9.0),
            latency("half", 1.0),
            latency("int8", 2.2),
            latency("wide", 2.17),
        ]
    )
    assert rows == {
        "dense": [1.0, 1.0, False],
        "half": [8.68, 2.0, True],
        "int8": [pytest.approx(3.945, abs=1e-3), 4.0, False],
        "wide": [4.0, 4.0, False],
    }


@pytest.mark.parametrize(("seconds", "disturbed"), [(0.46, False), (0.45, True)])
def test_a_tenth_above_is_noise(seconds: float, disturbed: bool) -> None:
    assert rows_of([latency("dense", 1.0), latency("half", seconds)])["half"][2] is disturbed


def test_nothing_is_said_of_what_failed() -> None:
    rows = rows_of([latency("dense", failure="no"), latency("half", 1.0)])
    assert rows == {"dense": [], "half": []}


def test_table_marks_what_is_disturbed(capsys: pytest.CaptureFixture[str]) -> None:
    print_latencies(COSTS, [latency("dense", 8.68), latency("half", 1.0), latency("wide", 3.0)])
    output = capsys.readouterr().out
    assert "8.68*" in output
    assert "2.89 " in output
    assert "* more than multiply-adds and bytes of weights allow: " in output
    print_latencies(COSTS, [latency("dense", 2.0), latency("half", 1.0)])
    assert "*" not in capsys.readouterr().out
