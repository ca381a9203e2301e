"""Runs of one language beside shared runs, whose differences are known by hand."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest
from run_folders import results, write

from multiprune.cli import main
from multiprune.report.findings.difference import MEAN
from multiprune.report.findings.overview import overview
from multiprune.report.records.frame import read_runs
from multiprune.report.sections.order import sections

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from multiprune.report.findings.by_language import ByLanguage
    from multiprune.report.findings.overview import Overview
    from multiprune.report.page.blocks import Section

#: Scores of the shared runs by seed, and of the runs of each language; of French one seed only.
SHARED = {0: {"de": 0.50, "en": 0.80, "fr": 0.40}, 1: {"de": 0.60, "en": 0.90, "fr": 0.50}}
ALONE = {0: {"de": 0.70, "en": 0.80, "fr": 0.10}, 1: {"de": 0.70, "en": 0.80}}
KEPT = 100_000


class Runs:
    """A folder of runs that grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        name: str,
        scores: Mapping[str, float],
        *,
        tasks: Sequence[str] = ("tags",),
        language: str | None = None,
        kept: int = KEPT,
        seed: int = 0,
        trained: Sequence[str] | None = None,
        **config: Any,
    ) -> None:
        mean = sum(scores.values()) / len(scores)
        examples = dict.fromkeys(tasks, 100 if language is None else 30)
        content = results(dict.fromkeys(tasks, mean), kept=kept, seed=seed, examples=examples)
        for task in tasks:
            by_language = {f"accuracy.{one}": value for one, value in scores.items()}
            content["validation"][task] |= by_language
            content["config"]["task"][task]["train_languages"] = trained
        if language is not None:
            content["config"]["data"]["language"] = language
        write(self.folder / name, content | {"config": content["config"] | config})

    def overview(self) -> Overview:
        return overview(read_runs(self.folder))

    def found(self) -> ByLanguage:
        found = self.overview().by_language
        assert found is not None
        return found

    def section(self) -> Section:
        (section,) = (one for one in sections(self.overview(), None) if one.name == "languages")
        return section


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    made = Runs(tmp_path / "runs")
    for seed, scores in SHARED.items():
        made.add(f"shared-{seed}", scores, seed=seed)
    for seed, scores in ALONE.items():
        for language, score in scores.items():
            made.add(f"{language}-{seed}", {language: score}, language=language, seed=seed)
    return made


def test_each_language_is_paired_by_seed(runs: Runs) -> None:
    found = {one.language: one for one in runs.found().pairs}
    assert [*found] == ["de", "en", "fr"]
    expected = {"de": (0.15, (0, 1)), "en": (-0.05, (0, 1)), "fr": (-0.3, (0,))}
    for language, (mean, seeds) in expected.items():
        difference = found[language].difference
        assert difference is not None
        assert difference.mean == pytest.approx(mean)
        assert difference.seeds == seeds
        assert found[language].reason is None
    german = found["de"].difference
    assert german is not None
    assert [german.low, german.high] == pytest.approx([0.1, 0.2])


def test_mean_is_over_languages_by_the_seeds_that_all_have(runs: Runs) -> None:
    (mean,) = runs.found().means
    assert mean.languages == ("de", "en", "fr")
    assert mean.difference.seeds == (0,)
    assert mean.together.mean == pytest.approx((0.5 + 0.8 + 0.4) / 3)
    assert mean.alone.mean == pytest.approx((0.7 + 0.8 + 0.1) / 3)
    assert mean.difference.mean == pytest.approx(-0.1 / 3)


def test_other_sections_are_of_shared_runs_alone(runs: Runs) -> None:
    found = runs.overview()
    (model,) = found.models
    assert [run.path.name for run in model.runs] == ["shared-0", "shared-1"]
    assert model.contender.by_seed("tags", found.score) == pytest.approx({0: 1.7 / 3, 1: 2 / 3})
    assert len(found.all_rows) == 7
    shown = {one.name: one for one in sections(found, None)}
    (table,) = (one for one in shown["frontier"].tables if one.name == "one-task")
    assert len(table.rows) == 1
    (table,) = (one for one in shown["runs"].tables if one.name == "runs")
    assert {row[2].text for row in table.rows} == {"tags", "tags in de", "tags in en", "tags in fr"}
    kinds = {row[1].text: row[2].text for row in shown["wall-time"].tables[0].rows}
    assert kinds == {"alone": "2", "one language": "5"}


