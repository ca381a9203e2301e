"""The W&B dashboard: what W&B would be sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from report_world import write_runs

from multiprune.cli import main
from multiprune.runs.frame import read_runs
from multiprune.tracking import dashboard as module

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def sections(tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    """Panels by section, as ``--wandb-json`` writes them."""
    write_runs(tmp_path / "runs")
    file = tmp_path / "dashboard.json"
    main(["report", str(tmp_path / "runs"), "--wandb", "me/tests", "--wandb-json", str(file)])
    content = json.loads(file.read_text())
    assert (content["entity"], content["project"]) == ("me", "tests")
    bank = content["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in bank}


def of_kind(panels: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [panel["config"] for panel in panels if panel["viewType"] == kind]


def test_frontier_is_score_against_kept_parameters(sections: dict[str, Any]) -> None:
    (scatter,) = of_kind(sections["Frontier"], "Scatter Plot")
    assert (scatter["xAxis"], scatter["yAxis"]) == ("summary:kept", "summary:score")
    lines = of_kind(sections["Frontier"], "Run History Line Plot")
    assert [line["metrics"] for line in lines] == [["val/score"], ["density"]]


def test_parallel_coordinates_go_from_pruner_to_score(sections: dict[str, Any]) -> None:
    (plot,) = of_kind(sections["What was varied"], "Parallel Coordinates Plot")
    assert [column["accessor"] for column in plot["columns"]] == [
        "config:choices.value.pruner",
        "config:budget.value.count",
        "config:optimizer.value.learning_rate",
        "summary:kept",
        "summary:score",
    ]


def test_every_task_has_its_panels(sections: dict[str, Any]) -> None:
    scatters = of_kind(sections["Tasks"], "Scatter Plot")
    scores = [one["yAxis"] for one in scatters]
    assert scores == ["summary:val/easy/accuracy", "summary:val/hard/accuracy"]
    lines = of_kind(sections["Tasks"], "Run History Line Plot")
    assert [one["metrics"] for one in lines] == [["val/easy/accuracy"], ["val/hard/accuracy"]]


def test_heat_maps_are_shown(sections: dict[str, Any]) -> None:
    (browser,) = of_kind(sections["Where parameters are kept"], "Media Browser")
    assert browser["mediaKeys"] == ["density_by_layer"]


@pytest.mark.parametrize("place", ["", "me", "me/", "/tests", "me/tests/more"])
def test_a_place_has_two_parts(place: str, tmp_path: Path) -> None:
    rows = read_runs(write_runs(tmp_path)).finished
    with pytest.raises(ValueError, match="must be ENTITY/PROJECT"):
        module.dashboard(rows, place)


def test_saving_needs_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wandb.login", lambda **_: False)
    write_runs(tmp_path)
    with pytest.raises(SystemExit, match="error: No W&B API key found"):
        main(["report", str(tmp_path), "--wandb", "me/tests"])


def test_a_file_needs_a_place(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="needs `--wandb ENTITY/PROJECT`"):
        main(["report", str(tmp_path), "--wandb-json", str(tmp_path / "file")])
