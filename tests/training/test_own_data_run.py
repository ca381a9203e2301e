"""A run on somebody's CSV, by the task file that there is to copy."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from application import NARROW, QUICK, ROOT, refused, results_of, run_in

from multiprune.specialize.origin import read_origin

if TYPE_CHECKING:
    from pathlib import Path

LABELS = ["shipping", "billing", "other"]


def write(folder: Path) -> None:
    with (folder / "example.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "label", "text"])
        for row in range(60):
            label = LABELS[row % 3]
            writer.writerow([row, label, f'please help,\nmy "{label}" {row}'])


def test_a_csv_is_trained_on_by_the_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    overrides = [*QUICK, *NARROW, "task=example", "data.mirror=/nowhere"]
    run_in(tmp_path / "run", *overrides)
    results = results_of(tmp_path / "run")
    assert results["examples"] == {"example": 54}
    assert results["labels"] == {"example": sorted(LABELS)}
    assert set(results["validation"]["example"]) == {"accuracy", "macro_f1"}
    heads = json.loads((tmp_path / "run" / "model" / "heads.json").read_text())
    assert sorted(LABELS) in [one.get("labels") for one in _dictionaries(heads)]
    # What the run has read counts, whatever becomes of its data.
    (tmp_path / "example.csv").write_text("text,label\n" + "a,billing\nb,other\n" * 20)
    origin = read_origin(tmp_path / "run")
    assert origin.config["task"]["example"]["labels"] == sorted(LABELS)


@pytest.mark.slow
def test_the_copied_example_runs_from_a_folder_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "example.csv").rename(tmp_path / "tickets.csv")
    (tmp_path / "mine" / "task").mkdir(parents=True)
    copied = (ROOT / "conf" / "task" / "example.yaml").read_text().replace("example", "tickets")
    (tmp_path / "mine" / "task" / "tickets.yaml").write_text(copied)
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "-cd",
        "mine",
        "task=tickets",
        *QUICK,
        *NARROW,
    ]
    run = subprocess.run(
        [*command, "hydra.run.dir=run"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "3 labels read from tickets.csv (training part): billing, other, shipping" in run.stdout
    assert results_of(tmp_path / "run")["examples"] == {"tickets": 54}


def _dictionaries(value: object) -> list[dict[str, object]]:
    if not isinstance(value, dict):
        return []
    return [value, *(one for inner in value.values() for one in _dictionaries(inner))]


def test_wrong_files_are_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = [*QUICK, *NARROW, "task=example"]
    assert refused(tmp_path / "run", *overrides) == (
        f"error: The train file example.csv does not exist in {tmp_path}."
    )
    write(tmp_path)
    body = "task.example.text=[body]"
    assert refused(tmp_path / "run", *overrides, body) == (
        "error: example.csv must have a column 'body', but has id, label, text."
    )
    alone = refused(tmp_path / "run", *overrides, "task.example.source.validation=null")
    assert alone.endswith("none in validation: task.example.source.validation=0.1 sets some aside.")