def test_multitask_against_ensembles_is_not_touched_by_runs_of_one_language(runs: Runs) -> None:
    both = ("names", "tags")
    runs.add("both", SHARED[0], tasks=both, kept=2 * KEPT)
    runs.add("names", {"de": 0.9}, tasks=["names"])
    runs.add("names-de", {"de": 0.1}, tasks=["names"], language="de")
    found = runs.overview()
    (one,) = found.comparisons
    expected = sum(SHARED[0].values()) / 3 - (0.9 + sum(SHARED[0].values()) / 3) / 2
    assert one.differences["validation"][MEAN].mean == pytest.approx(expected)


def test_runs_of_other_size_method_or_tasks_are_not_paired_and_said_to_be(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.add("shared", SHARED[0])
    runs.add("larger", {"de": 0.9}, language="de", kept=2 * KEPT)
    runs.add("longer", {"en": 0.9}, language="en", trainer={"max_epochs": 9})
    runs.add("both", {"fr": 0.9}, language="fr", tasks=["tags", "names"])
    runs.add("unknown", {"sw": 0.9}, language="sw", kept=KEPT - KEPT // 200)
    runs.add("other-seed", {"de": 0.9}, language="de", seed=7)
    section = runs.section()
    (table,) = section.tables
    assert table.name == "languages-missing"
    reasons = {(row[0].text, row[3].text, row[2].text): row[4].text for row in table.rows}
    other = "there is no shared run of this method and these tasks"
    assert reasons == {
        ("tags", "de", "200,000"): "the shared runs have other sizes: 100,000",
        ("tags", "en", "100,000"): other,
        ("tags", "de", "100,000"): "the two have no seed in common",
        ("tags", "fr", "100,000"): other,
        ("names", "fr", "100,000"): other,
        ("tags", "sw", "99,500"): "the shared runs have no score in sw",
    }
    assert "Nothing to compare" in section.text[-1]


def test_shared_run_of_a_size_without_any_of_one_language_is_said_to_be(runs: Runs) -> None:
    runs.add("small", SHARED[0], kept=KEPT // 2)
    (table,) = (one for one in runs.section().tables if one.name == "languages-missing")
    ((_, _, kept, language, reason),) = table.rows
    assert (kept.text, language.text) == ("50,000", "all")
    assert reason.text == "there is no run of one language of this size"


def test_training_languages_of_shared_runs_are_named_where_not_all(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.add("shared", SHARED[0], trained=["en"])
    runs.add("de", {"de": 0.9}, language="de")
    text = " ".join(runs.section().text)
    assert "Shared runs were trained on tags in en only" in text


def test_runs_of_one_setting_have_no_such_section(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.add("de", {"de": 0.9}, language="de")
    found = runs.overview()
    assert found.by_language is None
    assert len(found.models) == 1
    assert "languages" not in {one.name for one in sections(found, None)}
    runs.add("fr", {"fr": 0.9}, language="fr")
    with pytest.raises(ValueError, match=r"same data\.language, but it is 'de' in .*'fr' in"):
        runs.overview()


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"encoder": {"_target_": "some", "path": "other"}}, "encoder"),
        ({"data": {"max_length": 64, "language": "de"}}, "data.max_length"),
    ],
)
def test_languages_of_another_encoder_or_length_are_refused(
    runs: Runs, config: dict[str, Any], key: str
) -> None:
    runs.add("wrong", {"de": 0.9}, language="de", seed=5, **config)
    with pytest.raises(ValueError, match=f"must have the same {key}"):
        runs.overview()


def test_report_is_written_in_every_format(runs: Runs, tmp_path: Path) -> None:
    for format in ("html", "markdown", "json", "csv"):
        out = tmp_path / format
        main(["report", str(runs.folder), "--out", str(out), "--format", format])
    page = (tmp_path / "html" / "index.html").read_text()
    assert "One mask for all languages, or one each?" in page
    markdown = (tmp_path / "markdown" / "report.md").read_text()
    row = "| tags | Magnitude | de | 100,000 | 100,000 | 2 | 0.550 (0.500 to 0.600) | "
    assert f"{row}0.700 (0.700 to 0.700) | +0.150 [+0.100 to +0.200] |" in markdown
    content = json.loads((tmp_path / "json" / "report.json").read_text())
    assert [one["language"] for one in content["languages"]["pairs"]] == ["de", "en", "fr"]
    assert content["languages"]["means"][0]["difference"]["mean"] == pytest.approx(-0.1 / 3)
    with (tmp_path / "csv" / "runs.csv").open(newline="") as file:
        told = [row["language"] for row in csv.DictReader(file)]
    assert sorted(told) == ["", "", "de", "de", "en", "en", "fr"]
