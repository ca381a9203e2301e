"""Scores on resamples of the examples, from the predictions in the folders of runs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from run_folders import results, write, write_answers, write_decided
from safetensors.torch import load_file, save_file
from scipy import stats
from sklearn.metrics import f1_score

from multiprune.report import resampled
from multiprune.report.candidates import Candidate
from multiprune.report.compare import MEAN, Difference, Numbers
from multiprune.report.methods import check_comparable
from multiprune.report.resampled import DRAWS, ResampledScores
from multiprune.report.scores import Scores
from multiprune.runs.folder import RESULTS
from multiprune.runs.frame import FinishedRun, read_run
from multiprune.runs.predictions import FILE, Answers, read_predictions, write_predictions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def first(count: int, of: int = 100) -> list[bool]:
    """The first so many examples are right."""
    return [index < count for index in range(of)]


def answered(
    folder: Path, seed: int = 0, *, score: float | None = None, **right: Any
) -> FinishedRun:
    """Write and read a run that got these examples right, or is said to have another score."""
    scores = {task: float(np.mean(one)) if score is None else score for task, one in right.items()}
    run = write(folder, results(scores, kept=10, seed=seed, test=scores))
    write_answers(run, right)
    return read_run(run)


def candidate(*runs: FinishedRun) -> Candidate:
    return Candidate(10, dict.fromkeys(runs[0].tasks, runs))


def difference(ours: Sequence[FinishedRun], theirs: Sequence[FinishedRun]) -> Difference:
    sides = candidate(*ours), candidate(*theirs)
    (found,) = Scores([*ours, *theirs]).differences([sides], "test")
    return found[MEAN]


def scores_of(run: FinishedRun, task: str, split: str = "test") -> Numbers:
    """Return the scores of a run on each resample."""
    return ResampledScores([candidate(run)])(str(run.path), task, split)[0]


def test_one_seed_has_the_interval_of_its_examples(tmp_path: Path) -> None:
    ours = answered(tmp_path / "ours", easy=first(80))
    theirs = answered(tmp_path / "theirs", easy=first(60))
    found = difference([ours], [theirs])
    assert (found.examples, found.reason) == (True, None)
    assert found.mean == pytest.approx(0.2)
    # Of 100 resampled examples, those that one side has right alone are binomial.
    expected = stats.binom(100, 0.2).ppf([0.025, 0.975]) / 100
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.011)


def test_examples_that_both_sides_answer_alike_add_no_spread(tmp_path: Path) -> None:
    found = difference(
        [answered(tmp_path / "ours", easy=first(50), hard=first(9, of=10))],
        [answered(tmp_path / "theirs", easy=first(50), hard=first(9, of=10))],
    )
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_tasks_are_resampled_each_on_its_own(tmp_path: Path) -> None:
    alone: dict[str, Any] = {"easy": first(80)}
    both: dict[str, Any] = {"easy": first(80), "hard": first(80)}
    none: dict[str, Any] = {"easy": first(0), "hard": first(0)}
    one = difference([answered(tmp_path / "a", **alone)], [answered(tmp_path / "b", easy=first(0))])
    two = difference([answered(tmp_path / "c", **both)], [answered(tmp_path / "d", **none)])
    # The mean of two independent scores varies less by the square root of two.
    assert _width(one) / _width(two) == pytest.approx(2**0.5, rel=0.1)


def test_seeds_and_examples_spread_further_than_either(tmp_path: Path) -> None:
    ours = [answered(tmp_path / f"ours{seed}", seed, easy=first(70 + 10 * seed)) for seed in (0, 1)]
    theirs = [answered(tmp_path / f"theirs{seed}", seed, easy=first(50)) for seed in (0, 1)]
    both = difference(ours, theirs)
    (one, other) = (difference([a], [b]) for a, b in zip(ours, theirs, strict=True))
    assert both.seeds == (0, 1)
    assert both.mean == pytest.approx(0.25)
    assert both.low is not None
    assert both.high is not None
    # Seeds alone go from 0.2 to 0.3.
    assert both.low < 0.2
    assert both.high > 0.3
    assert _width(both) > max(_width(one), _width(other))


def _width(found: Difference) -> float:
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


def test_answers_to_one_example_are_drawn_together(tmp_path: Path) -> None:
    # 20 sentences of 10 words each, of which all are right or none.
    predictions = torch.tensor([1] * 100 + [0] * 100)
    examples = torch.arange(20).repeat_interleave(10)
    answers = Answers(predictions, torch.ones(200, dtype=torch.long), examples)
    run = answered(tmp_path / "run", words=first(100, of=200))
    apart = scores_of(run, "words", "test")
    write_decided(run.path, {"words": answers})
    together = scores_of(run, "words", "test")
    assert np.std(apart) == pytest.approx((0.25 / 200) ** 0.5, rel=0.1)
    assert np.std(together) == pytest.approx((0.25 / 20) ** 0.5, rel=0.1)


def reason(row: FinishedRun, split: str = "test") -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        scores_of(row, "easy", split)
    return str(caught.value)


def test_what_cannot_be_resampled_says_why(tmp_path: Path) -> None:
    row = answered(tmp_path / "run", easy=first(50))
    assert reason(row, "validation") == f"{row.path / FILE} has no answers to validation/easy"
    whole = (row.path / FILE).read_bytes()
    (row.path / FILE).write_bytes(whole[:-1])
    assert "is not a complete safetensors file" in reason(row)
    (row.path / FILE).unlink()
    assert reason(row) == f"{row.path} has no {FILE}"
    unknown = Answers(torch.ones(2), torch.ones(2), torch.tensor([-1, -1]))
    write_predictions(row.path, {"test": {"easy": unknown}})
    assert "does not say which example an answer to easy is of" in reason(row)
    other = answered(tmp_path / "other", easy=first(50), score=0.5002)
    assert "predictions do not give the score that results.json has: 0.5000" in reason(other)
    assert "0.5002 for test/easy in" in reason(other)
    close = answered(tmp_path / "close", easy=first(50), score=0.50009)
    drawn = scores_of(close, "easy", "test")
    assert len(drawn) == DRAWS


@pytest.mark.parametrize("name", ["BinaryAUROC of torchmetrics", "Mine"])
def test_metrics_of_others_are_not_resampled(name: str, tmp_path: Path) -> None:
    row = answered(tmp_path / "run", easy=first(50))
    answers = read_predictions(row.path)["test"]["easy"]
    said = f"must be one of multiprune.metrics, but that of easy is {name}"
    write_predictions(row.path, {"test": {"easy": answers_alone(answers)}})
    assert said in reason(measured_by(row, {"name": name}))


def test_settings_that_the_metric_does_not_have_are_one_sentence(tmp_path: Path) -> None:
    row = answered(tmp_path / "run", easy=first(50))
    wrong = measured_by(row, {"name": "accuracy", "k": 3})
    assert reason(wrong).startswith("the metric 'accuracy' has no settings {'k': 3}")


def measured_by(row: FinishedRun, measure: dict[str, Any]) -> FinishedRun:
    easy = replace(row.record.tasks["easy"], metrics={"accuracy": measure})
    return replace(row, record=replace(row.record, tasks={"easy": easy}))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"terms": torch.tensor([[torch.nan, 1]] * 10)}, "predictions do not give the score"),
        ({"terms": torch.ones(10, 3)}, "holds of test/easy does not fit its metric: "),
        ({"terms": torch.ones(9, 2)}, "9 terms are of 10 answers"),
        ({"places": torch.arange(1, 11)}, "there are numbers of more than 10 examples"),
        ({"units": torch.full((10,), 2**40)}, "there are numbers of more than 10 examples"),
        ({"languages": torch.full((10,), -1)}, "there are numbers of more than 10 examples"),
        (
            {"draws": torch.zeros(10), "places": None, "terms": None},
            "1000 draws of it are needed, but 10 are",
        ),
    ],
)
def test_terms_that_cannot_be_are_one_sentence(
    changed: dict[str, torch.Tensor | None], said: str, tmp_path: Path
) -> None:
    row = answered(tmp_path / "run", easy=first(5, of=10))
    file = row.path / FILE
    named = {f"test/easy/{name}": one for name, one in changed.items()}
    tensors = load_file(file) | named
    save_file({name: one for name, one in tensors.items() if one is not None}, file)
    assert said in reason(row)
    assert "\n" not in reason(row)


def answers_alone(answers: Answers) -> Answers:
    return Answers(answers.predictions, answers.labels, answers.examples)


def earlier(row: FinishedRun, path: str, name: str = "accuracy", **changed: Any) -> FinishedRun:
    """Return a run as earlier versions recorded it: paths of functions, and answers alone."""
    answers = read_predictions(row.path)["test"]["easy"]
    write_predictions(row.path, {"test": {"easy": answers_alone(answers)}})
    content = json.loads((row.path / RESULTS).read_text())
    for key in ("schema", "method", "settings", "tasks"):
        del content[key]
    content["budget"]["of"] = content["budget"].pop("scope")
    definition = {"_target_": "hydra.utils.get_method", "path": path}
    content["config"]["task"]["easy"] |= {"metrics": {name: definition}, **changed}
    content["test"]["easy"] = {name: row.score("easy", "test")}
    content["validation"]["easy"] = content["test"]["easy"]
    (row.path / RESULTS).write_text(json.dumps(content))
    return read_run(row.path)


def test_runs_of_earlier_versions_are_compared_with_those_of_today(tmp_path: Path) -> None:
    ours = answered(tmp_path / "ours", easy=first(80))
    theirs = answered(tmp_path / "theirs", easy=first(60))
    expected = difference([ours], [theirs])
    before = earlier(theirs, "multiprune.tasks.metrics.accuracy")
    check_comparable([ours, before])
    assert expected.examples
    assert difference([ours], [before]) == expected


def test_earlier_answers_of_sets_and_numbers_are_resampled(tmp_path: Path) -> None:
    labels = torch.arange(50) % 7
    numbers = Answers((labels + torch.arange(50) % 3).float(), labels.float(), torch.arange(50))
    bits = torch.stack([labels % 2, labels // 2 % 2, labels // 4], 1)
    sets = Answers(bits[torch.arange(50) // 2], bits, torch.arange(50))
    cases = {
        "spearman": (numbers, stats.spearmanr(numbers.predictions, labels).statistic),
        "macro_f1": (sets, f1_score(bits, sets.predictions, average="macro")),
        "micro_f1": (sets, f1_score(bits, sets.predictions, average="micro")),
    }
    for name, (answers, score) in cases.items():
        row = answered(tmp_path / name, score=float(score), easy=first(25, of=50))
        row = earlier(row, f"multiprune.tasks.metrics.{name}", name)
        write_predictions(row.path, {"test": {"easy": answers}})
        drawn = scores_of(row, "easy", "test")
        assert drawn.mean() == pytest.approx(float(score), abs=0.05), name
        assert drawn.std() > 0.005


def test_a_path_says_nothing_of_what_a_metric_is(tmp_path: Path) -> None:
    row = answered(tmp_path / "run", easy=first(50))
    expected = scores_of(row, "easy", "test")
    mine = earlier(row, "mine.whatever")
    found = scores_of(mine, "easy", "test")
    assert np.array_equal(found, expected)
    own = earlier(answered(tmp_path / "own", easy=first(50)), "multiprune.tasks.metrics.f1", "own")
    assert "must be one of multiprune.metrics, but that of easy is own" in reason(own)


def test_earlier_runs_that_do_not_tell_languages_apart_are_not_resampled(tmp_path: Path) -> None:
    row = answered(tmp_path / "run", easy=first(50))
    said = reason(earlier(row, "multiprune.tasks.metrics.accuracy", languages=["en", "de"]))
    assert said == f"{row.path / FILE} does not say which answer to easy is in which language"


def test_runs_that_were_not_asked_the_same_have_an_interval_over_seeds(tmp_path: Path) -> None:
    ours = [answered(tmp_path / f"ours{seed}", seed, easy=first(80 + seed)) for seed in (0, 1)]
    theirs = [answered(tmp_path / f"theirs{seed}", seed, easy=first(50)) for seed in (0, 1)]
    answers = read_predictions(theirs[1].path)["test"]["easy"]
    for name, changed in (
        (
            "labels",
            replace(answers, predictions=1 - answers.predictions, labels=answers.labels * 0),
        ),
        ("examples", replace(answers, examples=answers.examples + 1)),
    ):
        write_decided(theirs[1].path, {"easy": changed})
        found = difference(ours, theirs)
        assert not found.examples, name
        assert found.reason == (
            f"test examples or labels of easy differ in {ours[0].path} and {theirs[1].path}"
        )
        assert (found.low, found.high) == pytest.approx((0.30, 0.31))


def test_predictions_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = answered(tmp_path / "run", easy=first(50), hard=first(20))
    read: list[Path] = []

    def counted(folder: Path) -> Any:
        read.append(folder)
        return read_predictions(folder)

    monkeypatch.setattr(resampled, "read_predictions", counted)
    draws = ResampledScores([candidate(row), candidate(row)])
    for task in ("easy", "hard", "easy"):
        draws(str(row.path), task, "test")
    assert read == [row.path]
