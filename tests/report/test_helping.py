"""Which tasks help which, on runs whose right answer is known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from page_reader import read_page
from run_folders import results, write, write_answers

from multiprune.cli import main

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SIZE = 100_000
ALL = {"a": 0.80, "b": 0.70, "c": 0.60}
WITHOUT = {"a": {"b": 0.65, "c": 0.62}, "b": {"a": 0.80, "c": 0.50}}
#: What seed 1 has more: with all together, and without one.
OF_SEED = (0.04, 0.02)


class Runs:
    """A folder of runs that grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self, scores: Mapping[str, float], kept: int = SIZE, seed: int = 0, mixing: str = "some"
    ) -> Path:
        content = results(scores, kept=kept, seed=seed, test=scores)
        content["config"]["data"]["mixing"] = {"_target_": mixing}
        return write(self.folder / "-".join(map(str, [*scores, kept, seed, mixing])), content)

    def effects(self, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
        """Return the rows of the table, none if there is no such section."""
        main(["report", str(self.folder), "--format", "json"])
        sections = json.loads(capsys.readouterr().out)["sections"]
        rows: list[dict[str, Any]] = sections.get("helping", {"tables": {"helping": []}})["tables"][
            "helping"
        ]
        return rows


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    runs = Runs(tmp_path / "runs")
    for seed in (0, 1):
        runs.add({task: score + OF_SEED[0] * seed for task, score in ALL.items()}, seed=seed)
        for scores in WITHOUT.values():
            rest = {task: score + OF_SEED[1] * seed for task, score in scores.items()}
            runs.add(rest, seed=seed)
    return runs


def test_a_task_helps_by_what_others_lose_without_it(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    effects = runs.effects(capsys)
    assert [effect["less"] for effect in effects] == ["without a", "without b"]
    for effect, (without, rest) in zip(effects, WITHOUT.items(), strict=True):
        assert (effect["together"], effect["kept"]) == ("a, b, c", SIZE)
        assert effect[without] is None
        for task, score in rest.items():
            first = ALL[task] - score
            found = effect[task]
            assert found["seeds"] == [0, 1]
            assert found["mean"] == pytest.approx(first + 0.01)
            assert (found["low"], found["high"]) == pytest.approx((first, first + 0.02))
        mean = sum(ALL[task] - rest[task] for task in rest) / 2
        assert effect["mean"]["mean"] == pytest.approx(mean + 0.01)


def test_runs_alone_of_equal_size_are_a_row(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.add({"a": 0.5})
    runs.add({"b": 0.5}, kept=SIZE - 900)
    runs.add({"c": 0.5}, kept=SIZE - 1100)
    alone = runs.effects(capsys)[-1]
    assert (alone["less"], alone["c"]) == ("alone", None)
    assert alone["a"]["mean"] == pytest.approx(0.3)
    assert alone["b"]["mean"] == pytest.approx(0.2)
    assert alone["a"]["seeds"] == [0]


def test_examples_are_resampled_where_runs_have_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs(tmp_path)
    for scores in (dict.fromkeys("abc", 0.75), dict.fromkeys("bc", 0.25)):
        run = runs.add(scores)
        right = {task: [x < 100 * score for x in range(100)] for task, score in scores.items()}
        write_answers(run, right)
    (effect,) = runs.effects(capsys)
    found = effect["b"]
    assert found["examples"]
    assert (found["low"], found["high"]) == pytest.approx((0.4, 0.6), abs=0.02)


@pytest.mark.parametrize(
    "other", [{"kept": 2 * SIZE}, {"mixing": "another"}], ids=["size", "mixing"]
)
def test_models_of_another_size_or_mixing_are_not_compared(
    other: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs(tmp_path)
    runs.add(ALL)
    runs.add(WITHOUT["a"], **other)
    runs.add({"a": 0.1})
    assert runs.effects(capsys) == []


def test_two_tasks_have_no_auxiliary_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs(tmp_path)
    for scores in ({"a": 0.5, "b": 0.5}, {"a": 0.5}, {"b": 0.5}):
        runs.add(scores)
    assert runs.effects(capsys) == []


def test_page_shows_table_and_heat_map(runs: Runs, tmp_path: Path) -> None:
    runs.add(dict.fromkeys("axyz", 0.5))
    main(["report", str(runs.folder), "--out", str(tmp_path / "report")])
    page = read_page(tmp_path / "report" / "index.html")
    heading, first, second = page.tables["helping"]
    assert dict(zip(heading, first, strict=True)) == {
        "method": "Magnitude",
        "kept": "100,000",
        "together": "a, b, c",
        "less": "without a",
        "seeds": "2",
        "a": "",
        "b": "+0.060 [+0.050 to +0.070]",
        "c": "-0.010 [-0.020 to +0.000]",
        "mean": "+0.025 [+0.015 to +0.035]",
    }
    assert second[3] == "without b"
    drawing = next(one for one in page.images if "Heat map of differences" in one)
    assert "b +0.060 over without a; c -0.010 over without a; a +0.010 over without b" in drawing
    words = " ".join(page.words)
    assert "No run is without, at a, b, c at 100k: c." in words
    assert "b helps the others most (+0.060 [+0.050 to +0.070]), a least" in words
    assert "Of 4 differences on test data about 0.2 would have an interval" in words
    # Runs of two tasks are shown, those of other tasks are not.
    assert "Multitask runs of other tasks: a, x, y, z." in words
