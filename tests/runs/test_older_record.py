"""Records of earlier versions are read, and mean today what they meant then."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from application import composed

from multiprune.config import plain
from multiprune.runs.record import (
    SCHEMA,
    Method,
    RunRecord,
    Stage,
    check_unfinished,
    is_finished,
)
from multiprune.runs.settings import method_settings, settings_of

#: What ``python train.py`` with these has left before records had a number.
OLD = Path(__file__).parent / "results_of_schema_1.json"
OVERRIDES = ("pruner=movement", "trainer.max_steps=6", "budget.fraction=0.3")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copy(OLD, tmp_path / "results.json")
    return tmp_path


def test_older_record_says_what_the_same_command_records_today(run: Path) -> None:
    old, today = RunRecord.read(run), settings_of(plain(composed(*OVERRIDES)))
    folder = "logger.csv.folder"
    assert old.settings == today | {folder: old.settings[folder]}
    assert old.method == Method.from_settings(today)
    assert old.method.name == "Movement"
    assert {name: task.kind for name, task in old.tasks.items()} == {
        "agreement": "classes",
        "entailment": "classes",
        "quantity": "number",
        "roles": "tags",
    }
    assert [*old.tasks["quantity"].metrics] == ["pearson", "spearman"]
    content = json.loads(OLD.read_text())
    assert old.budget.scope == content["budget"]["of"]
    assert (old.score, old.validation) == (content["score"], content["validation"])


def test_older_run_is_finished_for_the_same_command_alone(run: Path) -> None:
    assert is_finished(run, plain(composed(*OVERRIDES)))
    assert not is_finished(run, plain(composed(*OVERRIDES, "seed=1")))
    with pytest.raises(ValueError, match=r"pruner.score_learning_rate was 0.01, and is 1"):
        check_unfinished(run, plain(composed(*OVERRIDES, "pruner.score_learning_rate=1")))


def moved(node: Any) -> Any:
    """Return a configuration whose classes all stand in another module of this package."""
    if isinstance(node, dict):
        return {
            key: f"multiprune.moved.{value.rpartition('.')[2]}"
            if key == "_target_" and str(value).startswith("multiprune.")
            else moved(value)
            for key, value in node.items()
        }
    return [moved(value) for value in node] if isinstance(node, list) else node


def test_a_class_that_has_moved_changes_nothing(run: Path) -> None:
    before = RunRecord.read(run)
    content = json.loads(OLD.read_text())
    content["config"] = moved(content["config"])
    (run / "results.json").write_text(json.dumps(content))
    after = RunRecord.read(run)
    assert (after.method, after.tasks, after.settings) == (
        before.method,
        before.tasks,
        before.settings,
    )
    assert is_finished(run, plain(composed(*OVERRIDES)))


def test_record_of_a_later_version_is_refused_with_its_number(run: Path) -> None:
    content = json.loads(OLD.read_text()) | {"schema": SCHEMA + 1}
    (run / "results.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=f"has schema {SCHEMA + 1}, but this version reads up to {SCHEMA}"
    ):
        RunRecord.read(run)


def test_record_of_schema_3_did_what_settings_that_came_since_have_by_default(run: Path) -> None:
    today = RunRecord.read(run)
    since = {"optimizer.rewinds": [], "trainer.precision.cpu": False}
    assert since.items() <= today.settings.items()
    earlier = {key: value for key, value in today.settings.items() if key not in since}
    method = {"name": "Movement", "settings": method_settings(earlier)}
    assert method["settings"] != today.method.settings
    content = {**asdict(today), "schema": 3, "settings": earlier, "method": method}
    (run / "results.json").write_text(json.dumps(content))
    again = RunRecord.read(run)
    assert (again.settings, again.method) == (today.settings, today.method)
    assert {one.has_labels for one in again.tasks.values()} == {True}


def test_tasks_of_schema_2_were_learned_from_labels_unless_tokens_were_hidden(run: Path) -> None:
    today = RunRecord.read(run)
    stage = {**asdict(today), "schema": 2}
    name = next(iter(today.tasks))
    for task in stage["tasks"].values():
        del task["has_labels"]
    earlier = {key: stage[key] for key in (one.name for one in fields(Stage))}
    hidden = {name: {**stage["tasks"][name], "kind": "masked"}}
    lineage = [{**earlier, "tasks": hidden}, {**earlier, "tasks": {**stage["tasks"], **hidden}}]
    (run / "results.json").write_text(json.dumps({**stage, "lineage": lineage}))
    assert [one.pretrains for one in RunRecord.read(run).chain] == [True, False, False]
