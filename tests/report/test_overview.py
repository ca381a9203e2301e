"""Which models a report compares, and at which budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from run_folders import results, write, write_answers

from multiprune.report.findings.difference import MEAN
from multiprune.report.findings.overview import Overview, overview
from multiprune.report.records.frame import read_runs
from multiprune.report.sections.order import sections

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TESTED = {"easy": 0.5, "hard": 0.5}


class Runs:
    """A folder of runs that grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, validation: Mapping[str, float], **described: object) -> None:
        write(self.folder / name, results(validation, **described))  # type: ignore[arg-type]

    def overview(self) -> Overview:
        return overview(read_runs(self.folder))


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_size_of_a_model_is_that_of_its_largest_seed(runs: Runs) -> None:
    runs.add("a", {"easy": 0.9}, kept=99, asked=100, seed=0)
    runs.add("b", {"easy": 0.8}, kept=95, asked=100, seed=1)
    (model,) = runs.overview().models
    assert model.contender.parameters == 99
    assert [run.record.seed for run in model.runs] == [0, 1]


def test_single_tasks_alone_are_shared_out_at_even_shares_of_their_sizes(runs: Runs) -> None:
    for task in ("easy", "hard"):
        for kept in (10, 30):
            runs.add(f"{task}{kept}", {task: kept / 100}, kept=kept)
    found = runs.overview()
    assert found.tasks == ("easy", "hard")
    assert [one.budget for one in found.comparisons] == [20, 60]
    for one, used in zip(found.comparisons, (20, 60), strict=True):
        assert one.ensemble is not None
        assert one.ensemble.contenders["best"].parameters == used
        assert one.differences == {"validation": {}, "test": {}}


def test_suite_is_what_most_multitask_runs_learn_and_others_are_named(runs: Runs) -> None:
    for seed in (0, 1):
        runs.add(f"both{seed}", {"easy": 0.9, "hard": 0.8}, kept=10, seed=seed)
    runs.add("four", {"easy": 0.9, "hard": 0.8, "third": 0.1, "fourth": 0.1}, kept=10)
    found = runs.overview()
    assert found.tasks == ("easy", "hard")
    assert [model.tasks for model in found.multitask("Magnitude")] == [("easy", "hard")]
    text = " ".join(sections(found, None)[0].text)
    assert "Multitask runs of other tasks" in text
    assert "easy, fourth, hard, third" in text


def test_task_that_was_not_trained_alone_is_named(runs: Runs) -> None:
    runs.add("both", {"easy": 0.9, "hard": 0.8}, kept=20)
    runs.add("easy", {"easy": 0.9}, kept=10)
    (one,) = runs.overview().comparisons
    assert one.reason == "There is no single-task run of hard."


def test_runs_alone_of_other_tasks_are_no_obstacle(runs: Runs) -> None:
    runs.add("both", {"easy": 0.9, "hard": 0.8}, kept=20)
    for task in ("easy", "hard", "third"):
        runs.add(task, {task: 0.5}, kept=10)
    (one,) = runs.overview().comparisons
    assert one.differences["validation"][MEAN].mean == pytest.approx(0.35)


def test_methods_are_compared_each_with_itself(runs: Runs) -> None:
    for pruner, score in (("Magnitude", 0.6), ("Movement", 0.9)):
        runs.add(f"{pruner}-both", dict.fromkeys(TESTED, score), kept=20, pruner=pruner)
        for task in TESTED:
            runs.add(f"{pruner}-{task}", {task: 0.5}, kept=10, pruner=pruner)
    found = {
        one.method: one.differences["validation"][MEAN].mean for one in runs.overview().comparisons
    }
    assert found == {"Magnitude": pytest.approx(0.1), "Movement": pytest.approx(0.4)}


def test_examples_are_resampled_where_runs_have_answers(runs: Runs) -> None:
    for name, scores, kept in (
        ("both", {"easy": 0.75, "hard": 0.75}, 20),
        ("easy", {"easy": 0.25}, 10),
        ("hard", {"hard": 0.25}, 10),
    ):
        runs.add(name, scores, kept=kept, test=scores)
        right = {task: [x < 100 * score for x in range(100)] for task, score in scores.items()}
        write_answers(runs.folder / name, right)
    found = runs.overview()
    difference = found.comparisons[0].differences["test"][MEAN]
    assert (difference.mean, difference.seeds, difference.examples) == (0.5, (0,), True)
    # Two tasks with 100 examples each, on which a side alone is right in half of all cases.
    assert (difference.low, difference.high) == pytest.approx((0.43, 0.57), abs=0.011)
    versus = next(one for one in sections(found, None) if one.name == "versus")
    assert "interval over evaluation examples (1,000 resamples" in " ".join(versus.text)


def test_validation_is_shown_unless_every_run_was_tested(runs: Runs) -> None:
    runs.add("tested", TESTED, kept=10, test=TESTED)
    assert runs.overview().split == "test"
    runs.add("half", TESTED, kept=20, test={"easy": 0.5})
    assert runs.overview().split == "validation"


def test_repeated_run_is_left_out_but_listed(runs: Runs) -> None:
    runs.add("a", {"easy": 0.1}, kept=10)
    runs.add("b", {"easy": 0.2}, kept=10)
    found = runs.overview()
    assert [(one.path.name, one.reason) for one in found.left_out] == [
        ("a", f"repeated by {runs.folder / 'b'}")
    ]
    (model,) = found.models
    assert [run.path.name for run in model.runs] == ["b"]
    table = next(one for one in sections(found, None)[-1].tables if one.name == "runs")
    assert len(table.rows) == 2
