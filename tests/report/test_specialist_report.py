"""``multiprune report`` on jobs that cut specialists out, whose right answer is known."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest
from page_reader import PageReader, read_page
from run_folders import results
from run_folders import write as write_run
from specialist_world import SIZES, content, elsewhere, flat, overlap, write

from multiprune.cli import main
from multiprune.report.write import Report
from multiprune.runs.specialist_file import Calibration

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.report.specialists import Specialists


class Jobs:
    """A folder of jobs that grows."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        self._count = 0

    def add(self, easy: float, hard: float, **changed: Any) -> Path:
        self._count += 1
        return write(self.folder / f"{self._count:02}", content(flat(easy, hard), **changed))

    def text(self, format: str) -> str:
        main(["report", str(self.folder), "--format", format])
        return self._capsys.readouterr().out

    def found(self) -> Specialists:
        found = Report.read([self.folder]).specialists
        assert found is not None
        return found

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.text("json"))
        return document

    def answer(self) -> str:
        answer: str = self.document()["sections"]["specialists"]["answer"]
        return answer

    def rows(self, section: str, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.document()["sections"][section]["tables"][table]
        return rows

    def page(self) -> PageReader:
        out = self.folder.parent / "report"
        main(["report", str(self.folder), "--out", str(out)])
        self._capsys.readouterr()
        return read_page(out / "index.html")

    def refusal(self, *options: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["report", str(self.folder), "--format", "json", *options])
        said = str(caught.value)
        assert said.startswith("error: ")
        assert len(said.splitlines()) == 1
        return said


@pytest.fixture
def jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Jobs:
    return Jobs(tmp_path / "jobs", capsys)


@pytest.fixture
def study(jobs: Jobs) -> Jobs:
    """Three methods at half size: 0.70 and 0.74 by draw, 0.60, and 0.40 and 0.46 by seed."""
    for seed in (0, 1):
        jobs.add(0.80 + 0.04 * seed, 0.60 + 0.04 * seed, seed=seed)
        jobs.add(0.70, 0.50, method="magnitude", seed=seed, examples=10 + seed)
        jobs.add(0.50 + 0.06 * seed, 0.30 + 0.06 * seed, method="random", seed=seed, examples=10)
    return jobs


def of_method(rows: list[dict[str, Any]], method: str) -> dict[str, Any]:
    (row,) = (row for row in rows if row["method"] == method)
    return row


def numbers(spread: dict[str, Any]) -> tuple[float, float, float]:
    return spread["mean"], spread["low"], spread["high"]


def test_points_are_means_and_extremes_over_draws(study: Jobs) -> None:
    rows = study.rows("specialists", "specialists")
    assert [row["method"] for row in rows] == ["attribution", "magnitude", "random"]
    ours = of_method(rows, "attribution")
    assert numbers(ours["500k (0.5)"]) == pytest.approx((0.72, 0.70, 0.74))
    assert ours["500k (0.5)"]["seeds"] == ours["draws"] == 2
    assert ours["250k (0.25)"]["mean"] == pytest.approx(0.62)
    hard = of_method(study.rows("specialists", "specialists-1-hard"), "attribution")
    assert numbers(hard["500k (0.5)"]) == pytest.approx((0.62, 0.60, 0.64))
    whole = {row["task"]: row["score"] for row in study.rows("jobs", "specialist-tasks")}
    assert whole == pytest.approx({"easy": 0.9, "hard": 0.7})


def test_methods_without_examples_are_one_curve_whatever_their_examples(study: Jobs) -> None:
    rows = study.rows("specialists", "specialists")
    magnitude = of_method(rows, "magnitude")
    assert magnitude["500k (0.5)"]["mean"] == pytest.approx(0.60)
    assert (magnitude["500k (0.5)"]["seeds"], magnitude["draws"]) == (1, None)
    drawn = of_method(rows, "random")["500k (0.5)"]
    assert numbers(drawn) == pytest.approx((0.43, 0.40, 0.46))
    assert study.document()["skipped"] == []


def test_repair_needs_examples_whatever_is_pruned(study: Jobs) -> None:
    study.add(0.9, 0.7, method="magnitude", repair="rescale", examples=100)
    frame = study.found().frame
    repaired = frame[frame.curve == "magnitude + rescale"]
    found = set(zip(repaired.examples, repaired.labels, repaired.asked, strict=True))
    assert found == {(100, "gold", size) for size in SIZES}
    assert set(frame[frame.curve == "magnitude"].examples) == {0}


def test_page_shows_the_same_numbers(study: Jobs) -> None:
    page = study.page()
    heading, first, second, third = page.tables["specialists"]
    assert heading == ["method", "250k (0.25)", "500k (0.5)", "750k (0.75)", "draws"]
    assert first == [
        "attribution",
        "0.620 (0.600 to 0.640)",
        "0.720 (0.700 to 0.740)",
        "0.820 (0.800 to 0.840)",
        "2",
    ]
    assert second == ["magnitude", "0.500", "0.600", "0.700", ""]
    assert third[2] == "0.430 (0.400 to 0.460)"
    assert page.tables["specialists-1-hard"][1][2] == "0.620 (0.600 to 0.640)"
    assert page.tables["specialist-tasks"][1:] == [["easy", "f1", "0.900"], ["hard", "f1", "0.700"]]
    assert len(page.tables["jobs"]) == 1 + 6
    drawing = page.images[0]
    assert "attribution from 0.620 at 249k to 0.820 at 749k" in drawing
    assert "the whole model 0.800" in drawing
    assert all(address.startswith(("#", "data:")) for address in page.addresses)


def test_there_are_no_sections_without_data(study: Jobs) -> None:
    assert list(study.document()["sections"]) == ["specialists", "jobs"]
    tables = set(study.page().tables)
    assert {"specialists", "jobs"} <= tables
    assert not {"number", "labels", "unseen", "shared", "jobs-skipped"} & tables


def test_setting_is_that_of_most_methods(study: Jobs) -> None:
    for seed in (0, 1, 2):
        study.add(0.9, 0.9, examples=1000, labels="pseudo", seed=seed)
    study.add(0.9, 0.9, method="fisher", examples=100)
    study.add(0.9, 0.9, method="taylor", examples=1000)
    assert study.found().setting == Calibration(100, "gold")
    page = study.page()
    assert [row[0] for row in page.tables["specialists"][1:]] == [
        "attribution",
        "fisher",
        "magnitude",
        "random",
    ]
    words = "".join(page.words)
    assert "had 100 examples a task with gold labels (of what was measured, that of most" in words
    assert "Not measured so: taylor." in words


def test_names_say_what_tells_curves_apart(jobs: Jobs) -> None:
    same = {"at": "outputs", "seed": 3}
    jobs.add(0.8, 0.6, options={"tokens": "max", "absolute": False, **same})
    jobs.add(0.8, 0.6, options={"tokens": "sum", "absolute": False, **same})
    jobs.add(0.8, 0.6, options={"tokens": "sum", "absolute": True, **same}, repair="rescale")
    jobs.add(0.8, 0.6, method="fisher", options={"at": "gates"}, repair="rescale")
    assert jobs.found().curves == [
        "attribution, not absolute, tokens max",
        "attribution, not absolute, tokens sum",
        "attribution, absolute, tokens sum + rescale",
        "fisher + rescale",
    ]


def test_seed_among_options_does_not_part_a_curve(study: Jobs) -> None:
    study.add(0.8, 0.6, seed=7, options={"seed": 7})
    frame = study.found().frame
    assert set(frame[frame.curve == "attribution"].seed) == {0, 1, 7}


def test_number_of_examples_is_enough_from_where_ranges_overlap(jobs: Jobs) -> None:
    by_number = {1: (0.50, 0.52), 10: (0.58, 0.62), 100: (0.60, 0.64), 1000: (0.61, 0.65)}
    for number, scores in by_number.items():
        for seed, score in enumerate(scores):
            jobs.add(score, score, examples=number, seed=seed)
    jobs.add(0.4, 0.4, method="magnitude")
    page = jobs.page()
    heading, _, half, _ = page.tables["number"]
    assert heading == ["method", "asked", "1", "10", "100", "1,000", "enough"]
    assert half == [
        "attribution",
        "500,000",
        "0.510 (0.500 to 0.520)",
        "0.600 (0.580 to 0.620)",
        "0.620 (0.600 to 0.640)",
        "0.630 (0.610 to 0.650)",
        "10",
    ]
    drawing = next(one for one in page.images if one.startswith("Scores over calibration"))
    assert "attribution from 0.510 with 1 to 0.630 with 1,000" in drawing
    assert "magnitude from 0.400 with 1 to 0.400 with 1,000" in drawing

    assert jobs.document()["sections"]["number"]["answer"] == (
        "10 examples a task are enough for attribution at 500,000 of 1,000,000 parameters: "
        "0.600 (0.580 to 0.620); with 1,000, 0.630 (0.610 to 0.650)."
    )


def test_one_draw_is_never_enough(jobs: Jobs) -> None:
    jobs.add(0.6, 0.6, examples=10)
    jobs.add(0.6, 0.6, examples=100)
    assert [row[-1] for row in jobs.page().tables["number"][1:]] == [""] * 3
    assert jobs.document()["sections"]["number"]["answer"] == ""


def test_numbers_of_examples_are_shown_though_most_methods_had_another(jobs: Jobs) -> None:
    for number in (10, 100):
        jobs.add(0.6, 0.6, examples=number)
    for method in ("fisher", "taylor"):
        jobs.add(0.6, 0.6, method=method, examples=1000)
    assert jobs.found().setting == Calibration(1000, "gold")
    rows = jobs.rows("number", "number")
    assert {row["method"] for row in rows} == {"attribution"}
    assert [row["asked"] for row in rows] == list(SIZES)


def test_labels_are_paired_by_draw(jobs: Jobs) -> None:
    # Seed 2 has gold labels only.
    for seed, gold, pseudo in ((0, 0.60, 0.61), (1, 0.70, 0.67), (2, 0.10, None)):
        jobs.add(gold, gold, seed=seed)
        if pseudo is not None:
            jobs.add(pseudo, pseudo, seed=seed, labels="pseudo")
    page = jobs.page()
    _, _, half, _ = page.tables["labels"]
    assert half == [
        "attribution",
        "500,000",
        "100",
        "0.650 (0.600 to 0.700)",
        "0.640 (0.610 to 0.670)",
        "-0.010 (-0.030 to +0.010)",
        "2",
    ]
    answer = jobs.document()["sections"]["labels"]["answer"]
    assert "better in every draw in 0, worse in every draw in 0, and neither in 3" in answer
    (row,) = (row for row in jobs.rows("labels", "labels") if row["asked"] == 500_000)
    assert numbers(row["pseudo - gold"]) == pytest.approx((-0.01, -0.03, 0.01))


def test_other_data_stand_beside_the_whole_model_there(jobs: Jobs) -> None:
    jobs.add(0.8, 0.6, seed=0, unseen=[elsewhere(0.5), elsewhere(0.3, size=250_000)])
    jobs.add(0.8, 0.6, seed=1, unseen=[elsewhere(0.54)])
    page = jobs.page()
    assert page.tables["unseen"] == [
        ["cut out for", "answers", "method", "the whole model", "250k (0.25)", "500k (0.5)"],
        ["easy", "other", "attribution", "0.600", "0.300", "0.520 (0.500 to 0.540)"],
    ]
    (row,) = jobs.rows("unseen", "unseen")
    assert (row["the whole model"], row["500k (0.5)"]["mean"]) == (0.6, pytest.approx(0.52))
    (drawing,) = (one for one in page.images if one.startswith("easy on other"))
    assert "attribution from 0.300 at 249k to 0.520 at 499k; the whole model 0.600" in drawing


def test_overlap_is_that_of_attribution_at_half_over_draws(jobs: Jobs) -> None:
    for seed, share in enumerate((0.2, 0.4)):
        sizes = {"250000": overlap(0.9, 0.9), "500000": overlap(share, share + 0.1)}
        jobs.add(0.8, 0.6, seed=seed, overlap=sizes)
        jobs.add(0.9, 0.9, seed=seed, method="activation-norm", overlap={"500000": overlap(1, 1)})
    page = jobs.page()
    assert page.tables["shared"] == [
        ["task", "and", "neurons", "heads"],
        ["easy", "hard", "0.300 (0.200 to 0.400)", "0.400 (0.300 to 0.500)"],
    ]
    assert "Matrix of overlaps of heads: easy and hard 0.40." in page.images
    assert any("attribution at 500,000 parameters, the size nearest" in word for word in page.words)


def test_overlap_of_a_method_without_examples_is_counted_once(jobs: Jobs) -> None:
    for seed in (0, 1):
        jobs.add(0.8, 0.6, seed=seed, method="magnitude", overlap={"500000": overlap(0.2, 0.3)})
    (row,) = jobs.rows("shared", "shared")
    assert row["neurons"]["seeds"] == 1


def test_answer_says_how_much_the_best_is_over_both_baselines(study: Jobs) -> None:
    assert study.answer() == (
        "At 500,000 of 1,000,000 parameters (encoder_linear) and 100 examples a task with gold "
        "labels, attribution is the best of 3 methods with 0.720 (mean over 2 tasks; the whole "
        "model 0.800): 0.120 more than magnitude and 0.290 more than random."
    )


def test_answer_claims_no_difference_within_the_ranges(study: Jobs) -> None:
    # Fisher has a mean of 0.75 and a range that holds 0.70 to 0.80.
    study.add(0.80, 0.60, method="fisher", seed=0)
    study.add(0.90, 0.70, method="fisher", seed=1)
    study.add(0.70, 0.70, method="taylor", seed=0)
    answer = study.answer()
    assert "fisher has the highest score of 5 methods, 0.750 (" in answer
    assert "best" not in answer
    assert answer.endswith(
        "0.150 more than magnitude and 0.320 more than random. Its range over draws overlaps that "
        "of attribution. One draw is too few to tell it apart from taylor."
    )


def test_answer_of_one_draw_claims_nothing(jobs: Jobs) -> None:
    jobs.add(0.9, 0.9)
    jobs.add(0.2, 0.2, method="magnitude")
    answer = jobs.answer()
    assert "more than" not in answer
    assert answer.endswith("It is of one draw, too few to tell it apart from magnitude.")


def test_answer_says_so_if_a_baseline_is_best(jobs: Jobs) -> None:
    for seed in (0, 1):
        jobs.add(0.5, 0.5, seed=seed)
    jobs.add(0.6, 0.6, method="magnitude")
    assert "magnitude is the best of 2 methods with 0.600" in jobs.answer()


def test_last_of_repeated_sizes_counts_and_others_are_added(jobs: Jobs) -> None:
    first, second = content(flat(0.8, 0.6)), content(flat(0.4, 0.2))
    half = [one for one in second["specialists"] if one["asked"] == 500_000]
    write(jobs.folder / "1", first | {"unseen": [elsewhere(0.5)]})
    write(jobs.folder / "2", first)
    write(jobs.folder / "3", second | {"specialists": half})
    (row,) = jobs.rows("specialists", "specialists")
    found = [row["250k (0.25)"], row["500k (0.5)"], row["750k (0.75)"]]
    assert [one["mean"] for one in found] == pytest.approx([0.6, 0.3, 0.8])
    assert {one["seeds"] for one in found} == {1}
    assert jobs.document()["skipped"] == []
    assert jobs.page().tables["unseen"][1][-1] == "0.500"


def test_repeated_draws_are_skipped(jobs: Jobs) -> None:
    repeated = jobs.add(0.4, 0.2)
    last = jobs.add(0.8, 0.6)
    skipped = [{"path": str(repeated), "reason": f"repeated by {last}"}]
    assert jobs.document()["skipped"] == skipped
    (row,) = jobs.rows("specialists", "specialists")
    half = row["500k (0.5)"]
    assert (half["mean"], half["seeds"]) == (pytest.approx(0.7), 1)
    assert len(jobs.page().tables["jobs-skipped"]) == 2


def test_repeated_draws_do_not_choose_the_setting(jobs: Jobs) -> None:
    for _ in range(3):
        jobs.add(0.8, 0.6, examples=10)
    for seed in (0, 1):
        jobs.add(0.8, 0.6, examples=5, seed=seed)
    assert jobs.found().setting == Calibration(5, "gold")


def test_settings_of_jobs_tell_curves_apart(jobs: Jobs) -> None:
    for rows in (None, 64):
        jobs.add(0.8, 0.6, config={"validation_rows": rows, "mirror": str(rows)})
    assert jobs.found().curves == ["attribution, validation_rows 64", "attribution"]


def test_jobs_from_before_settings_were_called_so_are_of_the_same_curves(jobs: Jobs) -> None:
    jobs.add(0.8, 0.6, config={"relative": True})
    jobs.add(0.4, 0.2, seed=1, config={"rank": "by_module", "rounds": 1})
    jobs.add(0.8, 0.6, config={"relative": False})
    jobs.add(0.8, 0.6, config={"relative": None})
    jobs.add(0.8, 0.6, seed=1, config={"rank": None, "rounds": 1})
    jobs.add(0.8, 0.6, config={"rank": None, "rounds": 2})
    assert sorted(jobs.found().curves) == [
        "attribution, rank by_module, rounds 1",
        "attribution, rank together, rounds 1",
        "attribution, rounds 1",
        "attribution, rounds 2",
    ]


def test_lines_of_csv_are_specialists(study: Jobs) -> None:
    study.add(0.8, 0.6, method="fisher", options={"at": "gates"}, unseen=[elsewhere(0.5)])
    rows = list(csv.DictReader(study.text("csv").splitlines()))
    # The second job of magnitude repeats the first.
    assert len(rows) == 6 * 6 + 1
    assert {(row["run"], row["scope"], row["dense"]) for row in rows} == {
        ("/runs/multitask", "encoder_linear", "1000000")
    }
    last = rows[-1]
    assert (last["method"], last["options"]) == ("fisher", '{"at": "gates"}')
    assert (last["data"], last["metric"], last["score"], last["whole"]) == (
        "other", "f1", "0.5", "0.6",
    )  # fmt: skip
    assert {row["examples"] for row in rows if row["method"] == "random"} == {""}


def test_same_files_give_the_same_page(study: Jobs, tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        main(["report", str(study.folder), "--out", str(tmp_path / name)])
        pages.append((tmp_path / name / "index.html").read_bytes())
    assert pages[0] == pages[1]
    markdown = study.text("markdown")
    assert "# Models of one task each, cut out of /runs/multitask\n" in markdown
    assert "## One task's own model" in markdown


def test_folders_without_a_file_are_refused(jobs: Jobs) -> None:
    assert f"{jobs.folder} is not a directory" in jobs.refusal()
    jobs.folder.mkdir()
    assert f"No runs found in {jobs.folder}" in jobs.refusal()


@pytest.mark.parametrize(
    ("what", "other"), [("run", "/runs/other"), ("of", "encoder"), ("dense", 5)]
)
def test_jobs_of_another_model_than_most_are_skipped(study: Jobs, what: str, other: Any) -> None:
    before = study.document()
    path = study.add(0.8, 0.6, **{what: other})
    found = study.document()
    (skipped,) = found["skipped"]
    assert skipped["path"] == str(path)
    assert skipped["reason"].startswith(f"its `{what}` is {other}, but that of most jobs is ")
    assert found["answers"] == before["answers"]


def test_jobs_of_other_tasks_than_most_are_skipped(study: Jobs) -> None:
    job = content(flat(0.8, 0.6), seed=5)
    easy = [one for one in job["specialists"] if one["task"] == "easy"]
    write(study.folder / "x", job | {"specialists": easy})
    (skipped,) = study.document()["skipped"]
    assert skipped["reason"] == (
        "its `tasks` is ('easy',), but that of most jobs is ('easy', 'hard')"
    )


def test_a_file_may_be_named_itself(study: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(study.folder / "01" / "specialists.json"), "--format", "json"])
    document = json.loads(capsys.readouterr().out)
    assert len(document["sections"]["jobs"]["tables"]["jobs"]) == 1


_SPECIALIST = {"task": "easy", "asked": 9, "kept": 8, "metrics": {"f1": 0.5}}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dense": "many"}, "`dense` of FILE must be a int, but is 'many'"),
        ({"dense": 0}, "of a model with parameters, but FILE has 6 of 0"),
        ({"examples": 0}, "`examples` of FILE must be at least 1, but is 0"),
        ({"specialists": []}, "FILE has 0 of 1,000,000 parameters"),
        ({"specialists": [3]}, "FILE has no `task`"),
        ({"specialists": [_SPECIALIST | {"metrics": {}}]}, "`metrics` of FILE must start with"),
        (
            {"specialists": [_SPECIALIST | {"metrics": {"f1": float("nan")}}]},
            "`metrics` of FILE must start with a score",
        ),
        ({"specialists": [_SPECIALIST] * 2}, "but FILE has 2 of easy at 9 parameters"),
        (
            {"specialists": [_SPECIALIST, _SPECIALIST | {"task": "hard", "asked": 7}]},
            "but FILE has 0 of easy at 7 parameters",
        ),
        ({"whole": {"easy": {"f1": 1.0}}}, "`whole` of FILE has no score of hard"),
        ({"overlap": {"9": {"tasks": ["easy", "hard"], "heads": [[1.0]]}}}, "`overlap` of FILE"),
        ({"unseen": [_SPECIALIST]}, "FILE has no `data`"),
    ],
)
def test_damaged_file_is_named(jobs: Jobs, changed: dict[str, Any], said: str) -> None:
    file = jobs.add(0.8, 0.6, **changed) / "specialists.json"
    assert said.replace("FILE", str(file)) in jobs.refusal()


