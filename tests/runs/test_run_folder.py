"""Nothing of the user's is lost in a run's folder, and no two processes write to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from application import QUICK, ROOT, SMALL, results_of, run_in, save_untrained
from pytorch_lightning.loggers.logger import Logger
from typing_extensions import override

from multiprune import run as whole_run
from multiprune.cli import main
from multiprune.launching.lock import lock, one_run_in
from multiprune.runs.folder import MODEL, RUN_LOCK, WRITTEN, RunFolder, digest
from multiprune.runs.status import read_status
from multiprune.tracking.tracker import Tracker

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = (*SMALL, "pruner=magnitude", "budget.fraction=0.5")


def content(folder: Path) -> dict[str, bytes]:
    files = [one for one in folder.rglob("*") if one.is_file()]
    return {str(one.relative_to(folder)): one.read_bytes() for one in files}


def put_aside(folder: Path) -> Path:
    """Put something of the user's where a run writes, and return it."""
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("precious")
    return folder


@pytest.mark.parametrize("name", ["model", "sizes", "metrics.csv", "checkpoints/best.ckpt"])
def test_what_a_run_did_not_write_is_refused_before_training(name: str, tmp_path: Path) -> None:
    put_aside(tmp_path / "run" / name)
    for _ in range(2):  # the first refusal makes it no more the run's own
        with pytest.raises(SystemExit, match=f"{name} is not of this run: move it away"):
            run_in(tmp_path / "run", *SETTINGS)
    assert (tmp_path / "run" / name / "notes.txt").read_text() == "precious"
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_links_are_never_followed_nor_replaced(tmp_path: Path) -> None:
    kept = put_aside(tmp_path / "kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / MODEL).symlink_to(kept)
    with pytest.raises(ValueError, match="is not of this run"):
        RunFolder(tmp_path / "run").begin()


def test_an_encoder_in_the_own_folder_of_a_run_is_refused(tmp_path: Path) -> None:
    run = save_untrained(tmp_path / "run" / "pretrained")
    before = content(run)
    for path in (run, run / MODEL):
        with pytest.raises(SystemExit, match=r"`encoder\.path` must be outside of the run's own"):
            run_in(tmp_path / "run", *QUICK, "encoder=minilm", f"encoder.path={path}")
    assert content(run) == before


def killed_before(step: str, folder: Path, *settings: str) -> None:
    """Run until ``step`` of :mod:`multiprune.run` is to be done, and leave what a kill leaves."""
    with pytest.MonkeyPatch.context() as patch:

        def kill(*_: Any, **__: Any) -> None:
            # Nothing that is done on the way out can be seen in the files.
            status[0] = (folder / "status.json").read_bytes()
            raise KeyboardInterrupt

        status = [b""]
        patch.setattr(whole_run, step, kill)
        with pytest.raises(KeyboardInterrupt):
            run_in(folder, *settings)
    (folder / "status.json").write_bytes(status[0])


def test_a_run_that_was_killed_after_it_wrote_its_model_goes_on(tmp_path: Path) -> None:
    killed_before("write_masks", tmp_path, *SETTINGS, "checkpoint.every_n_steps=3")
    assert (tmp_path / MODEL / "model.safetensors").exists()
    before = digest(tmp_path / MODEL)
    run_in(tmp_path, *SETTINGS, "checkpoint.every_n_steps=3")
    assert results_of(tmp_path)["steps"] == 12
    assert digest(tmp_path / MODEL) == before
    assert [one.name for one in tmp_path.glob(".model-*")] == []


def test_what_was_changed_in_the_meantime_is_not_the_runs_own(tmp_path: Path) -> None:
    killed_before("write_masks", tmp_path, *SETTINGS)
    (tmp_path / MODEL / "notes.txt").write_text("precious")
    with pytest.raises(SystemExit, match="model is not of this run"):
        run_in(tmp_path, *SETTINGS)
    assert (tmp_path / MODEL / "notes.txt").exists()


def test_what_appears_while_a_run_trains_stays(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        finish = whole_run.finish

        def meanwhile(*given: Any) -> Any:
            put_aside(tmp_path / MODEL)
            return finish(*given)

        patch.setattr(whole_run, "finish", meanwhile)
        with pytest.raises(ValueError, match="model is not of this run"):
            run_in(tmp_path, *SETTINGS, "checkpoint.every_n_steps=3")
    # Nothing is lost of the run either.
    shutil.rmtree(tmp_path / MODEL)
    run_in(tmp_path, *SETTINGS, "checkpoint.every_n_steps=3")


@pytest.mark.parametrize("written", ["{", "[1]", '{"model": 1}', "\0" * 9])
def test_a_damaged_note_makes_nothing_the_runs_own(written: str, tmp_path: Path) -> None:
    put_aside(tmp_path / MODEL)
    (tmp_path / WRITTEN).write_text(written)
    with pytest.raises(ValueError, match="is not of this run"):
        RunFolder(tmp_path).begin()


def test_a_second_process_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"state": "running"}))
    with lock(tmp_path, RUN_LOCK, what="run"):
        before = content(tmp_path)
        with pytest.raises(SystemExit, match=r"^error: .* is in use by another run"):
            run_in(tmp_path, *SETTINGS)
        assert content(tmp_path) == before
    with one_run_in(tmp_path):
        pass
    with one_run_in(tmp_path):
        pass


