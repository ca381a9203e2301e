from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from run_folders import record_with

from multiprune.report.summary import print_summary
from multiprune.runs.budget_outcome import BudgetOutcome, LedgerRow

if TYPE_CHECKING:
    import pytest

    from multiprune.runs.record import RunRecord


def results_with(**changed: Any) -> RunRecord:
    content: dict[str, Any] = {
        "score": 0.8125,
        "validation": {"rte": {"accuracy": 0.625}, "stsb": {"pearson": 1.0, "spearman": 0.9}},
        "test": {"rte": {"accuracy": 0.25}},
        "budget": BudgetOutcome(scope="encoder_linear", dense=20000, asked=6001, kept=5000),
        "ledger": [
            LedgerRow(part="encoder_linear", dense=20000, kept=5000, in_scope=True),
            LedgerRow(part="heads", dense=1234, kept=1234, in_scope=False),
        ],
        "steps": 12,
        "wall_seconds": 61.4,
    }
    return record_with(**{**content, **changed})


def printed(capsys: pytest.CaptureFixture[str], folder: str = "runs/one", **changed: Any) -> str:
    print_summary(results_with(**changed), Path(folder))
    return capsys.readouterr().out


def cells(output: str, *, first: str) -> list[list[str]]:
    """Return the cells of the table rows that begin with ``first``."""
    rows = [line.replace("│", " ").split() for line in output.splitlines() if "│" in line]
    return [row for row in rows if row[0] == first]


def test_scores_are_shown_by_task_and_metric(capsys: pytest.CaptureFixture[str]) -> None:
    output = printed(capsys)
    assert cells(output, first="rte") == [["rte", "accuracy", "0.6250", "0.2500"]]
    # No test data with labels, no test score.
    assert cells(output, first="stsb") == [
        ["stsb", "pearson", "1.0000"],
        ["stsb", "spearman", "0.9000"],
    ]
    assert cells(output, first="score")[0][-1] == "0.8125"


def test_parts_are_shown_with_what_they_keep(capsys: pytest.CaptureFixture[str]) -> None:
    output = printed(capsys)
    assert cells(output, first="encoder_linear") == [["encoder_linear", "20,000", "5,000", "yes"]]
    assert cells(output, first="heads") == [["heads", "1,234", "1,234", "never"]]


def test_asked_and_kept_are_stated(capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(printed(capsys).split())
    assert (
        "Asked for 6,001 and kept 5,000 of 20,000 parameters (encoder_linear), a density of 0.2500."
    ) in words
    assert "12 steps in 61 s." in words


def test_the_folder_is_on_a_line_of_its_own_that_can_be_copied(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = "/runs/" + "a long name with spaces " * 8 + "end"
    assert printed(capsys, folder).splitlines()[-1] == folder


def test_brackets_in_the_folder_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    folder = "multirun/task=[agreement,roles]/0"
    assert printed(capsys, folder).splitlines()[-1] == folder
