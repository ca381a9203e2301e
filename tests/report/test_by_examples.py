"""``multiprune report --by-examples`` on runs whose right answer is known."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest
from page_reader import read_page
from run_folders import results, write, write_answers

from multiprune.cli import main

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LARGE, SMALL = 400_000, 200_000
#: Scores of the task by its number of examples; seed 1 is 0.02 better together, 0.04 alone.
TOGETHER = {10: 0.50, 100: 0.60, 1000: 0.70}
ALONE = {LARGE: {10: 0.30, 100: 0.55, 1000: 0.80}, SMALL: {10: 0.25, 100: 0.50, 1000: 0.75}}


class Runs:
    """A folder of runs that grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self, kept: int, seed: int, scores: Mapping[str, float], examples: Mapping[str, int]
    ) -> Path:
        whole = {"other": 1000} | dict(examples)
        numbers = {task: whole[task] for task in scores}
        name = "-".join(map(str, [*scores, *numbers.values(), kept, seed]))
        content = results(scores, kept=kept, seed=seed, test=scores, examples=numbers)
        return write(self.folder / name, content)

    def report(self, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
        main(["report", str(self.folder), "--by-examples", "--format", "json", *options])
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    def pairs(self, capsys: pytest.CaptureFixture[str], budget: str) -> list[dict[str, Any]]:
        tables = self.report(capsys)["sections"]["examples"]["tables"]
        rows: list[dict[str, Any]] = tables[f"examples-{budget.replace(' ', '-')}"]
        return rows

    def refusal(self, *options: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["report", str(self.folder), "--format", "json", *options])
        return str(caught.value)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    runs = Runs(tmp_path / "runs")
    for seed in (0, 1):
        for examples, score in TOGETHER.items():
            both = {"other": 0.9, "rare": score + 0.02 * seed}
            runs.add(LARGE, seed, both, {"rare": examples})
        for kept, scores in ALONE.items():
            for examples, score in scores.items():
                runs.add(kept, seed, {"rare": score + 0.04 * seed}, {"rare": examples})
    return runs


def test_default_report_names_the_way(runs: Runs) -> None:
    said = runs.refusal()
    assert "same number of training examples of rare, but it is 10 in" in said
    assert said.endswith("; `multiprune report --by-examples` is for such runs.")


def test_both_budgets_are_paired_by_seed(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    for budget, size in (("equal size", LARGE), ("equal total", SMALL)):
        pairs = runs.pairs(capsys, budget)
        assert [pair["examples"] for pair in pairs] == list(TOGETHER)
        for pair, (examples, together) in zip(pairs, TOGETHER.items(), strict=True):
            assert (pair["task"], pair["kept together"], pair["kept alone"]) == (
                "rare",
                LARGE,
                size,
            )
            difference = pair["together - alone"]
            # Of seed 0, and of seed 1, which alone gains 0.02 more.
            first = together - ALONE[size][examples]
            assert difference["seeds"] == [0, 1]
            assert difference["mean"] == pytest.approx(first - 0.01)
            ends = difference["low"], difference["high"]
            assert ends == pytest.approx((first - 0.02, first))
            assert "has no predictions.safetensors" in difference["reason"]


def test_examples_are_resampled_where_runs_have_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs(tmp_path)
    for number in (10, 100):
        for scores in ({"other": 0.5, "rare": 0.75}, {"rare": 0.25}):
            run = runs.add(100, 0, scores, {"rare": number})
            right = {task: [x < 100 * score for x in range(100)] for task, score in scores.items()}
            write_answers(run, right)
    difference = runs.pairs(capsys, "equal size")[0]["together - alone"]
    assert difference["examples"]
    assert difference["low"] == pytest.approx(0.4, abs=0.02)
    assert difference["high"] == pytest.approx(0.6, abs=0.02)


def test_even_share_takes_the_largest_model_that_fits(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.add(SMALL // 2, 0, {"rare": 0.99}, {"rare": 10})
    runs.add(SMALL + 5_000, 0, {"rare": 0.99}, {"rare": 10})
    for budget, size in (("equal size", LARGE), ("equal total", SMALL)):
        (pair,) = (one for one in runs.pairs(capsys, budget) if one["examples"] == 10)
        assert pair["kept alone"] == size


def test_missing_pairs_are_listed_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs(tmp_path)
    runs.add(LARGE, 0, {"other": 0.9, "rare": 0.5}, {"rare": 10})
    runs.add(LARGE, 0, {"other": 0.9, "rare": 0.5}, {"rare": 20})
    runs.add(LARGE, 1, {"rare": 0.5}, {"rare": 20})
    runs.add(LARGE, 0, {"rare": 0.5}, {"rare": 30})
    missing = runs.report(capsys)["sections"]["examples"]["tables"]["examples-missing"]
    reasons = {(one["budget"], one["examples"]): one["reason"] for one in missing}
    assert reasons == {
        ("equal size", 10): "there is no run of the task alone of 400,000 parameters with as many "
        "examples",
        ("equal total", 10): "there is no run of the task alone within 200,000 parameters with as "
        "many examples",
        ("equal size", 20): "the two have no seed in common",
        ("equal total", 20): "there is no run of the task alone within 200,000 parameters with as "
        "many examples",
        ("equal size", 30): "there is no multitask run of this size with as many examples",
        ("equal total", 30): "there is no multitask run of this size with as many examples",
    }
    main(["report", str(tmp_path), "--by-examples", "--format", "markdown"])
    page = capsys.readouterr().out
    assert page.count("there is no multitask run of this size") == 2
    assert "No model of these tasks alone has a seed in common" in page


def test_tasks_may_vary_one_by_one(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.add(LARGE, 0, {"other": 0.4, "rare": 0.1}, {"other": 50, "rare": 1000})
    runs.add(LARGE, 0, {"other": 0.3}, {"other": 50})
    pairs = runs.pairs(capsys, "equal size")
    assert [(one["task"], one["examples"]) for one in pairs] == [
        ("other", 50),
        *(("rare", number) for number in TOGETHER),
    ]
    assert pairs[0]["together - alone"]["mean"] == pytest.approx(0.1)
    assert pairs[-1]["together - alone"]["mean"] == pytest.approx(-0.1 - 0.01)


def test_two_tasks_that_vary_at_a_time_are_refused(runs: Runs) -> None:
    both = runs.add(LARGE, 0, {"other": 0.4, "rare": 0.1}, {"other": 50, "rare": 10})
    said = runs.refusal("--by-examples")
    assert "Only one task of a run may have fewer training examples" in said
    assert f"but {both} has fewer of other and of rare, and {runs.folder}/other-rare-1000-" in said
    assert "has 1,000 of other" in said


def test_numbers_that_do_not_vary_or_are_not_known_are_refused(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    run = runs.add(LARGE, 0, {"rare": 0.4}, {"rare": 10})
    assert "differ in their number of training examples, but all 1 have the same" in runs.refusal(
        "--by-examples"
    )
    content = json.loads((run / "results.json").read_text())
    del content["examples"]
    (run / "results.json").write_text(json.dumps(content))
    assert f"the results of {run} do not hold that of rare" in runs.refusal("--by-examples")


def test_page_shows_curves_and_both_tables(runs: Runs, tmp_path: Path) -> None:
    main(["report", str(runs.folder), "--by-examples", "--out", str(tmp_path / "report")])
    page = read_page(tmp_path / "report" / "index.html")
    heading, first, *_ = page.tables["examples-equal-size"]
    assert dict(zip(heading, first, strict=True)) == {
        "task": "rare",
        "method": "Magnitude",
        "kept together": "400,000",
        "kept alone": "400,000",
        "examples": "10",
        "alone": "0.320 (0.300 to 0.340)",
        "together": "0.510 (0.500 to 0.520)",
        "together - alone": "+0.190 [+0.180 to +0.200]",
        "seeds": "2",
    }
    assert [row[3] for row in page.tables["examples-equal-total"][1:]] == ["200,000"] * 3
    assert "examples-missing" not in page.tables
    assert page.tables["tasks"][2][:3] == ["rare", "accuracy", "10 to 1,000"]
    drawing = page.images[0]
    assert "together, 400k from 0.510 with 10 to 0.710 with 1,000" in drawing
    assert "alone, 200k from 0.270 with 10 to 0.770 with 1,000" in drawing
    assert (tmp_path / "report" / "examples-0-rare.png").is_file()


def test_lines_of_csv_hold_numbers_of_examples(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["report", str(runs.folder), "--by-examples", "--format", "csv"])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(rows) == 18
    (row,) = (one for one in rows if one["run"].endswith("/rare-100-200000-1"))
    assert (row["examples/rare"], row["examples/other"], row["test/rare"]) == ("100", "", "0.54")


def test_masks_are_not_for_this_page(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", str(runs.folder), "--by-examples", "--masks"])
    assert "not allowed with" in capsys.readouterr().err
