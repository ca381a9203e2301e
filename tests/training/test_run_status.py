"""How far a run has come, and what became of it, as its ``status.json`` says."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from application import SMALL, run_in
from full_disk import full_disk

from multiprune.data.source import GeneratedSource
from multiprune.runs.status import Status, StatusFile, read_status
from multiprune.tasks.classification import Classification
from multiprune.training.module import MultitaskModule
from multiprune.training.status import ReportStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def status_of(folder: Path) -> Status:
    status = read_status(folder)
    assert status is not None
    return status


def run_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch, event: Callable[[], None], *overrides: str
) -> None:
    """Run the application, in which ``event`` happens in the fifth loss of a classification."""
    loss, calls = Classification.loss, iter(range(10_000))

    def eventful(self: Classification, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if next(calls) == 4:
            event()
        return loss(self, logits, labels)

    monkeypatch.setattr(Classification, "loss", eventful)
    run_in(folder, *SMALL, *overrides)


def test_status_follows_a_run_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprune.training.status._SECONDS_BETWEEN_WRITES", 0.0)
    seen: list[Status] = []
    run_with(tmp_path, monkeypatch, lambda: seen.append(status_of(tmp_path)))
    (during,) = seen
    results = json.loads((tmp_path / "results.json").read_text())
    assert (during.state, during.pid, during.total_steps) == ("running", os.getpid(), 12)
    assert 4 <= during.step < 12
    assert during.density is not None
    assert during.density > 0.2
    assert during.score is None
    assert during.seconds_per_step is not None
    ended = status_of(tmp_path)
    assert (ended.state, ended.reason, ended.step) == ("finished", "", 12)
    assert ended.score == results["score"]
    assert ended.density == results["budget"]["kept"] / results["budget"]["dense"]


def test_failure_is_told_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("The machine goes down.\nSlowly.")

    with pytest.raises(RuntimeError, match="goes down"):
        run_with(tmp_path, monkeypatch, fail, "checkpoint.every_n_steps=2")
    failed = status_of(tmp_path)
    assert (failed.state, failed.reason) == ("failed", "The machine goes down.")
    assert 4 <= failed.step < 12
    monkeypatch.undo()
    run_in(tmp_path, *SMALL, "checkpoint.every_n_steps=2")
    resumed = status_of(tmp_path)
    assert (resumed.state, resumed.reason, resumed.step) == ("finished", "", 12)


def test_full_disk_is_a_reason_and_the_run_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, straight = tmp_path / "checkpoints" / "last.ckpt", tmp_path / "straight"
    saving = "checkpoint.every_n_steps=2"
    reason = f"{last} cannot be written: [Errno 27] File too large."
    with ExitStack() as disk:
        fill = partial(disk.enter_context, full_disk(after=50_000))
        with pytest.raises(SystemExit) as refused:
            run_with(tmp_path, monkeypatch, fill, saving)
    assert str(refused.value) == f"error: {reason}"
    assert (status_of(tmp_path).state, status_of(tmp_path).reason) == ("failed", reason)
    assert not list(tmp_path.rglob("*.writing"))
    assert torch.load(last, weights_only=True)["global_step"] >= 2
    monkeypatch.undo()
    assert run_in(tmp_path, *SMALL, saving) == run_in(straight, *SMALL)


def test_loss_that_is_not_finite_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise FloatingPointError("The loss is not finite.")

    with pytest.raises(SystemExit, match="not finite"):
        run_with(tmp_path, monkeypatch, fail)
    assert (status_of(tmp_path).state, status_of(tmp_path).reason) == (
        "failed",
        "The loss is not finite.",
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_interrupts_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        run_with(tmp_path, monkeypatch, lambda: os.kill(os.getpid(), number))
    assert ended.value.code == 128 + number
    stopped = status_of(tmp_path)
    assert (stopped.state, stopped.reason) == ("interrupted", "")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == stopped.step >= 5
    monkeypatch.undo()
    run_in(tmp_path, *SMALL)
    assert (status_of(tmp_path).state, status_of(tmp_path).step) == ("finished", 12)


def test_signal_interrupts_what_comes_after_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("It must not come here.")

    monkeypatch.setattr(MultitaskModule, "test_step", interrupted)
    with pytest.raises(SystemExit) as caught:
        run_in(tmp_path, *SMALL)
    assert caught.value.code == 128 + signal.SIGTERM
    assert status_of(tmp_path).state == "interrupted"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_signal_interrupts_what_comes_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("It must not come here.")

    monkeypatch.setattr(GeneratedSource, "load", load)
    with pytest.raises(SystemExit) as caught:
        run_in(tmp_path, *SMALL)
    assert caught.value.code == 128 + signal.SIGTERM
    assert status_of(tmp_path).state == "interrupted"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_refusal_of_a_finished_run_leaves_its_status(tmp_path: Path) -> None:
    run_in(tmp_path, *SMALL)
    before = status_of(tmp_path)
    with pytest.raises(SystemExit, match="holds a finished run"):
        run_in(tmp_path, *SMALL)
    assert status_of(tmp_path) == before


def test_status_is_written_every_few_seconds_and_not_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(
        "multiprune.training.status.time", SimpleNamespace(monotonic=lambda: clock.now)
    )
    trainer: Any = SimpleNamespace(
        global_step=50,
        estimated_stepping_batches=1000,
        _logger_connector=SimpleNamespace(should_update_logs=False),
    )
    module: Any = None
    file = StatusFile(tmp_path)
    file.begin()
    report = ReportStatus(file)
    report.on_train_start(trainer, module)
    written = []
    for step in range(51, 71):
        trainer.global_step, clock.now = step, clock.now + 0.5
        report.on_train_batch_end(trainer, module, None, None, 0)
        written.append(status_of(tmp_path).step)
    # Ten seconds pass: what is written at 5 and 10 stands.
    assert sorted(set(written)) == [50, 60, 70]
    # Resumed at step 50, and half a second each from there.
    assert status_of(tmp_path).seconds_per_step == 0.5
