"""``multiprune allocate`` on folders of runs; what it computes is tested in ``tests/report``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from run_folders import results, write

from multiprune.cli import main

if TYPE_CHECKING:
    from pathlib import Path

SCORES = {
    "easy": {100_000: 0.90, 400_000: 0.92},
    "hard": {100_000: 0.50, 400_000: 0.80},
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for seed in (0, 1):
        for task, curve in SCORES.items():
            for kept, score in curve.items():
                test = {task: score - 0.25} if task == "easy" else {}
                content = results({task: score + 0.02 * seed}, kept=kept, seed=seed, test=test)
                write(folder / task / str(kept) / str(seed), content)
        both = results({"easy": 0.7, "hard": 0.75 + 0.02 * seed}, kept=500_000, seed=seed)
        write(folder / "both" / str(seed), both)
    (folder / "stopped" / ".hydra").mkdir(parents=True)
    return folder


def rows(output: str, first: str) -> list[list[str]]:
    """Return the cells of all rows of tables that begin with ``first``."""
    lines = [line.strip()[1:-1] for line in output.splitlines() if line.startswith(("│", "┃"))]
    cells = [[one.strip() for one in line.replace("┃", "│").split("│")] for line in lines]
    return [row for row in cells if row[0] == first]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["allocate", *map(str, arguments)])
    said = str(caught.value)
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert capsys.readouterr().out == ""
    return said


def test_tables_show_sizes_scores_and_sums(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["allocate", str(runs), "--budget", "0.5"])
    output = capsys.readouterr().out
    assert (
        "Magnitude: 2 tasks within 500,000 parameters (encoder_linear), 0.5000 of one dense model "
        "of 1,000,000." in output
    )
    choice, validation, test = rows(output, "easy")
    assert choice == ["easy", "100,000", "2", "0.910 ± 0.010", "0.650 ± 0.000"]
    assert validation == ["easy", *["0.910 ± 0.010"] * 3, "0.700 ± 0.000"]
    assert test == ["easy", *["0.650 ± 0.000"] * 3, ""]
    choice, validation, test = rows(output, "hard")
    assert choice == ["hard", "400,000", "2", "0.810 ± 0.010", ""]
    assert validation[1:] == ["0.810 ± 0.010", *["0.510 ± 0.010"] * 2, "0.760 ± 0.010"]
    assert test == ["hard", "", "", "", ""]
    assert rows(output, "sum, mean")[0][1:4] == ["500,000", "", "0.860 ± 0.010"]
    assert rows(output, "mean")[0][-1] == "0.730 ± 0.005"
    assert rows(output, "parameters")[0] == [
        "parameters", "500,000", "200,000", "200,000", "500,000"
    ]  # fmt: skip
    assert f"Skipped: {runs / 'stopped'}: unfinished: it has no results.json" in output


def test_json_holds_what_the_tables_show(runs: Path, tmp_path: Path) -> None:
    main(["allocate", str(runs), "--budget", "500000", "--json", str(tmp_path / "out.json")])
    content = json.loads((tmp_path / "out.json").read_text())
    (method,) = content["methods"]
    assert method["method"] == "Magnitude"
    assert (method["of"], method["budget"], method["shared"]) == ("encoder_linear", 500_000, 0)
    easy, hard, total = method["sizes"]
    sizes = {row["task"]: row["parameters"] for row in (easy, hard)}
    assert sizes == {"easy": 100_000, "hard": 400_000}
    assert total["validation"]["mean"] == pytest.approx(0.86)
    assert hard["test"] is None
    expected = [str(runs / "hard" / "400000" / seed) for seed in "01"]
    assert method["runs"]["best"]["hard"] == expected
    assert content["skipped"] == [
        {"path": str(runs / "stopped"), "reason": "unfinished: it has no results.json"}
    ]


def test_shared_embeddings_are_a_row_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in ("easy", "hard"):
        write(tmp_path / task, results({task: 0.5}, kept=10, frozen=True))
    main(["allocate", str(tmp_path), "--budget", "310000", "--of=total", "--embeddings", "shared"])
    output = capsys.readouterr().out
    (row,) = rows(output, "embeddings, once")
    assert row[1] == "300,000"
    # Twice 10 weights, 2,000 other parameters and a head of 130.
    assert rows(output, "sum, mean")[0][1] == "304,280"


def test_wrong_input_is_one_sentence(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "whole number of parameters or a fraction" in refusal(capsys, runs, "--budget", "half")
    assert "must be in (0, 1], but is 1.5" in refusal(capsys, runs, "--budget", "1.5")
    assert "at least 1, but is 0" in refusal(capsys, runs, "--budget", "0")
    assert "must be in (0, 1], but is nan" in refusal(capsys, runs, "--budget", "nan")
    said = refusal(capsys, runs, "--budget", "1_000")
    assert "A budget of 1,000 parameters must hold a trained size of each of 2 tasks" in said
    assert "nearest trained sizes are 100,000 and 400,000" in said
    assert "`of` one of" in refusal(capsys, runs, "--budget", "0.5", "--of", "weights")
    shared = ("--of", "total", "--embeddings", "shared")
    assert "only if they were frozen" in refusal(capsys, runs, "--budget", "0.5", *shared)
    nowhere = runs / "nowhere"
    assert f"{nowhere} is not a directory" in refusal(capsys, nowhere, "--budget", "0.5")


def test_runs_of_another_encoder_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = results({"easy": 0.5}, kept=10)
    content["config"]["encoder"]["path"] = "bert"
    other = write(tmp_path / "other", content)
    said = refusal(capsys, runs, other, "--budget", "0.5")
    assert (
        f"encoder.path, but it is 'bert' in {other} and 'minilm' in {runs / 'both' / '0'}" in said
    )
