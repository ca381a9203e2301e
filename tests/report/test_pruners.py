"""Which pruner at which size, on runs whose right answer is known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from run_folders import LINEAR, results, write

from multiprune.report.questions import pruners
from multiprune.report.study import Study
from multiprune.runs.frame import read_runs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from multiprune.report.page.section import Section

#: Mean scores by seed; tasks are 0.1 above and below.
DENSE = (0.80, 0.90)
SCORES = {("Fisher", 100_000): (0.76, 0.81), ("Magnitude", 100_000): (0.40, 0.72)}


class Runs:
    """A folder of runs that grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, pruner: str, kept: int, scores: Sequence[float], **described: Any) -> None:
        for seed, score in enumerate(scores):
            tasks = {"easy": score + 0.1, "hard": score - 0.1}
            content = results(tasks, kept=kept, seed=seed, pruner=pruner, **described)
            write(self.folder / f"{pruner}-{kept}-{seed}", content)

    def section(self) -> Section:
        section = pruners.answer(Study.from_runs(read_runs(self.folder)))
        assert section is not None
        return section

    def rows(self, name: str) -> list[dict[str, Any]]:
        (table,) = (one for one in self.section().tables if one.name == name)
        return [dict(row) for _, row in table.frame.iterrows()]


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    made = Runs(tmp_path / "runs")
    made.add("NoPruning", LINEAR, DENSE)
    for (pruner, kept), scores in SCORES.items():
        made.add(pruner, kept, scores)
    return made


def test_share_of_the_dense_score_is_paired_by_seed(runs: Runs) -> None:
    shares = {row["method"]: row.get("of dense") for row in runs.rows("pruners")}
    assert shares["NoPruning"] is None
    low, high = 0.81 / 0.90, 0.76 / 0.80
    fisher = shares["Fisher"]
    assert fisher is not None
    assert (fisher.low, fisher.mean, fisher.high) == pytest.approx((low, (low + high) / 2, high))


def test_answer_says_what_the_best_keeps_at_the_smallest_size(runs: Runs) -> None:
    assert runs.section().answer == (
        "Fisher keeps 92.5 % (90.0 to 95.0) of the dense score at 10 % of the encoder_linear "
        "parameters, 2 seeds; Magnitude 65.0 % (50.0 to 80.0)."
    )
    # A size that one method alone has compares nothing.
    runs.add("Fisher", 50_000, (0.5, 0.5))
    assert " at 10 % of " in runs.section().answer


def test_without_a_dense_model_the_answer_has_scores(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.add("Fisher", 100_000, (0.76, 0.81))
    assert runs.section().answer.startswith("Fisher scores 0.785 (0.760 to 0.810) at 10 %")


def test_best_of_a_size_is_chosen_on_validation_and_compared_by_seed(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.add("Fisher", 100_000, (0.7, 0.7), test={"easy": 0.1, "hard": 0.1})
    runs.add("Magnitude", 100_000, (0.6, 0.6), test={"easy": 0.5, "hard": 0.3})
    (row,) = runs.rows("pruners-paired")
    assert (row["best"], row["other"], row["seeds"]) == ("Fisher", "Magnitude", 2)
    assert row["best - other"].mean == pytest.approx(0.1 - 0.4)
    assert row["best - other"].is_range
    assert row["p"] is None


def test_no_other_model_is_better_in_both_on_the_front(runs: Runs) -> None:
    runs.add("Fisher", 300_000, (0.70, 0.70))
    runs.add("Movement", 200_000, (0.86, 0.86))
    front = {
        (row["method"], row["parameters"])
        for row in runs.rows("pareto")
        if row["on the Pareto front of"] == "parameters"
    }
    # The dense model has no more than the 0.85 of its mean.
    assert front == {("Fisher", 100_000), ("Movement", 200_000)}


def test_bytes_are_those_of_the_model_and_milliseconds_those_measured(runs: Runs) -> None:
    run = runs.folder / "Fisher-100000-0"
    (run / "model").mkdir()
    (run / "model" / "model.safetensors").write_bytes(b"x" * 123)
    latencies = [
        {"model": "dense of runs/Fisher-100000-0", "median_ms": 9.0},
        {"model": "runs/other-Fisher-100000-0", "median_ms": 8.0},
        {"model": "runs/Fisher-100000-0", "failure": "too long"},
        {"model": "runs/Fisher-100000-0", "median_ms": 2.5},
    ]
    (run / "benchmark.json").write_text(json.dumps({"latencies": latencies}))
    (row,) = (row for row in runs.rows("pareto") if row["method"] == "Fisher")
    assert (row["bytes"], row["milliseconds"]) == (123, 2.5)
    (run / "benchmark.json").write_text("{")
    assert "milliseconds" not in runs.rows("pareto")[0]


def test_tasks_alone_stand_beside_the_suite(runs: Runs) -> None:
    write(runs.folder / "alone", results({"hard": 0.5}, kept=100_000, pruner="Fisher"))
    section = runs.section()
    (row,) = (row for row in runs.rows("pruners") if row["tasks"] == "hard")
    assert row["hard"].mean == 0.5
    (figure,) = (one for one in section.figures if one.name == "pruners-1-hard")
    assert "Fisher, alone from 0.500 at 100k" in figure.alt
    assert "Fisher, together from 0.685 at 100k" in figure.alt
