"""Runs whose checkpoints somebody else has written: refused in a sentence, and nothing is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from application import SMALL, run_in, run_interrupted
from payload import put_payload_in

from multiprune import run
from multiprune.status import read_status
from multiprune.tasks.classification import Classification

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from multiprune.assembly import Experiment


def refused(folder: Path) -> str:
    """Return the sentence with which a run is refused to go on."""
    with pytest.raises(SystemExit) as error:
        run_in(folder, *SMALL)
    sentence = str(error.value)
    assert sentence.startswith("error: A checkpoint must be whole and hold plain values and tensor")
    assert "\n" not in sentence
    assert (status := read_status(folder)) is not None
    assert (status.state, f"error: {status.reason}") == ("failed", sentence)
    assert not (folder / "results.json").exists()
    return sentence


def test_a_run_does_not_continue_from_a_payload(tmp_path: Path) -> None:
    folder, mark = tmp_path / "run", tmp_path / "mark"
    run_interrupted(folder, *SMALL, "checkpoint.every_n_steps=3", kind=Classification, at=5)
    put_payload_in(last := folder / "checkpoints" / "last.ckpt", mark)
    assert f"{last} holds posix.system, which would be run: choose another" in refused(folder)
    assert not mark.exists()


def damage(best: Path) -> None:
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda best: put_payload_in(best, best.with_name("mark")), "holds posix.system, which wo"),
        (damage, "is damaged in "),
        (lambda best: best.unlink(), "does not exist: choose another hydra.run.dir"),
    ],
)
def test_a_run_does_not_end_with_other_weights_than_its_best(
    change: Callable[[Path], None],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    best = tmp_path / "checkpoints" / "best.ckpt"
    train = run.train

    def train_and_change(experiment: Experiment) -> None:
        train(experiment)
        change(best)

    monkeypatch.setattr(run, "train", train_and_change)
    assert f"{best} {problem}" in refused(tmp_path)
    assert not best.with_name("mark").exists()
