"""Whole runs of tasks in several languages, on parquet files as a mirror of XTREME has them."""

from __future__ import annotations

import csv
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import pytest
import torch
from application import NARROW, QUICK, refused, results_of, run_in, run_interrupted
from pyarrow import parquet
from safetensors.torch import load_file

import multiprune
from multiprune.evaluate import EvaluationRequest, evaluate
from multiprune.export.convert import ExportSettings, export_model
from multiprune.metrics import AnswerF1, ExactMatch, SpanF1
from multiprune.report.candidates import Candidate
from multiprune.report.resampled import DRAWS, ResampledScores
from multiprune.runs.frame import read_run
from multiprune.runs.predictions import read_predictions
from multiprune.tasks.iob2 import spans_of
from multiprune.tasks.question_answering import QuestionAnswering
from multiprune.tasks.synthetic import WORDS

if TYPE_CHECKING:
    from pathlib import Path


TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
TASKS = {"xnli": "accuracy", "panx": "f1", "tydiqa": "f1"}


def pairs(languages: list[str], seed: int) -> dict[str, list[Any]]:
    rng = Random(seed)
    return {
        "premise": [" ".join(rng.choices(WORDS, k=6)) for _ in languages],
        "hypothesis": [" ".join(rng.choices(WORDS, k=3)) for _ in languages],
        "label": [rng.randrange(3) for _ in languages],
        # Each pair of validation and test is there in all languages, one after the other.
        "idx": [row // len(set(languages)) for row in range(len(languages))],
        "lang": languages,
    }


def names(languages: list[str], seed: int) -> dict[str, list[Any]]:
    rng = Random(seed)
    lengths = [rng.randint(1, 8) for _ in languages]
    return {
        "tokens": [rng.choices(WORDS, k=length) for length in lengths],
        "ner_tags": [rng.choices(TAGS, k=length) for length in lengths],
        "lang": languages,
    }


def questions(languages: list[str], seed: int) -> dict[str, list[Any]]:
    """Ask for words of contexts that take several windows."""
    rng = Random(seed)
    columns: dict[str, list[Any]] = {
        key: [] for key in ("question", "context", "answer_text", "answer_start")
    }
    for _ in languages:
        words = rng.choices(WORDS, k=40)
        first = rng.randrange(36)
        columns["context"].append(" ".join(words))
        columns["question"].append(" ".join(rng.choices(WORDS, k=4)))
        columns["answer_text"].append([" ".join(words[first : first + 2]), words[first]])
        columns["answer_start"].append([len(" ".join(["", *words[:first]]))] * 2)
    return columns | {"lang": languages}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mirror")
    for name, rows, others in (
        ("xnli", pairs, ["de", "zh"]),
        ("panx", names, ["de", "yo"]),
        ("tydiqa", questions, ["ko", "sw"]),
    ):
        sizes = {
            "train": ["en"] * 24 + others * 2,
            "validation": ["en", *others] * 4,
            "test": ["en", others[0]] * 3,
        }
        for seed, (split, languages) in enumerate(sizes.items()):
            folder = root / "multilingual" / name
            folder.mkdir(parents=True, exist_ok=True)
            parquet.write_table(pyarrow.table(rows(languages, seed)), folder / f"{split}.parquet")
    return root


def small(mirror: Path, *overrides: str) -> list[str]:
    return [
        "task=[xnli,panx,tydiqa]",
        f"data.mirror={mirror}",
        "data.max_length=32",
        *QUICK,
        *NARROW,
        "pruner=magnitude",
        "budget.fraction=0.5",
        *overrides,
    ]


@pytest.fixture(scope="module")
def finished(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    run_in(folder, *small(mirror))
    return folder


def column(mirror: Path, task: str, split: str, name: str) -> list[Any]:
    file = mirror / "multilingual" / task / f"{split}.parquet"
    values: list[Any] = parquet.read_table(file)[name].to_pylist()
    return values


def test_scores_are_means_over_languages_and_groups_that_a_split_has(finished: Path) -> None:
    results = results_of(finished)
    scores = results["validation"]["xnli"]
    by_language = {one: scores[f"accuracy.{one}"] for one in ("de", "en", "zh")}
    groups = {"not_english": ["de", "zh"], "indo_european": ["de", "en"], "other_families": ["zh"]}
    expected = by_language | {
        group: np.mean([by_language[one] for one in members]) for group, members in groups.items()
    }
    mean = {"accuracy": np.mean([*by_language.values()])}
    assert scores == pytest.approx(mean | {f"accuracy.{key}": one for key, one in expected.items()})
    assert set(results["test"]["xnli"]) == {
        *(f"accuracy.{one}" for one in ("de", "en", "not_english", "indo_european")),
        "accuracy",
    }
    means = [results["validation"][task][metric] for task, metric in TASKS.items()]
    assert results["score"] == pytest.approx(np.mean(means))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_run_is_evaluated_by_language_as_it_was(finished: Path, mirror: Path, split: str) -> None:
    expected = results_of(finished)[split]
    found = evaluate(EvaluationRequest(folder=finished, split=split))
    assert found.keys() == {*TASKS}
    for task, one in found.items():
        assert one.scores == pytest.approx(expected[task], rel=1e-6)
        file = mirror / "multilingual" / task / f"{split}.parquet"
        again = evaluate(EvaluationRequest(folder=finished, data=file, tasks=[task]))
        assert again == {task: one}


def test_report_reads_the_run_and_metrics_csv_has_every_language(finished: Path) -> None:
    row = read_run(finished)
    validation = results_of(finished)["validation"]
    assert dict(row.metrics) == TASKS
    for task, metric in TASKS.items():
        assert row.score(task, "validation") == validation[task][metric]
    with (finished / "metrics.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert {"val/tydiqa/exact_match.sw", "val/panx/f1.yo", "test/tydiqa/f1.ko"} <= {*header}


def test_only_languages_to_train_on_are_trained_on(finished: Path) -> None:
    assert results_of(finished)["examples"] == {"xnli": 24, "panx": 24, "tydiqa": 24}


def test_answers_by_example_give_the_scores_of_each_language(finished: Path, mirror: Path) -> None:
    results, answers = results_of(finished), read_predictions(finished)["validation"]
    languages = np.array(column(mirror, "tydiqa", "validation", "lang"))
    spans = answers["tydiqa"]
    assert spans.examples.tolist() == [*range(len(languages))]
    contexts = column(mirror, "tydiqa", "validation", "context")
    right = column(mirror, "tydiqa", "validation", "answer_text")
    # No word of theirs is an article, or has punctuation in it, but "the" and "a".
    words = [
        " ".join(one for one in context[start:end].split() if one not in ("the", "a", "an"))
        for context, (start, end) in zip(contexts, spans.predictions.tolist(), strict=True)
    ]
    right = [
        [" ".join(one for one in text.split() if one not in ("the", "a", "an")) for text in texts]
        for texts in right
    ]
    for language in ("en", "ko", "sw"):
        mine = np.flatnonzero(languages == language)
        pair = [words[one] for one in mine], [right[one] for one in mine]
        assert results["validation"]["tydiqa"][f"f1.{language}"] == pytest.approx(AnswerF1()(*pair))
        found = results["validation"]["tydiqa"][f"exact_match.{language}"]
        assert found == pytest.approx(ExactMatch()(*pair))

    tags, gold = answers["panx"], column(mirror, "panx", "validation", "ner_tags")
    languages = np.array(column(mirror, "panx", "validation", "lang"))
    by_example = [
        spans_of([TAGS[tag] for tag in tags.predictions[tags.examples == row].tolist()])
        for row in range(len(gold))
    ]
    for language in ("en", "de", "yo"):
        mine = np.flatnonzero(languages == language)
        expected = SpanF1()(
            [by_example[one] for one in mine], [spans_of(gold[one]) for one in mine]
        )
        assert results["validation"]["panx"][f"f1.{language}"] == pytest.approx(expected)


@pytest.mark.parametrize(("split", "languages"), [("validation", 3), ("test", 2)])
def test_every_score_is_drawn_over_examples(finished: Path, split: str, languages: int) -> None:
    row, answers = read_run(finished), read_predictions(finished)[split]
    draws = ResampledScores([Candidate(1, {task: [row] for task in TASKS})])
    for task in TASKS:
        terms = answers[task].terms
        assert terms is not None
        examples = [*range(len(terms.units))]
        together = languages if task == "xnli" else 1
        assert terms.units.tolist() == [one // together for one in examples]
        assert terms.languages.tolist() == [one % languages for one in examples]
        # Scores that the whole set does not have in results.json are refused.
        assert len(draws(str(row.path), task, split)[0]) == DRAWS


def test_shipped_model_answers_each_token_of_a_context(finished: Path, tmp_path: Path) -> None:
    model = multiprune.load(finished)
    logits = model.logits("tydiqa", ["how many"], ["the dog runs"])
    assert logits.shape == (1, 8, 2)
    assert model.logits("panx", [["dog", "runs"]]).shape == (1, 4, 7)
    export_model(finished / "model", tmp_path / "out", ExportSettings())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| tydiqa | span | question, context | scores of each token as the start" in card
    told: dict[str, Any] = {}
    code = card.split("```python\n")[1].split("```")[0]
    exec(code.replace('Path(".")', f"Path({str(tmp_path / 'out')!r})"), told)
    torch.testing.assert_close(told["logits"]("tydiqa", ["how many"], ["the dog runs"]), logits)


def test_training_on_all_languages_is_training_on_more(mirror: Path, tmp_path: Path) -> None:
    run_in(tmp_path / "run", *small(mirror, "task.xnli.train_languages=null", "data.cap.tydiqa=5"))
    assert results_of(tmp_path / "run")["examples"] == {"xnli": 28, "panx": 24, "tydiqa": 5}


def test_run_of_one_language_reads_and_scores_that_language_alone(
    mirror: Path, tmp_path: Path
) -> None:
    overrides = ["task=panx", "setting=per_language", "data.language=de"]
    run_in(tmp_path / "run", *(one for one in small(mirror) if one[:5] != "task="), *overrides)
    results = results_of(tmp_path / "run")
    languages = {split: column(mirror, "panx", split, "lang") for split in ("train", "validation")}
    assert results["examples"] == {"panx": languages["train"].count("de")}
    scores = results["validation"]["panx"]
    assert scores["f1"] == scores["f1.de"]
    assert {"f1.en", "f1.yo"} & {*scores} == set()

    gold = [
        tags
        for tags, one in zip(
            column(mirror, "panx", "validation", "ner_tags"), languages["validation"], strict=True
        )
        if one == "de"
    ]
    tags = read_predictions(tmp_path / "run")["validation"]["panx"]
    found = [
        spans_of([TAGS[tag] for tag in tags.predictions[tags.examples == row].tolist()])
        for row in range(len(gold))
    ]
    assert [int((tags.examples == row).sum()) for row in range(len(gold))] == [*map(len, gold)]
    assert scores["f1"] == pytest.approx(SpanF1()(found, [spans_of(one) for one in gold]))


def test_language_that_cannot_be_is_refused_in_a_sentence(mirror: Path, tmp_path: Path) -> None:
    def said(*overrides: str) -> str:
        return refused(tmp_path / "run", *small(mirror, "setting=per_language", *overrides))

    assert said() == "error: Missing values in the configuration: data.language."
    assert "of the languages of panx" in said("data.language=el")
    few = [*small(mirror), "task=xnli", "setting=per_language", "data.language=ar"]
    sentence = refused(tmp_path / "run", *few[1:])
    assert "has no train rows in ar" in sentence
    assert sentence.endswith("only in de, en, zh.")


def test_interrupted_run_ends_as_one_that_was_not_stopped(mirror: Path, tmp_path: Path) -> None:
    overrides = small(mirror, "checkpoint.every_n_steps=2")
    run_in(tmp_path / "straight", *overrides)
    run_interrupted(tmp_path / "stopped", *overrides, kind=QuestionAnswering, at=4)
    run_in(tmp_path / "stopped", *overrides)
    straight, resumed = (results_of(tmp_path / name) for name in ("straight", "stopped"))
    for key in ("mask_sha256", "validation", "test", "budget"):
        assert resumed[key] == straight[key]
    files = [tmp_path / name / "predictions.safetensors" for name in ("straight", "stopped")]
    first, second = map(load_file, files)
    assert first.keys() == second.keys()
    assert all(first[key].equal(second[key]) for key in first)


def test_model_learns_spans_from_a_teacher(finished: Path, mirror: Path, tmp_path: Path) -> None:
    taught = ["distillation=logits", f"distillation.teacher={finished}"]
    run_in(tmp_path / "student", *small(mirror, *taught))
    assert np.isfinite(results_of(tmp_path / "student")["score"])


def test_wrong_languages_are_refused_in_a_sentence(mirror: Path, tmp_path: Path) -> None:
    said = refused(tmp_path / "run", *small(mirror, "task.tydiqa.languages=[en,ko]"))
    assert "must be of the task's `languages` (en, ko), but has sw" in said
    fewer = ["task.tydiqa.languages=[en,ko]", "~task.tydiqa.language_groups"]
    said = refused(tmp_path / "run", *small(mirror, *fewer))
    assert "declares (en, ko), but holds sw" in said
    said = refused(tmp_path / "run", *small(mirror, "task.xnli.train_languages=[ar]"))
    assert "'xnli' has none in train" in said
