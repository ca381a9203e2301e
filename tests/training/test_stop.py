"""A run that is asked to stop, by a real signal, and continues: nothing is lost or repeated."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from resumed_world import assert_same_end, fit, logged_run, rows_in
from tiny_run import InterruptionError
from typing_extensions import override


class SignalAt(pl.Callback):
    """Sends a signal to this process in the batch with a number, of training or of validation."""

    def __init__(self, batch: int, number: int, *, validation: bool = False) -> None:
        self.batch, self.number, self.validation = batch, number, validation
        self.seen = 0

    def begin(self, *, validation: bool) -> None:
        if validation == self.validation:
            self.seen += 1
            if self.seen == self.batch:
                os.kill(os.getpid(), self.number)

    @override
    def on_train_batch_start(self, *_: Any) -> None:
        self.begin(validation=False)

    @override
    def on_validation_batch_start(self, *_: Any) -> None:
        self.begin(validation=True)


class Validations(pl.Callback):
    """Notes after which steps there was a whole validation."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.steps.append(trainer.global_step)


# Two epochs of six batches, each validated in two: in the first batch, in the midst, in the last
# of an epoch, in a validation, in the last batch and in the last validation.
@pytest.mark.parametrize(
    ("batch", "validation", "saved"),
    [
        *[(1, False, 1), (3, False, 3), (6, False, 6), (1, True, 6), (2, True, 6)],
        *[(7, False, 7), (12, False, 12), (3, True, 12), (4, True, 12)],
    ],
)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    batch: int, validation: bool, saved: int, tmp_path: Path
) -> None:
    straight = fit(logged_run(tmp_path / "straight"))
    sender = SignalAt(batch, signal.SIGTERM, validation=validation)
    stopped, seen = logged_run(tmp_path / "stopped", sender), Validations()
    with pytest.raises(SystemExit) as ended:
        fit(stopped)
    assert ended.value.code == 128 + signal.SIGTERM
    last = tmp_path / "stopped" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == saved
    assert len(rows_in(last.parent)) == saved
    resumed = fit(logged_run(last.parent, seen), last)
    assert_same_end(resumed, straight)
    assert seen.steps == ([6, 12] if saved <= 6 else [12])


def test_a_run_that_has_all_its_steps_is_validated_when_it_continues(tmp_path: Path) -> None:
    options = {"every_n_steps": 5, "max_steps": 12}
    straight = fit(logged_run(tmp_path / "straight", **options))
    sender = SignalAt(3, signal.SIGTERM, validation=True)
    with pytest.raises(SystemExit):
        fit(logged_run(tmp_path / "stopped", sender, **options))
    last = tmp_path / "stopped" / "last.ckpt"
    # Lightning would not validate again where no step is left.
    assert torch.load(last, weights_only=True)["global_step"] == 10
    assert_same_end(fit(logged_run(last.parent, **options), last), straight)


def test_gradients_that_are_being_accumulated_are_waited_for(tmp_path: Path) -> None:
    straight = fit(logged_run(tmp_path / "straight", accumulate=2))
    with pytest.raises(SystemExit):
        fit(logged_run(tmp_path / "stopped", SignalAt(3, signal.SIGTERM), accumulate=2))
    last = tmp_path / "stopped" / "last.ckpt"
    # The third batch is the first of the second step.
    assert torch.load(last, weights_only=True)["global_step"] == 2
    # Saved at the end of each step: not again in the midst of the next one, after a resumption.
    resumed = logged_run(tmp_path / "stopped", accumulate=2, every_n_steps=2, stop_at=2)
    with pytest.raises(InterruptionError):
        fit(resumed, last)
    assert (
        torch.load(last, weights_only=True)["loops"]["fit_loop"]["epoch_loop.batch_progress"][
            "current"
        ]["ready"]
        == 4
    )
    assert_same_end(fit(logged_run(tmp_path / "stopped", accumulate=2), last), straight)


def test_ctrl_c_is_waited_for_once(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        fit(logged_run(tmp_path / "once", SignalAt(3, signal.SIGINT)))
    assert ended.value.code == 128 + signal.SIGINT
    assert (tmp_path / "once" / "last.ckpt").exists()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    try:
        twice = [SignalAt(3, signal.SIGINT), SignalAt(3, signal.SIGINT)]
        with pytest.raises(SystemExit):
            fit(logged_run(tmp_path / "twice", *twice))
    finally:
        # Lightning ignores Ctrl-C while it shuts down.
        signal.signal(signal.SIGINT, before[0])
    assert not (tmp_path / "twice" / "last.ckpt").exists()


def test_a_job_that_ignores_ctrl_c_goes_on_ignoring_it(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = fit(logged_run(tmp_path, SignalAt(3, signal.SIGINT)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.trainer.global_step == 12


# In each of two processes: a straight run, one in which the second rank gets the signal in a
# batch, one in which it does in a validation, and the same continued.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from resumed_world import assert_same_end, fit, logged_run
from test_stop import SignalAt

folder = Path(sys.argv[1])
options = dict(strategy="ddp_find_unused_parameters_true", devices=2)

def signals(**when):
    return [SignalAt(number=signal.SIGTERM, **when)] if os.environ["LOCAL_RANK"] == "1" else []

def stop(*callbacks, checkpoint=None, saved):
    try:
        fit(logged_run(folder / "stopped", *callbacks, **options), checkpoint)
    except SystemExit as ended:
        assert ended.code == (0 if os.environ["LOCAL_RANK"] == "1" else 143), ended.code
    else:
        raise AssertionError("It went on.")
    assert torch.load(last, weights_only=True)["global_step"] == saved

last = folder / "stopped" / "last.ckpt"
straight = fit(logged_run(folder / "straight", **options))
stop(*signals(batch=1), saved=1)
stop(*signals(batch=1, validation=True), checkpoint=last, saved=4)
resumed = fit(logged_run(folder / "stopped", **options), last)
assert_same_end(resumed, straight)
print("the same after", resumed.trainer.global_step)
"""


@pytest.mark.slow
def test_all_ranks_stop_where_one_was_asked_to(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "script.py").write_text(SCRIPT)
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path]
    shared |= {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(tmp_path / "script.py"), str(tmp_path)],
            env=shared | {"LOCAL_RANK": rank, "NODE_RANK": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        for rank in ranks:
            output, errors = rank.communicate(timeout=120)
            assert rank.returncode == 0, errors
            assert output.endswith("the same after 8\n")
    finally:
        for rank in ranks:
            rank.kill()
