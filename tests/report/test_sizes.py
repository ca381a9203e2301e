"""Models of many sizes beside separate ones, whose pairs and ratios are known by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from run_folders import LINEAR, results, write

from multiprune.cli import main
from multiprune.report.page.format import cells
from multiprune.report.questions import sizes as question
from multiprune.report.study import Study
from multiprune.report.write import Report
from multiprune.runs.frame import read_runs
from multiprune.runs.size_scores import FRONTIER, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from multiprune.report.page.section import Section
    from multiprune.report.questions.sizes import ManySizes
    from multiprune.runs.frame import Skipped

#: Thousands of parameters that the one run keeps at each size, by seed, and the scores there.
KEPT = {0: [1000, 500, 190], 1: [1000, 498, 198]}
SCORES = {0: [0.90, 0.80, 0.60], 1: [0.92, 0.70, 0.40]}
ASKED = [1.0, 0.5, 0.2]
TASKS = ("names", "tags")


class Runs:
    """A folder of runs that grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        name: str,
        kept: int,
        score: float,
        *,
        seed: int = 0,
        pruner: str = "Structured",
        seconds: float = 30,
        tasks: Sequence[str] = TASKS,
        **content: Any,
    ) -> Path:
        """Write a run with scores as far above ``score`` as below it."""
        by_task = {task: score + 0.01 * (-1) ** place for place, task in enumerate(tasks)}
        asked = 200_000 if pruner == "Dynamic" else None
        made = results(by_task, kept=kept, seed=seed, pruner=pruner, asked=asked, test=by_task)
        return write(self.folder / name, made | {"wall_seconds": seconds} | content)

    def many(self, seed: int, *, name: str = "many", **frontier: Any) -> Path:
        """Write a run of many sizes, and what was found of them."""
        smallest = 1000 * KEPT[seed][-1]
        run = self.add(
            f"{name}-{seed}", smallest, SCORES[seed][-1], seed=seed, pruner="Dynamic", seconds=90
        )
        content = {"split": "validation", "weights": {}, "sizes": sizes(seed)} | frontier
        (run / FRONTIER).write_text(json.dumps(content))
        return run

    def study(self) -> Study:
        return Study.from_runs(read_runs(self.folder))

    def section(self) -> Section:
        section = question.answer(self.study())
        assert section is not None
        return section

    def rows(self, name: str) -> list[list[str]]:
        (table,) = (one for one in self.section().tables if one.name == name)
        return [[cell.text for cell in row] for row in cells(table)]

    def found(self) -> ManySizes:
        (one,), _ = question.many_sizes(self.study())
        return one

    def skipped(self) -> Sequence[Skipped]:
        return question.many_sizes(self.study())[1]


def sizes(seed: int) -> list[dict[str, Any]]:
    found = []
    for asked, kept, score in zip(ASKED, KEPT[seed], SCORES[seed], strict=True):
        # The smallest is asked for by the density that it has, which differs by seed.
        density = {"asked": asked if asked > 0.2 else kept / 1000, "density": kept / 1000}
        found.append(density | {"kept": 1000 * kept, "scores": of_tasks(score)})
    return found


def of_tasks(score: float) -> Mapping[str, Mapping[str, float]]:
    return {"names": {"accuracy": score + 0.01}, "tags": {"accuracy": score - 0.01, "f1": 0.0}}


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    made = Runs(tmp_path / "runs")
    for seed in (0, 1):
        made.many(seed)
        made.add(f"dense-{seed}", LINEAR, 0.91, seed=seed, pruner="NoPruning", seconds=45)
    made.add("half-0", 499_000, 0.75, seconds=20)
    made.add("half-1", 499_000, 0.75, seed=1, seconds=30)
    made.add("small-0", 200_000, 0.50, seconds=20)
    made.add("middle-0", 350_000, 0.60)
    return made


def test_sizes_of_seeds_are_one_though_they_keep_a_few_parameters_more(runs: Runs) -> None:
    points = runs.found().points
    assert [point.parameters for point in points] == [198_000, 500_000, LINEAR]
    assert [point.by_seed for point in points] == [
        pytest.approx({0: 0.60, 1: 0.40}),
        pytest.approx({0: 0.80, 1: 0.70}),
        pytest.approx({0: 0.90, 1: 0.92}),
    ]


