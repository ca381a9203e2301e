"""Runs of one language beside shared runs, whose differences are known by hand."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest
from run_folders import results, write

from multiprune.cli import main
from multiprune.report.compare import MEAN
from multiprune.report.questions import languages, multitask
from multiprune.report.questions import runs as runs_question
from multiprune.report.questions.languages import language_means, language_pairs
from multiprune.report.study import Study
from multiprune.runs.frame import read_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from multiprune.report.page.section import Section, Table
    from multiprune.report.questions.languages import LanguagePair

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

    def study(self) -> Study:
        return Study.from_runs(read_runs(self.folder))

    def pairs(self) -> list[LanguagePair]:
        return language_pairs(self.study())[0]

    def section(self) -> Section:
        section = languages.answer(self.study())
        assert section is not None
        return section

    def table(self, name: str) -> Table:
        (table,) = (one for one in self.section().tables if one.name == name)
        return table


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
    found = {one.language: one for one in runs.pairs()}
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
    (mean,) = language_means(runs.pairs())
    assert mean.languages == ["de", "en", "fr"]
    assert mean.difference.seeds == (0,)
    assert mean.shared.mean == pytest.approx((0.5 + 0.8 + 0.4) / 3)
    assert mean.own.mean == pytest.approx((0.7 + 0.8 + 0.1) / 3)
    assert mean.difference.mean == pytest.approx(-0.1 / 3)


def test_other_sections_are_of_shared_runs_alone(runs: Runs) -> None:
    study = runs.study()
    (model,) = study.models
    assert [run.path.name for run in model.all_runs] == ["shared-0", "shared-1"]
    assert list(study.by_seed(model).values()) == pytest.approx([1.7 / 3, 2 / 3])
    assert len(study.all_runs) == 7
    wall_time, table = runs_question.answer(study).tables
    assert set(table.frame.tasks) == {"tags", "tags in de", "tags in en", "tags in fr"}
    kinds = dict(zip(wall_time.frame.models, wall_time.frame.runs, strict=True))
    assert kinds == {"alone": 2, "one language": 5}


def test_multitask_against_ensembles_is_not_touched_by_runs_of_one_language(runs: Runs) -> None:
    both = ("names", "tags")
    runs.add("both", SHARED[0], tasks=both, kept=2 * KEPT)
    runs.add("names", {"de": 0.9}, tasks=["names"])
    runs.add("names-de", {"de": 0.1}, tasks=["names"], language="de")
    (one,) = multitask.budgeted(runs.study())
    expected = sum(SHARED[0].values()) / 3 - (0.9 + sum(SHARED[0].values()) / 3) / 2
    assert one.differences[MEAN].mean == pytest.approx(expected)


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
    rows = table.frame.itertuples(index=False, name=None)
    reasons = {(task, language, kept): reason for task, _, kept, language, reason in rows}
    other = "there is no shared run of this method and these tasks"
    assert reasons == {
        ("tags", "de", 200_000): "the shared runs have other sizes: 100,000",
        ("tags", "en", 100_000): other,
        ("tags", "de", 100_000): "the two have no seed in common",
        ("tags", "fr", 100_000): other,
        ("names", "fr", 100_000): other,
        ("tags", "sw", 99_500): "the shared runs have no score in sw",
    }
    assert section.text[-1] == "No two of these runs are a pair."


def test_shared_run_of_a_size_without_any_of_one_language_is_said_to_be(runs: Runs) -> None:
    runs.add("small", SHARED[0], kept=KEPT // 2)
    rows = runs.table("languages-missing").frame.itertuples(index=False, name=None)
    ((_, _, kept, language, reason),) = rows
    assert (kept, language) == (50_000, "all")
    assert reason == "there is no run of one language of this size"


def test_training_languages_of_shared_runs_are_named_where_not_all(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.add("shared", SHARED[0], trained=["en"])
    runs.add("de", {"de": 0.9}, language="de")
    text = " ".join(runs.section().text)
    assert "Shared runs were trained on tags in en only" in text


def test_runs_of_one_setting_have_no_such_section(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.add("de", {"de": 0.9}, language="de")
    study = runs.study()
    assert len(study.models) == 1
    assert languages.answer(study) is None
    runs.add("fr", {"fr": 0.9}, language="fr")
    with pytest.raises(ValueError, match=r"same data\.language, but it is 'de' in .*'fr' in"):
        runs.study()


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
        runs.section()


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
    tables = content["sections"]["languages"]["tables"]
    assert [one["language"] for one in tables["languages"]] == ["de", "en", "fr"]
    (mean,) = tables["languages-mean"]
    assert mean["per language - shared"]["mean"] == pytest.approx(-0.1 / 3)
    with (tmp_path / "csv" / "runs.csv").open(newline="") as file:
        told = [row["tasks"] for row in csv.DictReader(file)]
    languages_told = ["tags in de"] * 2 + ["tags in en"] * 2 + ["tags in fr"]
    assert sorted(told) == ["tags", "tags", *languages_told]
