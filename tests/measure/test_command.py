from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from shipped import cut, ship

from multiprune.cli import main
from multiprune.export.convert import ExportSettings, export_model
from multiprune.measure import contestant

if TYPE_CHECKING:
    from pathlib import Path


def test_run_and_what_was_exported_from_it_are_measured_beside_one_dense_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a process a model; test_memory.py measures.
    monkeypatch.setattr(contestant, "peak_memory", lambda *_: None)
    run, exported, file = tmp_path / "run", tmp_path / "exported", tmp_path / "benchmark.json"
    ship(run / "model", cut())
    export_model(run, exported, ExportSettings(storage="bitmask"))
    options = ["--batch", "1,2", "--length", "4", "--rounds", "2", "--backend", "eager"]
    main(["benchmark", str(run), str(exported), *options, "--json", str(file), "--device", "cpu"])

    assert "not measured" in capsys.readouterr().out
    found = json.loads(file.read_text())
    models = [f"dense of {run}", str(run), str(exported)]
    assert [one["model"] for one in found["models"]] == models
    dense, first, second = found["models"]
    assert first["multiply_adds"] == second["multiply_adds"] != dense["multiply_adds"]
    assert first["parameters"] == second["parameters"] < dense["parameters"]
    timed = [(one["backend"], one["batch"], one["model"]) for one in found["latencies"]]
    assert timed == [("eager", batch, model) for batch in (1, 2) for model in models]
    assert all(len(one["seconds"]) == 2 for one in found["latencies"])


@pytest.mark.parametrize(
    ("flag", "value", "sentence"),
    [
        ("--batch", "", "must be whole numbers from 1 on, such as 1,8, but is ''"),
        ("--length", "8,0", "must be whole numbers from 1 on, such as 1,8, but is '8,0'"),
        ("--length", "8,x", "must be whole numbers from 1 on, such as 1,8, but is '8,x'"),
    ],
)
def test_lists_that_make_no_sense_are_refused(
    flag: str, value: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["benchmark", str(tmp_path), flag, value])
    last = capsys.readouterr().err.splitlines()[-1]
    hint = "see `multiprune benchmark --help`."
    assert last == f"error: argument {flag}: {sentence}: {hint}"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "must be the folder of a finished run or of an exported model"),
        (["--backend", "tpu"], "A backend must be one of eager, compiled, onnx"),
        (["--device", "tpu"], "A device must be one of cpu"),
        (["--rounds", "0"], "`rounds` must be a whole number of at least 1, but is 0"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(
    options: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=sentence) as error:
        main(["benchmark", str(tmp_path), *options])
    assert "\n" not in str(error.value)