def test_pairs_are_nearest_to_each_other_and_over_the_seeds_of_both(runs: Runs) -> None:
    (separate,) = runs.found().separate
    assert separate.method == "Structured"
    found = [(one.point.parameters, one.separate.parameters, one.seeds) for one in separate.pairs]
    assert found == [
        (198_000, 200_000, (0,)),
        (500_000, 499_000, (0, 1)),
        (LINEAR, LINEAR, (0, 1)),
    ]
    expected = [0.60 / 0.50, 0.75 / 0.75, 0.91 / 0.91]
    assert [one.ratio for one in separate.pairs] == pytest.approx(expected)
    assert separate.ratio == pytest.approx((1.2 + 1 + 1) / 3)
    assert len(separate.models) == 4


def test_cost_is_beside_dense_alone_and_the_sum_of_paired_runs(runs: Runs) -> None:
    assert runs.rows("sizes-cost") == [
        ["Dynamic", "every size from one run", "1", "90.0", "1.00", ""],
        ["NoPruning", "dense alone", "1", "45.0", "2.00", ""],
        # 20 of the small one, 25 the mean over seeds of the half, 45 dense.
        ["Structured", "a run for each size above", "3", "90.0", "1.00", "1.067"],
    ]
    assert "One run of Dynamic takes 2.00 times as long as a dense model." in runs.section().text


def test_sizes_too_far_apart_are_no_pair(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.many(0)
    runs.add("far", 229_000, 0.5)
    assert runs.found().separate[0].pairs == []
    assert runs.section().text[-1] == "No separate size is a pair with one of Dynamic."
    assert runs.section().answer == ""
    runs.add("near", 190_000 * 6 // 5, 0.5)
    (pair,) = runs.found().separate[0].pairs
    assert pair.separate.parameters == 228_000


def test_score_that_is_not_above_zero_has_no_ratio(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.many(0)
    runs.add("none", 500_000, -0.1)
    (separate,) = runs.found().separate
    assert [one.ratio for one in separate.pairs] == [None]
    assert separate.ratio is None
    assert runs.rows("sizes-pairs")[0][6] == ""


def test_runs_of_other_steps_seeds_or_scores_are_said_to_be_not_used(runs: Runs) -> None:
    runs.add("longer", 500_000, 0.9, steps=24, pruner="Magnitude")
    runs.add("other-seed", 500_000, 0.9, seed=7, pruner="Movement")
    mixing = results(dict.fromkeys(TASKS, 0.9), kept=600_000)["config"]
    mixing["data"]["mixing"] = {"_target_": "other"}
    runs.add("mixed", 600_000, 0.9, config=mixing)
    runs.add("one-task", 600_000, 0.9, tasks=["tags"])
    reasons = {one.path.name: one.reason for one in runs.skipped()}
    assert reasons == {
        "longer": "runs like it took 24 steps, but those of every size 12",
        "other-seed": "it has no seed in common with the run of every size",
        "mixed": "its tasks are weighted or mixed in another way than those of the run of every "
        "size",
    }


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"split": "train"}, "`split` of frontier.json must be one of validation, test"),
        ({"sizes": []}, "frontier.json must have sizes"),
        ({"sizes": [{"asked": 1.0}]}, "frontier.json has no `kept`"),
        ({"sizes": [sizes(0)[0] | {"kept": 2 * LINEAR}]}, "must be from 1 to 1,000,000"),
        ({"sizes": [sizes(0)[0] | {"scores": {}}]}, "must have finite scores"),
        ({"sizes": [sizes(0)[0] | {"scores": of_tasks(float("nan"))}]}, "must have finite scores"),
        ({"weights": None}, "`weights` of frontier.json must be a dict"),
    ],
)
def test_damaged_file_is_skipped_with_a_sentence(
    runs: Runs, changed: dict[str, Any], reason: str
) -> None:
    content = {"split": "validation", "weights": {}, "sizes": sizes(1)} | changed
    check_skipped(runs, json.dumps(content), reason)


def test_file_that_is_no_json_is_skipped_with_a_sentence(runs: Runs) -> None:
    check_skipped(runs, "{", "frontier.json is not JSON")


