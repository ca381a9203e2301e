"""The two checkpoints that a run continues from, when one of them is damaged."""

from __future__ import annotations

import ast
import re
import zipfile
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from application import ROOT
from full_disk import full_disk
from payload import put_payload_in
from pytorch_lightning.plugins import MixedPrecision
from resumed_world import assert_same_end, fit, logged_run
from tiny_run import InterruptionError, tiny_run
from typing_extensions import override

from multiprune.training.checkpoint_file import damage
from multiprune.training.checkpoints import Last, checkpoint_to_continue
from multiprune.training.module import ResumeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiny_run import Run


def step_of(checkpoint: Path | None) -> int:
    assert checkpoint is not None
    step: int = torch.load(checkpoint, weights_only=True)["global_step"]
    return step


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run that was stopped after 9 of 12 steps, and has saved every third."""
    with pytest.raises(InterruptionError):
        fit(logged_run(tmp_path, every_n_steps=3, stop_at=10))
    return tmp_path


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def flip_a_bit(file: Path) -> None:
    """Change a weight, which torch would load."""
    with zipfile.ZipFile(file) as parts:
        tensors = [part for part in parts.infolist() if "/data/" in part.filename]
        largest = max(tensors, key=lambda part: part.file_size)
    content = bytearray(file.read_bytes())
    content[largest.header_offset + largest.file_size // 2] ^= 1
    file.write_bytes(content)
    torch.load(file, weights_only=True)


UNPICKLES = ("torch.load", "pickle.load", "pickle.loads", "np.load", "numpy.load", "joblib.load")

DAMAGES = [
    (truncate, r"cannot be read \(BadZipFile: "),
    (lambda file: file.write_bytes(b""), r"cannot be read \(BadZipFile: "),
    (lambda file: file.write_bytes(b"elbow" * 1000), r"cannot be read \(BadZipFile: "),
    (flip_a_bit, r"is damaged in archive/data/\d+\.$"),
    (lambda file: zipfile.ZipFile(file, "w").close(), r"has no data\.pkl"),
    (lambda file: file.unlink(), "does not exist"),
]


def test_the_last_whole_checkpoint_is_continued_from(stopped: Path) -> None:
    assert checkpoint_to_continue(stopped) == stopped / "last.ckpt"
    assert (step_of(stopped / "last.ckpt"), step_of(stopped / "previous.ckpt")) == (9, 6)


@pytest.mark.parametrize(("damage", "problem"), DAMAGES)
def test_the_one_before_takes_the_place_of_a_damaged_one(
    damage: Callable[[Path], object],
    problem: str,
    stopped: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    damage(stopped / "last.ckpt")
    assert checkpoint_to_continue(stopped) == stopped / "previous.ckpt"
    (record,) = caplog.records
    line = record.getMessage()
    assert "\n" not in line
    assert line.startswith(f"Continuing from {stopped / 'previous.ckpt'}: last.ckpt ")
    assert re.search(problem, line)
    damage(stopped / "previous.ckpt")
    if (stopped / "previous.ckpt").exists():
        with pytest.raises(ResumeError, match=rf"last\.ckpt .*; previous\.ckpt .*{stopped} "):
            checkpoint_to_continue(stopped)


def forget_the_optimizer(content: dict[str, Any]) -> object:
    return {key: value for key, value in content.items() if key != "optimizer_states"}


def put_a_path_in(content: dict[str, Any]) -> object:
    return content | {"world_size": Path()}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (forget_the_optimizer, "has no optimizer_states"),
        (put_a_path_in, r"holds pathlib(\._local)?\.PosixPath, which would be run"),
        (lambda _: [1, 2], "has no state_dict, loops, callbacks, optimizer_states, lr_schedulers"),
    ],
)
def test_another_file_in_its_place_is_refused(
    changed: Callable[[dict[str, Any]], object], problem: str, stopped: Path
) -> None:
    file = stopped / "last.ckpt"
    torch.save(changed(torch.load(file, weights_only=True)), file)
    with pytest.raises(ResumeError, match=rf"{file} {problem}: choose another hydra\.run\.dir"):
        fit(logged_run(stopped), checkpoint_to_continue(stopped))


@pytest.mark.parametrize("name", ["last.ckpt", "previous.ckpt"])
@pytest.mark.parametrize("allows_code", ["", "1"])
def test_a_payload_in_a_checkpoint_is_refused_and_does_not_run(
    name: str, allows_code: str, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", allows_code)
    put_payload_in(stopped / name, mark := tmp_path / "mark")
    if name == "previous.ckpt":
        truncate(stopped / "last.ckpt")
    with pytest.raises(ResumeError, match=rf"{name} holds \w+\.system, which would be run: "):
        fit(logged_run(stopped), checkpoint_to_continue(stopped))
    assert not mark.exists()
    torch.load(stopped / name, weights_only=False)
    assert mark.exists()


def test_looking_for_damage_unpickles_nothing(stopped: Path, tmp_path: Path) -> None:
    put_payload_in(stopped / "last.ckpt", mark := tmp_path / "mark")
    assert damage(stopped / "last.ckpt") is None
    assert checkpoint_to_continue(stopped) == stopped / "last.ckpt"
    assert not mark.exists()


def test_nothing_else_in_the_source_unpickles() -> None:
    found: dict[str, list[str]] = {}
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in UNPICKLES:
                found.setdefault(file.stem, []).append(ast.unparse(node))
    assert found.pop("checkpoint_file") == [
        "torch.load(file, map_location='cpu', weights_only=True)"
    ]
    # What Slurm's jobs hand over is submitit's; batches come from this process's own workers.
    assert set(found) <= {"slurm", "slurm_job", "job", "loader"}


class Collects(pl.Callback):
    """Keeps in checkpoints what only a pickle can hold."""

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"seen": deque([1]), "mean": np.float64(0.5)}


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    run = logged_run(tmp_path, Collects(), every_n_steps=1)
    held = r"what is to be saved holds collections\.deque, numpy.*: have your callback"
    with pytest.raises(ResumeError, match=rf"last\.ckpt must hold plain values and.* {held}"):
        fit(run)
    assert run.trainer.global_step == 1
    assert not list(tmp_path.glob("*.ckpt*"))


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_is_continued_from_plain_values(precision: str, tmp_path: Path) -> None:
    def run(name: str, **options: Any) -> Run:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        plugin: Any = MixedPrecision("16-mixed", "cpu", scaler)
        given = {"plugins": [plugin]} if precision == "16-mixed" else {"precision": precision}
        return logged_run(tmp_path / name, **given, **options)

    straight = fit(run("straight"))
    with pytest.raises(InterruptionError):
        fit(run("stopped", every_n_steps=1, stop_at=5))
    last = checkpoint_to_continue(tmp_path / "stopped")
    assert last is not None
    if precision == "16-mixed":
        assert torch.load(last, weights_only=True)["MixedPrecision"]["scale"] == 2.0**11
    assert_same_end(fit(run("stopped"), last), straight)


def test_a_run_without_checkpoints_begins(tmp_path: Path) -> None:
    assert checkpoint_to_continue(tmp_path) is None
    assert checkpoint_to_continue(tmp_path / "nowhere") is None


def test_a_run_that_goes_back_further_ends_the_same(stopped: Path) -> None:
    straight = fit(logged_run(stopped / "straight"))
    flip_a_bit(stopped / "last.ckpt")
    assert_same_end(fit(logged_run(stopped), checkpoint_to_continue(stopped)), straight)


def test_a_full_disk_leaves_the_checkpoints_as_they_were(tmp_path: Path) -> None:
    straight = fit(logged_run(tmp_path / "straight"))
    with pytest.raises(InterruptionError):
        fit(logged_run(tmp_path, every_n_steps=1, stop_at=3))
    before = {file: file.read_bytes() for file in tmp_path.glob("*.ckpt")}
    resumed = logged_run(tmp_path, every_n_steps=1)
    with (
        pytest.raises(OSError, match=r"last\.ckpt cannot be written: .*File too large\.$"),
        full_disk(after=len(before[tmp_path / "last.ckpt"]) // 2),
    ):
        fit(resumed, checkpoint_to_continue(tmp_path))
    assert {file: file.read_bytes() for file in tmp_path.glob("*.ckpt*")} == before
    assert_same_end(fit(logged_run(tmp_path), checkpoint_to_continue(tmp_path)), straight)


def test_steps_between_checkpoints_must_be_counted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`every_n_steps` must be a whole number"):
        Last(tmp_path, every_n_steps=0)


def test_what_the_best_checkpoint_remembers_of_evaluations_is_all_continued(tmp_path: Path) -> None:
    pruner = ROOT / "conf" / "pruner" / "none.yaml"
    stopped = tiny_run(tmp_path, pruner, stop_at=9)
    with pytest.raises(InterruptionError):
        stopped.trainer.fit(stopped.module, stopped.data)
    remembered = stopped.best.state_dict()
    assert remembered["current_score"] is not None
    resumed = tiny_run(tmp_path, pruner)
    resumed.best.load_state_dict(remembered)
    assert resumed.best.state_dict() == remembered


def test_ranks_that_see_different_checkpoints_do_not_train(tmp_path: Path) -> None:
    def gathered(own: torch.Tensor) -> torch.Tensor:
        return torch.stack([own, own - 3])

    strategy = SimpleNamespace(all_gather=gathered)
    trainer: Any = SimpleNamespace(global_step=9, strategy=strategy)
    module: Any = SimpleNamespace(device="cpu")
    with pytest.raises(RuntimeError, match=r"steps, \[9, 6\]: all must see the same files in "):
        Last(tmp_path, every_n_steps=1).on_train_start(trainer, module)
