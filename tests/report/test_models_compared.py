"""Which models a report compares, and at which budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from run_folders import results, write, write_answers

from multiprune.report.compare import MEAN
from multiprune.report.questions import compared, multitask
from multiprune.report.questions.runs import runs_table
from multiprune.report.study import Study
from multiprune.runs.frame import read_runs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from multiprune.report.questions.multitask import Budgeted

TESTED = {"easy": 0.5, "hard": 0.5}


class Runs:
    """A folder of runs that grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, validation: Mapping[str, float], **described: object) -> None:
        write(self.folder / name, results(validation, **described))  # type: ignore[arg-type]

    def study(self) -> Study:
        return Study.from_runs(read_runs(self.folder))

    def budgeted(self) -> list[Budgeted]:
        return multitask.budgeted(self.study())


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_size_of_a_model_is_that_of_its_largest_seed(runs: Runs) -> None:
    runs.add("a", {"easy": 0.9}, kept=99, asked=100, seed=0)
    runs.add("b", {"easy": 0.8}, kept=95, asked=100, seed=1)
    (model,) = runs.study().models
    assert model.parameters == 99
    assert [run.seed for run in model.all_runs] == [0, 1]


def test_single_tasks_alone_are_shared_out_at_even_shares_of_their_sizes(runs: Runs) -> None:
    for task in ("easy", "hard"):
        for kept in (10, 30):
            runs.add(f"{task}{kept}", {task: kept / 100}, kept=kept)
    found = runs.budgeted()
    assert runs.study().tasks == ("easy", "hard")
    assert [one.budget for one in found] == [20, 60]
    for one, used in zip(found, (20, 60), strict=True):
        assert one.candidates["best"].parameters == used
        assert one.differences == {}


def test_suite_is_what_most_multitask_runs_learn_and_others_are_named(runs: Runs) -> None:
    for seed in (0, 1):
        runs.add(f"both{seed}", {"easy": 0.9, "hard": 0.8}, kept=10, seed=seed)
    runs.add("four", {"easy": 0.9, "hard": 0.8, "third": 0.1, "fourth": 0.1}, kept=10)
    study = runs.study()
    assert study.tasks == ("easy", "hard")
    assert [model.tasks for model in study.multitask("Magnitude")] == [("easy", "hard")]
    text = " ".join(compared.answer(study).text)
    assert "Multitask runs of other tasks" in text
    assert "easy, fourth, hard, third" in text


def test_task_that_was_not_trained_alone_is_named(runs: Runs) -> None:
    runs.add("both", {"easy": 0.9, "hard": 0.8}, kept=20)
    runs.add("easy", {"easy": 0.9}, kept=10)
    (one,) = runs.budgeted()
    assert one.reason == "There is no single-task run of hard."


def test_runs_alone_of_other_tasks_are_no_obstacle(runs: Runs) -> None:
    runs.add("both", {"easy": 0.9, "hard": 0.8}, kept=20)
    for task in ("easy", "hard", "third"):
        runs.add(task, {task: 0.5}, kept=10)
    (one,) = runs.budgeted()
    assert one.differences[MEAN].mean == pytest.approx(0.35)


def test_methods_are_compared_each_with_itself(runs: Runs) -> None:
    for pruner, score in (("Magnitude", 0.6), ("Movement", 0.9)):
        runs.add(f"{pruner}-both", dict.fromkeys(TESTED, score), kept=20, pruner=pruner)
        for task in TESTED:
            runs.add(f"{pruner}-{task}", {task: 0.5}, kept=10, pruner=pruner)
    found = {one.method: one.differences[MEAN].mean for one in runs.budgeted()}
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
    difference = runs.budgeted()[0].differences[MEAN]
    assert (difference.mean, difference.seeds, difference.examples) == (0.5, (0,), True)
    # Two tasks with 100 examples each, on which a side alone is right in half of all cases.
    assert (difference.low, difference.high) == pytest.approx((0.43, 0.57), abs=0.011)
    section = multitask.answer(runs.study())
    assert section is not None
    assert "95 % of 1,000 resamples of the evaluation examples" in " ".join(section.text)


def test_validation_is_shown_unless_every_run_was_tested(runs: Runs) -> None:
    runs.add("tested", TESTED, kept=10, test=TESTED)
    assert runs.study().split == "test"
    runs.add("half", TESTED, kept=20, test={"easy": 0.5})
    assert runs.study().split == "validation"


def test_repeated_run_is_left_out_but_listed(runs: Runs) -> None:
    runs.add("a", {"easy": 0.1}, kept=10)
    runs.add("b", {"easy": 0.2}, kept=10)
    study = runs.study()
    assert [(one.path.name, one.reason) for one in study.skipped] == [
        ("a", f"repeated by {runs.folder / 'b'}")
    ]
    (model,) = study.models
    assert [run.path.name for run in model.all_runs] == ["b"]
    assert len(runs_table(study).frame) == 2