def check_skipped(runs: Runs, content: str, reason: str) -> None:
    (runs.folder / "many-1" / FRONTIER).write_text(content)
    assert {seed for point in runs.found().points for seed in point.scores} == {0}
    ((path, text),) = runs.rows("sizes-skipped")
    assert path.endswith("many-1/frontier.json")
    assert reason in text


def test_sizes_of_a_run_that_was_trained_again_are_skipped(runs: Runs) -> None:
    weights = runs.folder / "many-0" / WEIGHTS
    weights.parent.mkdir()
    weights.write_text('{"model.safetensors": "ab"}')
    (skipped,) = runs.skipped()
    assert "must be of the run's own weights, but is of others" in skipped.reason
    content = json.loads((runs.folder / "many-0" / FRONTIER).read_text())
    content["weights"] = {"model.safetensors": "ab"}
    (runs.folder / "many-0" / FRONTIER).write_text(json.dumps(content))
    assert runs.skipped() == []


def test_seed_without_sizes_is_named(runs: Runs) -> None:
    (runs.folder / "many-1" / FRONTIER).unlink()
    (skipped,) = runs.skipped()
    assert skipped.path.name == "many-1"
    assert skipped.reason == "it has no frontier.json, which multiprune frontier writes"


def test_sizes_on_other_data_than_most_are_skipped(runs: Runs) -> None:
    runs.many(0, name="more", split="test")  # repeats many-0, as the last by path
    runs.add("many-2", 200_000, 0.5, seed=2, pruner="Dynamic")
    other = {"split": "validation", "weights": {}, "sizes": sizes(0)}
    (runs.folder / "many-2" / FRONTIER).write_text(json.dumps(other))
    (skipped,) = runs.skipped()
    assert skipped.path.parent.name == "more-0"
    assert skipped.reason == "it has test scores of names, tags, but most of these runs others"
    assert runs.found().split == "validation"


def test_sizes_on_test_data_are_beside_test_scores(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.many(0, split="test")
    run = runs.add("half", 500_000, 0.9)
    content = json.loads((run / "results.json").read_text())
    content["test"] = {task: {"accuracy": 0.4} for task in TASKS}
    (run / "results.json").write_text(json.dumps(content))
    ((pair,),) = (one.pairs for one in runs.found().separate)
    assert pair.ratio == pytest.approx(0.8 / 0.4)


def test_without_sizes_there_is_no_section(runs: Runs) -> None:
    for file in runs.folder.glob(f"*/{FRONTIER}"):
        file.unlink()
    assert question.answer(runs.study()) is None
    assert "sizes" not in {section.name for section in Report.read([runs.folder]).sections}


def test_section_of_damaged_files_alone_says_so(runs: Runs) -> None:
    for file in runs.folder.glob(f"*/{FRONTIER}"):
        file.write_text("{")
    section = runs.section()
    assert list(section.text) == ["No frontier.json can be used."]
    assert [one.name for one in section.tables] == ["sizes-skipped"]


def test_report_is_written_in_every_format(runs: Runs, tmp_path: Path) -> None:
    for format in ("html", "markdown", "json"):
        out = tmp_path / format
        main(["report", str(runs.folder), "--out", str(out), "--format", format])
    page = (tmp_path / "html" / "index.html").read_text()
    assert "Every size from one run, or a run for each?" in page
    assert (tmp_path / "html" / "sizes-0.png").is_file()
    markdown = (tmp_path / "markdown" / "report.md").read_text()
    told = "One run of Dynamic has 1.067 times the score of a run each of Structured, the mean over"
    assert f"{told} 3 sizes (1.000 to 1.200), in 1.00 times the time." in markdown
    row = "| Dynamic | 0.198 | 0.600 | Structured | 0.200 | 0.500 | 1.200 | 1 |"
    assert row in markdown
    content = json.loads((tmp_path / "json" / "report.json").read_text())
    tables = content["sections"]["sizes"]["tables"]
    assert [row["kept"] for row in tables["sizes"]] == [198_000, 500_000, LINEAR]
    many, dense, each = tables["sizes-cost"]
    assert each["ratio"] == pytest.approx(3.2 / 3)
    assert (many["wall s"], dense["wall s"]) == (90, 45)
