"""Input that is malformed: one sentence, exit status 2, and nothing that is left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from application import NARROW, ROOT, save_untrained
from malformed_commands import COMMANDS, SWEEPS
from malformed_files import FILES, SOURCES, TASKS, separated
from malformed_folders import ENCODERS, EXPORTS
from malformed_overrides import MORE_OVERRIDES, OVERRIDES
from malformed_world import ACCEPTED, SMALL, Ended, check, multiprune_command, train
from tiers import slow

from multiprune import cli

if TYPE_CHECKING:
    from pathlib import Path

    Output = pytest.CaptureFixture[str]

FROM_FILE = (*NARROW, "task=example", "trainer=cpu")
WITHOUT_ENCODER = SMALL[len(NARROW) :]


def check_train(output: Output, folder: Path, expected: str, *overrides: str) -> None:
    check(train(output, folder, *overrides), expected)
    assert expected == ACCEPTED or not folder.exists()


@pytest.mark.parametrize("overrides", [*OVERRIDES, *slow(*MORE_OVERRIDES)])
def test_overrides(overrides: str, tmp_path: Path, capsys: Output) -> None:
    expected = (OVERRIDES | MORE_OVERRIDES)[overrides]
    # The embedded encoder, which has a path, and no layers to be set.
    small = () if "encoder.path" in overrides or "mirror=/" in overrides else SMALL
    check_train(capsys, tmp_path / "run", expected, *small, *overrides.split(";"))


@pytest.mark.parametrize("name", FILES)
def test_files_of_data(name: str, tmp_path: Path, capsys: Output) -> None:
    content, expected = FILES[name]
    (tmp_path / name).write_bytes(content)
    named = f"task.example.source.files.train={tmp_path / name}"
    check_train(capsys, tmp_path / "run", expected, *FROM_FILE, named)


@pytest.mark.parametrize("source", SOURCES)
def test_sources(source: str, tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(separated())
    named = f"task.example.source.files.train={file}"
    wrong = f"task.example.source.{source}"
    given = [wrong] if source.startswith("files") else [named, wrong]
    check_train(capsys, tmp_path / "run", SOURCES[source], *FROM_FILE, *given)


@pytest.mark.parametrize("content", TASKS)
def test_task_files(content: str, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "mine.yaml").write_text(content)
    own = (*NARROW, "task=mine", f"hydra.searchpath=[file://{tmp_path / 'conf'}]")
    check_train(capsys, tmp_path / "run", TASKS[content], *own)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folder of an encoder, and a model exported with its zeros and without."""
    folder = tmp_path_factory.mktemp("models")
    run = save_untrained(folder / "run")
    cli.main(["export", str(run), "--out", str(folder / "bitmask"), "--storage", "bitmask"])
    return {"dense": run / "model", "bitmask": folder / "bitmask"}


@pytest.mark.parametrize("damage", ENCODERS)
def test_encoders(damage: str, exported: dict[str, Path], tmp_path: Path, capsys: Output) -> None:
    spoil, expected = ENCODERS[damage]
    folder = shutil.copytree(exported["dense"], tmp_path / "encoder")
    (folder / "heads.json").unlink()
    spoil(folder)
    given = (*WITHOUT_ENCODER, f"encoder.path={folder}")
    check_train(capsys, tmp_path / "run", expected, *given)


@pytest.mark.parametrize("damage", EXPORTS)
def test_exported_folders(
    damage: str, exported: dict[str, Path], tmp_path: Path, capsys: Output
) -> None:
    storage, spoil, expected = EXPORTS[damage]
    folder = shutil.copytree(exported[storage], tmp_path / "model")
    spoil(folder)
    check(multiprune_command(capsys, "export", folder, "--out", tmp_path / "out"), expected)
    assert [place.name for place in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(
    line: str,
    exported: dict[str, Path],
    tmp_path: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").touch()
    (tmp_path / "TEXTS").write_text("a\tb\tc\n")
    (tmp_path / "RUN").symlink_to(exported["dense"])
    check(multiprune_command(capsys, *line.split()), COMMANDS[line])
    assert sorted(place.name for place in tmp_path.iterdir()) == ["EMPTY", "FILE", "RUN", "TEXTS"]
    assert not any((tmp_path / "EMPTY").iterdir())


@pytest.mark.parametrize("content", SWEEPS)
def test_sweep_files(content: str, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    check_train(capsys, tmp_path / "run", SWEEPS[content], "-cd", str(tmp_path), "-cn", "mine")


#: As commands of their own: the sentence and the exit status are those of this process.
PROCESSES = (
    ("train.py", "budget.fraction=nan", "`fraction`"),
    ("train.py", "budget=nowhere", "`budget` must be one of"),
    ("train.py", "task.agreement.source=5", "`source`"),
    ("multiprune", "export nowhere --out NEW", "nowhere"),
    ("multiprune", "benchmark nowhere --batch 0", "argument --batch"),
    ("multiprune", "allocate nowhere --budget nan", "nan"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("program", "line", "expected"), PROCESSES)
def test_processes(program: str, line: str, expected: str, tmp_path: Path) -> None:
    script = [str(ROOT / "train.py")] if program == "train.py" else ["-m", program]
    done = subprocess.run(
        [sys.executable, *script, *line.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    check(Ended(done.returncode, done.stderr), expected)
    assert done.stdout == ""
    assert [place for place in tmp_path.rglob("*") if place.is_file()] == []
