"""``multiprune export`` on a run that was trained; what it writes is tested in ``tests/export``."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
import torch
from application import SMALL, run_in

import multiprune
from multiprune.cli import GROUPS, main, parser

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-c", "from multiprune.cli import main; main()"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    run_in(folder, *SMALL, "pruner=combined", "budget.fraction=0.3", "rank_every_n_steps=1")
    return folder


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return what is said to wrong input: one sentence."""
    with pytest.raises(SystemExit) as caught:
        main([*map(str, arguments)])
    said = str(caught.value)
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert capsys.readouterr().out == ""
    return said


def test_export_says_where_and_how_large_and_nothing_else(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    run = command("export", finished, "--out", out)
    assert run.returncode == 0, run.stderr
    size = sum(file.stat().st_size for file in out.iterdir())
    assert run.stdout == f"{out}: {size / 1e6:.2f} MB\n"
    assert run.stderr == ""


@pytest.mark.parametrize("storage", ["dense", "bitmask"])
def test_exported_model_answers_as_the_run_does(
    finished: Path, tmp_path: Path, storage: str
) -> None:
    main(["export", str(finished), "--out", str(tmp_path / "out"), "--storage", storage])
    ours, theirs = multiprune.load(finished), multiprune.load(tmp_path / "out")
    torch.testing.assert_close(
        theirs.logits("agreement", ["the fox runs"]), ours.logits("agreement", ["the fox runs"])
    )
    results = json.loads((finished / "results.json").read_text())
    kept = sum(
        int(one.count_nonzero())
        for name, one in theirs.encoder.named_parameters()
        if one.dim() == 2 and "embeddings" not in name
    )
    assert kept == results["budget"]["kept"]
    accuracy = results["validation"]["agreement"]["accuracy"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| agreement | accuracy | {accuracy:.4f} |" in card


def test_vocabulary_is_that_of_a_file(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("the fox runs\nthe dogs sleep\n")
    corpus = ["--vocabulary", str(tmp_path / "corpus.txt")]
    main(["export", str(finished), "--out", str(tmp_path / "out"), *corpus])
    ours, theirs = multiprune.load(finished), multiprune.load(tmp_path / "out")
    assert len(theirs.tokenizer) < len(ours.tokenizer)
    torch.testing.assert_close(
        theirs.logits("agreement", ["the dogs sleep"]),
        ours.logits("agreement", ["the dogs sleep"]),
    )


def test_runs_of_frozen_weights_are_packed_and_answer_as_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [one for one in SMALL if not one.startswith("task.")]
    small += ["pruner=frozen_movement", "optimizer.weight_decay=0.1"]
    tasks = ("agreement", "quantity")
    for task in tasks:
        rows = next(one for one in SMALL if one.startswith(f"task.{task}."))
        fraction = f"budget.fraction={0.2 if task == 'agreement' else 0.4}"
        # The embedded encoder starts with the same random weights whatever the task.
        run_in(tmp_path / task, *small, f"task={task}", rows, fraction)
    out = tmp_path / "out"
    capsys.readouterr()
    main(["pack", *(str(tmp_path / task) for task in tasks), "--out", str(out)])
    said = capsys.readouterr().out
    tables, line = said.rsplit("\n\n", 1)
    assert f"{tables}\n" in (out / "README.md").read_text()
    size = sum(file.stat().st_size for file in out.iterdir())
    assert line == f"{out}: {size / 1e6:.2f} MB\n"
    # 2,048 weights of linear layers: floor(0.2 * 2,048) and floor(0.4 * 2,048) of them are kept.
    assert f"| agreement | {409 / 2048:.4f} |" in said
    assert f"| quantity | {819 / 2048:.4f} |" in said
    packed = multiprune.load(out)
    for task in (*tasks, *tasks):
        alone = multiprune.load(tmp_path / task)
        texts = ["the dogs sleep", "one fox"]
        torch.testing.assert_close(packed.logits(task, texts), alone.logits(task, texts))


def test_wrong_runs_are_not_packed(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, "pack", finished, "--out", tmp_path / "out")
    assert "at least two runs" in said
    said = refusal(capsys, "pack", finished, tmp_path, "--out", tmp_path / "out")
    assert f"{tmp_path} must be the folder of a finished run" in said
    assert not any(tmp_path.iterdir())


def test_folder_that_is_no_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        said = refusal(capsys, "export", folder, "--out", tmp_path / "out")
        assert f"{folder} must be the folder of a finished run" in said
    assert not any(tmp_path.iterdir())


def test_run_that_is_not_finished_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("model"))
    assert "finished run" in refusal(capsys, "export", run, "--out", tmp_path / "out")
    assert [one.name for one in tmp_path.iterdir()] == ["run"]


def test_wrong_choices_are_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ("export", finished, "--out", tmp_path / "out")
    assert "`dtype` must be" in refusal(capsys, *export, "--dtype", "int8")
    assert "`storage` must be" in refusal(capsys, *export, "--storage", "zip")
    assert "`format` must be" in refusal(capsys, *export, "--format", "pickle")
    assert "nowhere.txt" in refusal(capsys, *export, "--vocabulary", tmp_path / "nowhere.txt")
    assert "already exists" in refusal(capsys, "export", finished, "--out", finished)
    assert not any(tmp_path.iterdir())


def test_damage_is_one_sentence_and_a_failure(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    failed = command("export", run, "--out", tmp_path / "out")
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert failed.stderr.startswith(f"error: {weights} is damaged")
    assert len(failed.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("export", "bitmask"),
        ("pack", "frozen_movement"),
        ("predict", "--batch-size"),
        ("evaluate", "--metric"),
        ("specialize", "weight_by_confidence: false # weight"),
        ("allocate", "encoder_linear"),
        ("report", "--masks"),
    ],
)
def test_help_imports_nothing_heavy(command: str, option: str) -> None:
    script = (
        "import sys\nfrom multiprune.cli import main\n"
        f"try:\n    main(['{command}', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit(str({'torch', 'transformers', 'matplotlib'} & set(sys.modules) or 0))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stderr == "0\n"
    assert option in run.stdout


def test_help_lists_each_command_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    listed = re.findall(r"^  ([a-z]+)  +[A-Z].*\.$", capsys.readouterr().out, re.MULTILINE)
    with pytest.raises(SystemExit, match="choose from") as error:
        main(["unknown"])
    known = re.findall(r"'([a-z]+)'", str(error.value).partition("choose from")[2])
    assert sorted(listed) == sorted(known)


@pytest.mark.parametrize("command", [name for names in GROUPS.values() for name in names])
def test_help_of_a_command_ends_with_a_command_line_that_it_accepts(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    program, *arguments = shlex.split(capsys.readouterr().out.rpartition("example:\n")[2])
    assert (program, arguments[0]) == ("multiprune", command)
    parser().parse_args(arguments)


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert multiprune.__version__ == version("multiprune")
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"multiprune {version('multiprune')}\n"


def test_package_runs_as_the_command_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["multiprune", "status", "nowhere"])
    with pytest.raises(SystemExit, match="nowhere"):
        runpy.run_module("multiprune", run_name="__main__")
    assert capsys.readouterr().out == ""