def test_a_run_that_has_results_and_was_killed_then_concludes(tmp_path: Path) -> None:
    killed_before("track", tmp_path, *SETTINGS)
    status = read_status(tmp_path)
    assert status is not None
    assert status.state == "running"
    before = content(tmp_path / MODEL)
    score = run_in(tmp_path, *SETTINGS)
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.score) == ("finished", score)
    assert score == results_of(tmp_path)["score"]
    assert content(tmp_path / MODEL) == before
    with pytest.raises(SystemExit, match="already holds a finished run"):
        run_in(tmp_path, *SETTINGS)


def test_status_names_what_killed_processes_have_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "results.json").write_text("{}")
    left = {folder / f".model-{'0' * 32}", tmp_path / f".exported-{'1' * 32}"}
    for one in left:
        one.mkdir()
    main(["status", str(tmp_path), "--format", "json"])
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 1
    assert {line.partition(": ")[2].partition(";")[0] for line in said.err.splitlines()} == {
        str(one) for one in left
    }


class Told(Logger, Tracker):
    """Notes what it is told."""

    told: ClassVar[list[Any]] = []
    keeps_model = True

    def __init__(self, predictions: int) -> None:
        super().__init__()
        self.predictions = predictions

    name = version = property(lambda _: "told")

    @override
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        pass

    @override
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass

    @override
    def begin(self, description: Any) -> None:
        self.told.append(description.name)

    @override
    def summarize(self, summary: Any, step: int) -> None:
        self.told.append((dict(summary), step))

    @override
    def draw(self, name: str, image: Any, step: int) -> None:
        self.told.append((name, image.tobytes(), step))

    @override
    def tabulate(self, name: str, table: Any, step: int) -> None:
        self.told.append((name, table, step))

    @override
    def keep_model(self, folder: Path) -> None:
        self.told.append(folder)

    @override
    def close(self, *, succeeded: bool) -> None:
        self.told.append(succeeded)


@pytest.mark.parametrize("job", [False, True])
def test_trackers_are_told_of_a_killed_run_what_they_are_told_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, job: bool
) -> None:
    told = "{_target_: test_run_folder.Told, predictions: 3}"
    settings = (*SETTINGS, f"+logger.told={told}", "logger=csv")
    run_in(tmp_path, *settings)
    straight = [*Told.told]
    assert len(straight) == 9  # four tasks
    # As a kill after the results leaves it.
    status = json.loads((tmp_path / "status.json").read_text())
    (tmp_path / "status.json").write_text(json.dumps(status | {"state": "running"}))
    Told.told.clear()
    monkeypatch.setattr("multiprune.start.is_job", lambda: job)
    assert run_in(tmp_path, *settings) == results_of(tmp_path)["score"]
    assert straight == Told.told
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "finished"
    Told.told.clear()


# train.py, killed when a tracker is told what the run came to.
SCRIPT = """
import os, signal
from pathlib import Path
from multiprune.tracking.tensorboard import TensorBoardTracker

def killed(self, summary, step):
    os.kill(os.getpid(), signal.SIGKILL)

TensorBoardTracker.summarize = killed
exec(compile(Path(os.environ["TRAIN"]).read_text(), os.environ["TRAIN"], "exec"))
"""


@pytest.mark.slow
def test_command_of_a_run_killed_before_its_summary_gives_that_to_the_tracker(
    tmp_path: Path,
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train, run = ROOT / "train.py", tmp_path / "run"
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    overrides = [*SETTINGS, "logger=[csv,tensorboard]", f"hydra.run.dir={run}"]
    environment = os.environ | {"TRAIN": str(train)}

    def started(file: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(file), *overrides]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    def summaries() -> dict[str, list[float]]:
        events = accumulator.EventAccumulator(str(run / "tensorboard"))
        events.Reload()
        tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("summary/")]
        return {tag: [one.value for one in events.Scalars(tag)] for tag in tags}

    first = started(script)
    assert first.returncode == -signal.SIGKILL, first.stderr
    status = read_status(run)
    assert status is not None
    assert status.state == "running"
    results = results_of(run)
    assert summaries() == {}
    before = content(run / MODEL)

    second = started(train)
    assert second.returncode == 0, second.stderr
    status = read_status(run)
    assert status is not None
    assert (status.state, status.score) == ("finished", results["score"])
    assert summaries()["summary/score"] == pytest.approx([results["score"]])
    assert summaries()["summary/kept"] == [results["budget"]["kept"]]
    assert content(run / MODEL) == before
    assert results_of(run) == results
    third = started(train)
    assert third.returncode == 2
    assert "already holds a finished run" in third.stderr
