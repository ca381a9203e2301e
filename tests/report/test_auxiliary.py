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

    def report(self, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
        main(["report", str(self.folder), "--format", "json"])
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document


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
    effects = runs.report(capsys)["effects"]
    assert [one["left_out"] for one in effects] == ["a", "b"]
    for one in effects:
        assert (one["tasks"], one["parameters"]) == (["a", "b", "c"], SIZE)
        found = one["differences"]["test"]
        rest = WITHOUT[one["left_out"]]
        assert set(found) == {*rest, "mean"}
        for task, score in rest.items():
            first = ALL[task] - score
            assert found[task]["seeds"] == [0, 1]
            assert found[task]["mean"] == pytest.approx(first + 0.01)
            ends = found[task]["low"], found[task]["high"]
            assert ends == pytest.approx((first, first + 0.02))
        mean = sum(ALL[task] - rest[task] for task in rest) / 2
        assert found["mean"]["mean"] == pytest.approx(mean + 0.01)


def test_runs_alone_of_equal_size_are_a_row(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.add({"a": 0.5})
    runs.add({"b": 0.5}, kept=SIZE - 900)
    runs.add({"c": 0.5}, kept=SIZE - 1100)
    alone = runs.report(capsys)["effects"][-1]
    assert alone["left_out"] is None
    found = alone["differences"]["test"]
    assert set(found) == {"a", "b", "mean"}
    assert found["a"]["mean"] == pytest.approx(0.3)
    assert found["b"]["mean"] == pytest.approx(0.2)
    assert found["a"]["seeds"] == [0]


def test_examples_are_resampled_where_runs_have_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs(tmp_path)
    for scores in (dict.fromkeys("abc", 0.75), dict.fromkeys("bc", 0.25)):
        run = runs.add(scores)
        right = {task: [x < 100 * score for x in range(100)] for task, score in scores.items()}
        write_answers(run, right)
    (effect,) = runs.report(capsys)["effects"]
    found = effect["differences"]["test"]["b"]
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
    assert runs.report(capsys)["effects"] == []


def test_two_tasks_have_no_auxiliary_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs(tmp_path)
    for scores in ({"a": 0.5, "b": 0.5}, {"a": 0.5}, {"b": 0.5}):
        runs.add(scores)
    assert runs.report(capsys)["effects"] == []
    main(["report", str(tmp_path), "--format", "markdown"])
    assert "sweep/auxiliary_tasks.yaml trains such" in capsys.readouterr().out


def test_page_shows_table_and_heat_map(runs: Runs, tmp_path: Path) -> None:
    runs.add(dict.fromkeys("axyz", 0.5))
    main(["report", str(runs.folder), "--out", str(tmp_path / "report")])
    page = read_page(tmp_path / "report" / "index.html")
    heading, first, second = page.tables["auxiliary"]
    assert dict(zip(heading, first, strict=True)) == {
        "method": "Magnitude",
        "kept": "100,000",
        "together": "a, b, c",
        "left out": "a",
        "seeds": "2",
        "a": "",
        "b": "+0.060 [+0.050 to +0.070]",
        "c": "-0.010 [-0.020 to +0.000]",
        "mean": "+0.025 [+0.015 to +0.035]",
    }
    assert second[3] == "b"
    drawing = next(one for one in page.images if "Heat map of differences" in one)
    assert "b +0.060 over without a; c -0.010 over without a; a +0.010 over without b" in drawing
    words = " ".join(page.words)
    assert "No run leaves out, at a, b, c at 100k: c." in words
    assert "These are 4 differences on test data" in words
    # Runs of two tasks are shown, those of other tasks are not.
    assert "only: a, x, y, z." in words
