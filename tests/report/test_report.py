"""``multiprune report`` on runs whose right answer is known, read back out of what it writes."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from application import ROOT
from page_reader import PageReader, read_page
from pydantic import TypeAdapter, ValidationError
from report_world import LAYERS, SIZES, write_kept, write_runs
from run_folders import EMBEDDINGS, HEAD, OTHER, results, write

from multiprune.cli import main
from multiprune.report.page.format import JsonReport

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_runs(tmp_path_factory.mktemp("runs"))
    kept = np.zeros((4, 5), bool)
    kept[0] = True
    for name in ("easy", "hard"):
        write_kept(folder / f"{name}-100000-0", dict.fromkeys(LAYERS, kept))
    return folder


@pytest.fixture(scope="module")
def report(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports") / "report"
    main(["report", str(runs), "--out", str(folder), "--masks"])
    return folder


@pytest.fixture(scope="module")
def page(report: Path) -> PageReader:
    return read_page(report / "index.html")


@pytest.fixture(scope="module")
def document(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("json") / "report"
    main(["report", str(runs), "--out", str(folder), "--format", "json"])
    content: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return content


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["report", *map(str, arguments)])
    said = str(caught.value)
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert capsys.readouterr().out == ""
    return said


def test_json_is_as_its_schema_says(document: dict[str, Any]) -> None:
    adapter = TypeAdapter(JsonReport)
    assert adapter.validate_python(document, strict=True) == document
    file = ROOT / "docs" / "report.schema.json"
    assert json.loads(file.read_text()) == adapter.json_schema()
    with pytest.raises(ValidationError, match=r"skipped.0.path"):
        adapter.validate_python(document | {"skipped": [{"seed": 0}]})


def test_difference_is_paired_by_seed(document: dict[str, Any]) -> None:
    tables = document["sections"]["multitask"]["tables"]
    middle, large = tables["multitask-tasks"]
    missing = {row["budget"]: row["reason"] for row in tables["missing"] if "any" in row["missing"]}
    assert list(missing) == [SIZES[0]]
    assert "must hold a trained size of each of 2 tasks" in missing[SIZES[0]]
    # 200,000: 0.75 together, 0.70 alone with 100,000 each; seeds add 0, 0.01 and 0.05.
    found = middle["mean"]
    assert found["seeds"] == [0, 1, 2]
    assert found["mean"] == pytest.approx(0.07)
    assert (found["low"], found["high"]) == pytest.approx((0.05, 0.10))
    # Of three signs, two of eight choices are as far from 0.
    assert middle["p"] == 0.25
    assert middle["easy"]["mean"] == pytest.approx(-0.10 + 0.02)
    # 400,000: 0.80 together, 0.755 alone with 200,000 each.
    assert large["mean"]["mean"] == pytest.approx(0.065)
    *_, shares = tables["allocation"]
    assert (shares["easy"], shares["hard"]) == (200_000, 200_000)


def test_models_hold_their_seeds(document: dict[str, Any]) -> None:
    models = document["sections"]["pruners"]["tables"]["pruners"]
    assert len(models) == 9
    (model,) = (one for one in models if one["tasks"] == "together" and one["kept"] == 400_000)
    assert model["seeds"] == 3
    mean = model["mean"]
    assert mean["mean"] == pytest.approx(0.70 + 0.04)
    assert (mean["low"], mean["high"], mean["seeds"]) == pytest.approx((0.70, 0.79, 3))
    assert "masks" not in document["sections"]
    assert len(document["sections"]["runs"]["tables"]["runs"]) == 27


def test_page_shows_the_same_numbers(page: PageReader) -> None:
    heading, *rows = page.tables["multitask"]
    assert [dict(zip(heading, row, strict=True)) for row in rows] == [
        {
            "method": "Magnitude",
            "budget": "200,000",
            "of dense": "0.200",
            "multitask": "0.690 (0.650 to 0.740)",
            "best ensemble": "0.620 (0.600 to 0.640)",
            "uniform split": "0.620 (0.600 to 0.640)",
            "proportional split": "",
            "multitask - best ensemble": "+0.070 [+0.050 to +0.100]",
        },
        {
            "method": "Magnitude",
            "budget": "400,000",
            "of dense": "0.400",
            "multitask": "0.740 (0.700 to 0.790)",
            "best ensemble": "0.675 (0.655 to 0.695)",
            "uniform split": "0.675 (0.655 to 0.695)",
            # 300,000 for easy, 100,000 for hard: 0.91 and 0.50.
            "proportional split": "0.625 (0.605 to 0.645)",
            "multitask - best ensemble": "+0.065 [+0.045 to +0.095]",
        },
    ]
    assert page.tables["allocation"][1] == ["Magnitude", "200,000", "200,000", *["100,000"] * 2]
    rows = page.tables["pruners"]
    score = "0.720 (0.700 to 0.740)"
    assert ["Magnitude", "hard", "0.400", "400,000", "3", score, "", score] in rows


def test_page_shows_ledger_density_and_wall_time(page: PageReader) -> None:
    _, *rows = page.tables["ledger"]
    both = next(row for row in rows if row[1] == "easy, hard" and row[2] == "200,000")
    assert both[3:] == [
        f"{one:,}"
        for one in (EMBEDDINGS, 200_000, OTHER, 2 * HEAD, EMBEDDINGS + 200_000 + OTHER + 2 * HEAD)
    ]
    _, *rows = page.tables["density"]
    # What report_world says of the second matrix of layer 1 at 400,000: 0.4 * 4 / 2.5.
    assert rows[-1][:2] == ["1", "output.dense"]
    assert rows[-1][-1] == "0.6400"
    _, *rows = page.tables["wall-time"]
    assert [row[:7] for row in rows] == [
        ["Magnitude", "alone", "18", "0.01", *["3.0"] * 3],
        ["Magnitude", "multitask", "9", "0.01", *["3.0"] * 3],
    ]


def test_page_lists_every_run_and_what_is_left_out(page: PageReader, runs: Path) -> None:
    heading, *rows = page.tables["runs"]
    assert len(rows) == 27
    cells = dict(
        zip(heading, next(row for row in rows if "easy-hard-400000-2" in row[0]), strict=True)
    )
    assert cells["tasks"] == "easy, hard"
    assert (cells["validation"], cells["test"]) == ("0.8900", "0.7900")
    assert cells["command"] == "copypython train.py 'task=[easy,hard]' seed=2"
    _, damaged, stopped = page.tables["skipped"]
    assert stopped == [str(runs / "stopped"), "unfinished: it has no results.json"]
    assert damaged[0] == str(runs / "damaged")
    assert "is not JSON" in damaged[1]


def test_page_says_how_far_to_trust_it(page: PageReader) -> None:
    words = " ".join(page.words)
    assert "95 % of 10,000 resamples of seeds" in words
    assert "easy-hard-200000-0 has no predictions.safetensors" in words
    assert "holds the true mean in 75 % of cases" in words
    assert "from the lowest to the highest seed" in words
    assert "kept parameters over those of the dense model" in words


def test_masks_are_compared_and_others_listed(page: PageReader) -> None:
    _, pair = page.tables["masks"]
    chance = 0.25 * 0.25 / (0.5 - 0.25 * 0.25)
    expected = ["1", "1.000", f"{chance:.3f}", f"{1 / chance:.2f}"]
    assert pair[2:] == ["easy", "hard", "same seed", *expected]
    assert len(page.tables["masks-skipped"]) == 1 + 25


def test_page_is_whole_and_alone(page: PageReader, report: Path) -> None:
    assert len(set(page.ids)) == len(page.ids)
    assert all(one.startswith(("#", "data:")) for one in page.addresses)
    assert {one[1:] for one in page.addresses if one[0] == "#"} <= set(page.ids)
    text = (report / "index.html").read_text()
    assert "@import" not in text
    assert "url(" not in text.replace("url(#", "")
    figures = {one.stem for one in report.glob("*.svg")}
    assert {"pruners", "pruners-0-easy", "multitask", "allocation-0", "kept", "masks-0"} <= figures
    assert {one.stem for one in report.glob("*.png")} == figures
    assert len(page.images) == len(figures)
    assert all(page.images)
    assert "Magnitude, together from 0.565 at 100k to 0.740 at 400k" in page.images[0]


def test_same_runs_give_the_same_bytes(report: Path, runs: Path, tmp_path: Path) -> None:
    main(["report", str(runs), "--out", str(tmp_path / "again"), "--masks"])
    for file in report.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_csv_has_a_line_a_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(runs), "--format", "csv"])
    printed = capsys.readouterr()
    rows = list(csv.DictReader(printed.out.splitlines()))
    assert len(rows) == 27
    (row,) = (
        one for one in rows if one["run"].endswith("hard-200000-1") and one["tasks"] == "hard"
    )
    assert (row["kept"], row["seed"], row["validation/easy"]) == ("200000", "1", "")
    assert float(row["validation/hard"]) == pytest.approx(0.62)
    assert float(row["test/hard"]) == pytest.approx(0.52)
    assert row["command"] == "python train.py 'task=[hard]' seed=1"
    assert f"Skipped: {runs / 'stopped'}: unfinished" in printed.err


def test_markdown_has_the_tables(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(runs), "--format", "markdown"])
    printed = capsys.readouterr().out
    assert "## Multitask against the best ensemble" in printed
    assert "| +0.070 [+0.050 to +0.100] |" in printed
    assert "![" not in printed


def test_questions_without_data_do_not_appear(tmp_path: Path) -> None:
    content = results({"easy": 0.5}, kept=100)
    content["density"] = {}
    write(tmp_path / "run", content)
    main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "report")])
    page = read_page(tmp_path / "report" / "index.html")
    expected = {"compared", "tasks", "pruners", "ledger", "wall-time", "runs"}
    assert set(page.tables) == expected


def test_runs_that_cannot_be_compared_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = results({"easy": 0.5}, kept=10)
    content["config"]["encoder"]["path"] = "bert"
    other = write(tmp_path / "other", content)
    said = refusal(capsys, runs, other, "--out", tmp_path / "report")
    assert (
        f"encoder.path, but it is 'minilm' in {runs / 'easy-100000-0'} and 'bert' in {other}"
        in said
    )
    assert not (tmp_path / "report").exists()


def test_wrong_input_is_one_sentence(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "`format` must be one of html" in refusal(capsys, runs, "--format", "pdf")
    assert "is not a directory" in refusal(
        capsys, tmp_path / "nowhere", "--out", tmp_path / "report"
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    assert "holds thesis.tex" in refusal(capsys, runs, "--out", tmp_path / "mine")
    (tmp_path / "runs" / "stopped" / ".hydra").mkdir(parents=True)
    assert "No run is finished: " in refusal(capsys, tmp_path / "runs")


def test_names_are_escaped(tmp_path: Path) -> None:
    content = results({"<b>&task": 0.5}, kept=100)
    write(tmp_path / 'run "<i>"', content, "note=</code><script>alert(1)</script>")
    main(["report", str(tmp_path), "--out", str(tmp_path / "report")])
    page = read_page(tmp_path / "report" / "index.html")
    assert page.tables["tasks"][1][0] == "<b>&task"
    assert page.tables["runs"][1][0].endswith('run "<i>"')
    assert "<script>alert" not in (tmp_path / "report" / "index.html").read_text()