def test_file_that_is_cut_off_is_named(jobs: Jobs) -> None:
    file = jobs.add(0.8, 0.6) / "specialists.json"
    file.write_text(file.read_text()[:50])
    assert f"{file.parent}: specialists.json is not JSON" in jobs.refusal()


def test_one_damaged_file_is_listed_and_the_others_are_shown(study: Jobs) -> None:
    before = study.document()
    file = study.add(0.8, 0.6, method="fisher") / "specialists.json"
    file.write_text(file.read_text()[:50])
    after = study.document()
    (listed,) = after["skipped"]
    assert listed["path"] == str(file.parent)
    assert "specialists.json is not JSON" in listed["reason"]
    del after["sections"]["jobs"]["tables"]["jobs-skipped"]
    assert after | {"skipped": []} == before
    page = study.page()
    assert page.tables["jobs-skipped"][1][0] == str(file.parent)
    assert page.tables["specialists"][1][0] == "attribution"


def test_runs_stand_beside_what_was_cut_out_of_one(study: Jobs) -> None:
    trained = write_run(study.folder / "trained", results({"easy": 0.8}, kept=200_000))
    document = study.document()
    assert [row["run"] for row in document["sections"]["runs"]["tables"]["runs"]] == [str(trained)]
    assert document["sections"]["specialists"]["answer"] == study.answer()
    assert document["skipped"] == []


def test_a_job_that_hydra_has_begun_is_no_run_that_was_not_finished(study: Jobs) -> None:
    job = study.add(0.8, 0.6, method="fisher")
    (job / ".hydra").mkdir()
    write_run(study.folder / "trained", results({"easy": 0.8}, kept=200_000))
    assert study.document()["skipped"] == []


def test_damaged_file_beside_runs_is_listed(jobs: Jobs) -> None:
    file = jobs.add(0.8, 0.6) / "specialists.json"
    file.write_text("{")
    write_run(jobs.folder / "trained", results({"easy": 0.8}, kept=200_000))
    document = jobs.document()
    assert [one["path"] for one in document["skipped"]] == [str(file.parent)]
    assert "specialists" not in document["sections"]


@pytest.mark.parametrize("option", ["--masks", "--by-examples", "--ignore=trainer"])
def test_options_of_runs_are_refused_where_there_are_none(study: Jobs, option: str) -> None:
    assert "are for runs that were trained" in study.refusal(option)
