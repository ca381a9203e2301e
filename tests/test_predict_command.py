"""``multiprune predict``: lines in, JSON lines out, from whatever can be loaded."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from application import SMALL, run_in, save_untrained
from tiny_text_to_text import SENTENCES, TASKS, tiny_t5

import multiprune
from multiprune.cli import main
from multiprune.export.checkpoint import save_model
from multiprune.export.loading import load_sizes
from multiprune.export.pack import pack
from multiprune.models.factory import multitask_model, tasks_for

if TYPE_CHECKING:
    from pathlib import Path

    Output = pytest.CaptureFixture[str]

TEXTS = ["the fox runs", "", "two dogs sleep"]
LINES = "".join(f"{text}\n" for text in TEXTS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_untrained(tmp_path_factory.mktemp("runs") / "run")


def predictions(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, folder: Path, *options: object, given: str
) -> list[Any]:
    """Return what is predicted for standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    capsys.readouterr()
    main(["predict", str(folder), *map(str, options)])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_lines_of_standard_input_or_of_a_file_are_predicted_for(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    model = multiprune.load(run)
    expected = [asdict(one) for one in model.predict("agreement", TEXTS)]
    found = predictions(monkeypatch, capsys, run, "--task", "agreement", given=LINES)
    assert [set(one) for one in found] == [{"label", "probabilities"}] * 3
    assert found == expected
    (tmp_path / "texts").write_text(LINES)
    options = ("--task", "agreement", "--input", tmp_path / "texts", "--device", "cpu")
    assert predictions(monkeypatch, capsys, run, *options, given="") == expected
    several = predictions(monkeypatch, capsys, run, given=LINES)
    assert [list(one) for one in several] == [["agreement", "quantity", "roles"]] * 3


def test_json_lines_may_hold_words(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    given = '{"tokens": ["the", "fox"], "sentence1": "a", "sentence2": "b"}\n'
    (found,) = predictions(monkeypatch, capsys, run, "--json", given=given)
    assert found["roles"]["words"] == ["the", "fox"]
    assert set(found["entailment"]["probabilities"]) == {"not_entailment", "entailment"}


def test_nothing_but_predictions_is_printed(run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "multiprune", "predict", str(run), "--task", "quantity"],
        input=LINES.encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert [{*json.loads(line)} for line in done.stdout.splitlines()] == [{"value"}] * 3


def test_size_is_that_of_a_density(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    run_in(tmp_path / "run", *SMALL, "pruner=dynamic_sparsification", "budget.fraction=0.4")
    model = load_sizes(tmp_path / "run")
    found = {}
    for density in (1.0, 0.6):
        model.set_density(density)
        (one,) = predictions(
            *(monkeypatch, capsys, tmp_path / "run", "--task", "quantity", "--density", density),
            given="two dogs sleep\n",
        )
        assert one == asdict(model.predict("quantity", "two dogs sleep")[0])
        found[density] = one["value"]
    assert found[1.0] != found[0.6]


def test_packed_and_text_to_text_models_predict(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    encoder = tiny_t5()
    tasks = tasks_for(encoder, TASKS)
    save_model(tmp_path / "t5", multitask_model(encoder, tasks).eval(), encoder.tokenizer, tasks)
    folders = {"classes": tmp_path / "t5", "agreement": tmp_path / "packed"}
    for name in ("agreement", "quantity"):
        part = multiprune.load(run).only(name)
        (tmp_path / name).mkdir()
        part.save(tmp_path / name)
    pack([tmp_path / "agreement", tmp_path / "quantity"], tmp_path / "packed")
    for task, folder in folders.items():
        given = "".join(f"{text}\n" for text in SENTENCES)
        found = predictions(monkeypatch, capsys, folder, "--task", task, given=given)
        expected = [asdict(one) for one in multiprune.load(folder).predict(task, SENTENCES)]
        assert found == expected
    both = predictions(monkeypatch, capsys, tmp_path / "packed", given="the fox\n")
    assert [{*one} for one in both] == [{"agreement", "quantity"}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "agreement"], "No texts to predict"),
        (["--input", "nowhere"], "nowhere"),
        (["--device", "abacus"], "`device` must be one of cpu"),
        (["--density", "0.5"], "dynamic_sparsification"),
    ],
)
def test_wrong_input_is_one_sentence(
    options: list[str],
    message: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    with pytest.raises(SystemExit, match=message):
        predictions(monkeypatch, capsys, run, *options, given="")
    assert capsys.readouterr().out == ""
