"""A process for each item: order, results of any size, and how processes end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from multiprune.launching.processes import Died, Observer, run_each, warm_up

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow


class Notes:
    def __init__(self) -> None:
        self.events: list[str] = []

    def started(self, position: int) -> None:
        self.events.append(f"{position} started")

    def ended(self, position: int, outcome: object) -> None:
        self.events.append(f"{position} {outcome}")


def answer(item: str) -> str:
    if item == "later":
        # By then the other one has been asked for, since it needs no more than its start.
        signal.sigtimedwait([], 0.3)
    if item.startswith("after "):
        while not (Path(os.environ["PLACE"]) / item.removeprefix("after ")).exists():
            time.sleep(0.01)
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "gone":
        os._exit(0)
    return f"{item} on {os.environ['PLACE']}"


def large(size: int) -> bytes:
    return bytes(size)


def run(items: list[str], folder: Path, *places: str) -> tuple[list[str | Died], list[str]]:
    warm_up([__name__], environment={})
    notes = Notes()
    observer: Observer[str] = notes
    outcomes = run_each(
        answer,
        [(item, folder / f"{position}.log") for position, item in enumerate(items)],
        workers=[{"PLACE": place} for place in places],
        observer=observer,
    )
    return outcomes, notes.events


def test_results_come_in_the_order_of_the_items(tmp_path: Path) -> None:
    outcomes, events = run(["later", "a", "b"], tmp_path, "here", "there")
    assert outcomes[0] == "later on here"
    assert [one and str(one).split()[0] for one in outcomes] == ["later", "a", "b"]
    assert events[:2] == ["0 started", "1 started"]
    assert len(events) == 6


def test_processes_that_die_return_how(tmp_path: Path) -> None:
    outcomes, events = run(["killed", "gone", "a"], tmp_path, "here")
    assert outcomes == [Died(-signal.SIGKILL), Died(0), "a on here"]
    assert "0 was killed by SIGKILL" in events
    assert "1 ended with exit code 0 and without a result" in events


def test_result_may_be_larger_than_a_pipe(tmp_path: Path) -> None:
    size = 5_000_000
    warm_up([__name__], environment={})
    items = [(size, tmp_path / "output.log")]
    outcomes = run_each(large, items, workers=[{}], observer=Notes())
    assert outcomes == [bytes(size)]


def test_no_items_are_no_work(tmp_path: Path) -> None:
    assert run([], tmp_path, "here") == ([], [])


def test_items_are_asked_for_while_the_workers_are_busy(tmp_path: Path) -> None:
    warm_up([__name__], environment={})
    notes = Notes()

    def items() -> Iterator[tuple[str, Path]]:
        # The first one says so only after the last one was asked for.
        for name in ("after c", "b", "c"):
            notes.events.append(f"{name} asked for")
            (tmp_path / name).touch()
            yield name, tmp_path / f"{name}.log"

    run_each(answer, items(), workers=[{"PLACE": str(tmp_path)}], observer=notes)
    assert notes.events == [
        *("after c asked for", "0 started", "b asked for", "c asked for"),
        *(f"0 after c on {tmp_path}", "1 started", f"1 b on {tmp_path}"),
        *("2 started", f"2 c on {tmp_path}"),
    ]
