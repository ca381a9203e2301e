"""``multiprune evaluate``: the scores of training, of labelled rows in a file."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import pytest
import torch
from application import SMALL, results_of, run_in
from pyarrow import parquet
from scipy.stats import pearsonr, spearmanr
from seqeval.metrics import f1_score as span_f1
from sklearn.metrics import f1_score, log_loss
from tiny_text_to_text import PAIRS, SENTENCES, tiny_t5
from tiny_text_to_text import TASKS as WORDED

import multiprune
from multiprune.cli import main
from multiprune.cli.evaluation_table import print_evaluations
from multiprune.data.source import FileSource
from multiprune.evaluate import Evaluation, EvaluationRequest, evaluate
from multiprune.export.checkpoint import save_model
from multiprune.export.loading import load_sizes
from multiprune.metrics import Accuracy, ExactMatch, MicroF1, SpanF1
from multiprune.models.factory import multitask_model, tasks_for
from multiprune.models.from_scratch import character_tokenizer, from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.tasks import synthetic
from multiprune.tasks.answer_text import squad
from multiprune.tasks.classification import Classification, MultiLabel
from multiprune.tasks.question_answering import QuestionAnswering
from multiprune.tasks.spans import SpanTagging

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from multiprune.tasks.task import Task

    Output = pytest.CaptureFixture[str]

TASKS = ("agreement", "entailment", "quantity", "roles")
# Rows of validation data have the seed after that of training data.
ROWS = {name: getattr(synthetic, name)(16, 1) for name in TASKS}
LABELS = {"agreement": ["disagrees", "agrees"], "roles": ["other", "agent", "action", "patient"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    run_in(folder, *SMALL, "pruner=magnitude", "budget.fraction=0.5", "data.cap.each=40")
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    out = run.parent / "exported"
    main(["export", str(run), "--out", str(out), "--storage", "bitmask"])
    return out


def written(file: Path, rows: Mapping[str, list[Any]]) -> Path:
    """Write rows as the ending of a file says."""
    lines = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
    if file.suffix == ".parquet":
        parquet.write_table(pyarrow.table(dict(rows)), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(f"{json.dumps(row)}\n" for row in lines))
    else:
        with file.open("w", newline="") as stream:
            delimiter = "\t" if file.suffix == ".tsv" else ","
            writer = csv.DictWriter(stream, [*rows], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(lines)
    return file


def evaluated(capsys: Output, *arguments: object) -> dict[str, Any]:
    """Return what the command prints as JSON."""
    capsys.readouterr()
    main(["evaluate", *map(str, arguments), "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def scores(capsys: Output, *arguments: object) -> dict[str, Any]:
    return {name: one["scores"] for name, one in evaluated(capsys, *arguments).items()}


@pytest.mark.parametrize(
    ("task", "ending"),
    [
        *(("agreement", one) for one in ("csv", "tsv", "jsonl", "parquet")),
        *((one, "parquet") for one in TASKS[1:]),
        ("roles", "jsonl"),
    ],
)
def test_scores_of_a_run_are_those_of_training(
    run: Path, tmp_path: Path, capsys: Output, task: str, ending: str
) -> None:
    file = written(tmp_path / f"rows.{ending}", ROWS[task])
    found = evaluated(capsys, run, "--task", task, "--data", file, "--batch-size", 5)
    # Trackers, and with them the record, have numbers in single precision.
    assert found[task].pop("scores") == pytest.approx(
        results_of(run)["validation"][task], rel=1e-6, abs=2e-7
    )
    assert found == {task: {"examples": 16, "unlabelled": 0, "wordless": 0, "truncated": 0}}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_own_data_of_a_run_score_as_they_did(run: Path, capsys: Output, split: str) -> None:
    found = scores(capsys, run, "--split", split)
    assert found.keys() == {*TASKS}
    for task, expected in results_of(run)[split].items():
        assert found[task] == pytest.approx(expected, rel=1e-6)
    assert scores(capsys, run, "--split", split, "--task", "roles", "quantity").keys() == {
        "roles",
        "quantity",
    }


def test_exported_model_has_usual_metrics_and_those_that_are_named(
    run: Path, exported: Path, tmp_path: Path, capsys: Output
) -> None:
    model = multiprune.load(exported)
    texts, labels = ROWS["agreement"]["sentence"], ROWS["agreement"]["label"]
    file = written(tmp_path / "agreement.csv", ROWS["agreement"])
    given = (exported, "--task", "agreement", "--data", file)
    predicted = model.predict("agreement", texts)
    classes = [LABELS["agreement"].index(one.label) for one in predicted]
    right = sum(one == other for one, other in zip(classes, labels, strict=True))
    assert scores(capsys, *given)["agreement"] == pytest.approx(
        {"accuracy": right / 16, "macro_f1": f1_score(labels, classes, average="macro")}
    )
    named = scores(capsys, *given, "--metric", "log_loss,f1")["agreement"]
    probabilities = np.array([[*one.probabilities.values()] for one in predicted])
    # In single precision, they do not quite sum to one.
    probabilities /= probabilities.sum(1, keepdims=True)
    expected = {"log_loss": log_loss(labels, probabilities), "f1": f1_score(labels, classes)}
    assert list(named) == ["log_loss", "f1"]
    assert named == pytest.approx(expected, rel=1e-5)
    # Those of the run, when it is named.
    of_run = scores(capsys, *given, "--data-of", run)["agreement"]
    assert of_run == pytest.approx(results_of(run)["validation"]["agreement"], rel=1e-6)


def test_exported_numbers_and_words_are_scored_as_they_are_predicted(
    exported: Path, tmp_path: Path, capsys: Output
) -> None:
    model = multiprune.load(exported)
    file = written(tmp_path / "quantity.parquet", ROWS["quantity"])
    found = scores(capsys, exported, "--task", "quantity", "--data", file)["quantity"]
    values = [one.value for one in model.predict("quantity", ROWS["quantity"]["sentence"])]
    labels = ROWS["quantity"]["label"]
    assert found == pytest.approx(
        {"pearson": pearsonr(values, labels)[0], "spearman": spearmanr(values, labels)[0]}, rel=1e-4
    )
    file = written(tmp_path / "roles.jsonl", ROWS["roles"])
    found = scores(capsys, exported, "--task", "roles", "--data", file)["roles"]
    tags = [tag for one in model.predict("roles", ROWS["roles"]["tokens"]) for tag in one.tags]
    of_words = [tag for row in ROWS["roles"]["tags"] for tag in row]
    names = [tag if isinstance(tag, str) else LABELS["roles"][tag] for tag in of_words]
    assert found["macro_f1"] == pytest.approx(f1_score(names, tags, average="macro"))


def test_columns_may_have_other_names(run: Path, tmp_path: Path, capsys: Output) -> None:
    rows = ROWS["entailment"]
    others = {"b": rows["sentence2"], "a": rows["sentence1"], "gold": rows["label"]}
    # What the task would read, and must not: other pairs.
    unused = {**rows, "sentence1": [*reversed(rows["sentence1"])]}
    file = written(tmp_path / "rows.csv", others | unused)
    given = (run, "--task", "entailment", "--data", file, "--metric", "log_loss")
    plain = written(tmp_path / "plain.csv", rows)
    expected = scores(capsys, *given[:4], plain, *given[5:])
    assert scores(capsys, *given, "--text", "a", "b", "--label", "gold") == expected
    assert scores(capsys, *given, "--text", "b", "a", "--label", "gold") != expected
    assert scores(capsys, *given) != expected


def test_rows_without_a_label_are_counted_and_left_out(
    run: Path, exported: Path, tmp_path: Path, capsys: Output
) -> None:
    rows = ROWS["agreement"]
    more = {"sentence": [*rows["sentence"], "a", "b"], "label": [*rows["label"], -1, -1]}
    file = written(tmp_path / "rows.parquet", more)
    for folder in (run, exported):
        found = evaluated(capsys, folder, "--task", "agreement", "--data", file)["agreement"]
        assert (found["examples"], found["unlabelled"]) == (16, 2)
    assert found["scores"]["accuracy"] == pytest.approx(
        results_of(run)["validation"]["agreement"]["accuracy"]
    )
    capsys.readouterr()
    main(["evaluate", str(run), "--task", "agreement", "--data", str(file)])
    assert "agreement: 16 examples, 2 without a label, skipped\n" in capsys.readouterr().out
    none = written(tmp_path / "none.parquet", {"sentence": ["a"], "label": [-1]})
    assert "No row of" in refusal(capsys, run, "--task", "agreement", "--data", none)


def test_table_and_file_have_the_same_numbers(run: Path, tmp_path: Path, capsys: Output) -> None:
    file, out = written(tmp_path / "rows.csv", ROWS["agreement"]), tmp_path / "scores.json"
    capsys.readouterr()
    main(["evaluate", str(run), "--task", "agreement", "--data", str(file), "--json", str(out)])
    said = capsys.readouterr().out
    accuracy = results_of(run)["validation"]["agreement"]["accuracy"]
    assert f"│ agreement │ accuracy │ {accuracy:.4f} │" in said
    assert said.endswith("agreement: 16 examples\n")
    assert json.loads(out.read_text())["agreement"]["scores"]["accuracy"] == pytest.approx(accuracy)


def test_names_of_tasks_are_text(capsys: Output) -> None:
    one = Evaluation(scores={"[b]f1": 0.5}, examples=1, unlabelled=0, wordless=0, truncated=2)
    print_evaluations({"\x1b[31m[red]x": one})
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "│ \\x1b[31m[red]x │ [b]f1  │ 0.5000 │" in said
    assert "\\x1b[31m[red]x: 1 examples, 2 truncated to the length of training\n" in said


def test_size_is_that_of_a_density(tmp_path: Path, capsys: Output) -> None:
    run_in(tmp_path / "run", *SMALL, "pruner=dynamic_sparsification", "budget.fraction=0.4")
    model = load_sizes(tmp_path / "run")
    for density in (1.0, 0.6):
        model.set_density(density)
        predicted: Any = model.predict("quantity", ROWS["quantity"]["sentence"])
        values = [one.value for one in predicted]
        given = (tmp_path / "run", "--task", "quantity", "--density", density)
        expected = pearsonr(values, ROWS["quantity"]["label"])[0]
        assert scores(capsys, *given)["quantity"]["pearson"] == pytest.approx(expected, rel=1e-4)


COMMON: dict[str, Any] = {"label": "gold", "source": FileSource(files={})}
KINDS: dict[str, Task] = {
    "sets": MultiLabel(
        text=["text"],
        labels=["x", "y", "z"],
        indicators=True,
        metrics={"micro_f1": MicroF1()},
        **COMMON,
    ),
    "spans": SpanTagging(
        text=["words"], labels=["O", "B-X", "I-X"], metrics={"f1": SpanF1()}, **COMMON
    ),
    "questions": QuestionAnswering(
        text=["question", "context"],
        label_start="start",
        normalize=squad,
        overlap=2,
        question_length=4,
        metrics={"exact": ExactMatch()},
        **COMMON,
    ),
    "integers": Classification(
        text=["text"], labels=[3, -1, 7], metrics={"accuracy": Accuracy()}, **COMMON
    ),
}


@pytest.fixture(scope="module")
def of_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    encoder = from_scratch(layers=1, hidden=16, heads=2, intermediate=12).model
    model = MultitaskModel(encoder, KINDS).eval()
    for head in model.heads.values():
        torch.nn.init.normal_(head.output.weight, std=3)  # type: ignore[arg-type, union-attr]
    folder = tmp_path_factory.mktemp("kinds") / "model"
    save_model(folder, model, character_tokenizer(), KINDS, max_length=16)
    return folder


TEXTS = ["the fox runs", "dog", "the red dog chased one cat and the fox runs by the pond", "a"]


def test_sets_and_integers_are_scored_as_they_are_predicted(
    of_kinds: Path, tmp_path: Path, capsys: Output
) -> None:
    model = multiprune.load(of_kinds)
    gold = [[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]]
    file = written(tmp_path / "sets.jsonl", {"text": TEXTS, "gold": gold})
    found = scores(capsys, of_kinds, "--task", "sets", "--data", file)["sets"]
    decided = [[int(name in one.labels) for name in "xyz"] for one in model.predict("sets", TEXTS)]
    for average in ("micro", "macro"):
        expected = f1_score(gold, decided, average=average, zero_division=0)
        assert found[f"{average}_f1"] == pytest.approx(expected)
    # Where -1 is a label it does not mark rows without one.
    file = written(tmp_path / "integers.csv", {"text": TEXTS, "gold": [3, -1, 7, -1]})
    one = evaluated(capsys, of_kinds, "--task", "integers", "--data", file)["integers"]
    labels = [int(one.label) for one in model.predict("integers", TEXTS)]
    right = sum(a == b for a, b in zip(labels, [3, -1, 7, -1], strict=True))
    assert (one["scores"]["accuracy"], one["examples"]) == (right / 4, 4)


def test_spans_are_scored_as_seqeval_does(of_kinds: Path, tmp_path: Path, capsys: Output) -> None:
    words = [text.split() for text in TEXTS]
    found = multiprune.load(of_kinds).predict("spans", words)
    tags = [[*one.tags] for one in found]
    # Some of what is predicted, and some that is not.
    gold = [[*row] for row in tags]
    gold[0] = ["B-X" if {*tags[0]} == {"O"} else "O"] * 3
    file = written(tmp_path / "rows.parquet", {"words": words, "gold": gold})
    one = scores(capsys, of_kinds, "--task", "spans", "--data", file)["spans"]
    assert one == {"span_f1": pytest.approx(span_f1(gold, tags))}
    assert 0 < one["span_f1"] < 1


def test_answers_are_scored_as_they_are_predicted(
    of_kinds: Path, tmp_path: Path, capsys: Output
) -> None:
    questions = ["who", "what runs", "who chased"]
    contexts = [TEXTS[0], TEXTS[2], TEXTS[2]]
    found = multiprune.load(of_kinds).predict("questions", questions, contexts)
    rows: dict[str, Any] = {
        "question": questions,
        "context": contexts,
        "gold": [["fox"], [found[1].text], [found[2].text]],
        "start": [[4], [found[1].start], [found[2].start]],
    }
    file = written(tmp_path / "rows.jsonl", rows)
    one = scores(capsys, of_kinds, "--task", "questions", "--data", file)["questions"]
    answers = zip(found, rows["gold"], strict=True)
    exact = [squad(answer.text, None) == squad(right, None) for answer, (right,) in answers]
    assert one["exact_match"] == pytest.approx(sum(exact) / 3)
    assert one["answer_f1"] >= one["exact_match"] > 0


def test_text_to_text_reads_renamed_columns_in_its_own_words(
    tmp_path: Path, capsys: Output
) -> None:
    encoder = tiny_t5()
    tasks = tasks_for(encoder, WORDED)
    save_model(tmp_path / "t5", multitask_model(encoder, tasks).eval(), encoder.tokenizer, tasks)
    texts, pairs = SENTENCES * 2, [*PAIRS, *reversed(PAIRS)]
    found = multiprune.load(tmp_path / "t5").predict("pairs", texts, pairs)
    probabilities = np.array([[*one.probabilities.values()] for one in found], np.float64)
    probabilities /= probabilities.sum(1, keepdims=True)
    rows: dict[str, Any] = {"b": pairs, "a": texts, "gold": ["no", "yes", "yes", "no"]}
    given = (tmp_path / "t5", "--task", "pairs", "--data", written(tmp_path / "rows.csv", rows))
    named = ("--text", "a", "b", "--label", "gold", "--metric", "log_loss")
    expected = log_loss(rows["gold"], probabilities)
    assert scores(capsys, *given, *named)["pairs"]["log_loss"] == pytest.approx(expected, rel=1e-4)


def refusal(capsys: Output, *arguments: object) -> str:
    """Return what is said to wrong input: one sentence."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", *map(str, arguments)])
    assert capsys.readouterr().out == ""
    said = str(caught.value)
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("RUN --data FILE", "`--task`: choose one of agreement, entailment, quantity, roles"),
        (
            "RUN --data FILE --task agreement roles",
            "`--task`: choose one of agreement, roles",
        ),
        ("RUN --data FILE --task other", "must be one of agreement, "),
        ("RUN --data nowhere.csv --task agreement", "nowhere.csv does not exist"),
        ("RUN --data FILE --task agreement --split test", "Pass either `--data` or `--split`"),
        ("RUN --data FILE --task roles", "must have a column 'tokens'"),
        ("RUN --data FILE --task agreement --text a b", "`--text` must name 1 column(s)"),
        ("RUN --data FILE --task agreement --text a", "must have a column 'a'"),
        (
            "RUN --data FILE --task agreement --label sentence",
            "'sentence' is named more than once",
        ),
        ("RUN --data FILE --task agreement --metric magic", "must be one of accuracy, f1, "),
        ("RUN --data FILE --task agreement --metric recall_at_k", "but is 'recall_at_k'"),
        ("RUN --data FILE --task agreement --metric pearson", "does not fit"),
        ("RUN --text a", "need `--data`"),
        ("RUN --batch-size 0", "`batch_size` must be a whole number"),
        ("RUN --mirror nowhere --density 0.5", "dynamic_sparsification"),
        ("OUT", "pass labelled rows with `--data`"),
        ("OUT --data FILE --task agreement --data-of OUT", "results.json"),
        ("OTHER --data-of RUN", "Unknown tasks sets, spans, questions, integers"),
    ],
)
def test_wrong_input_is_one_sentence(
    run: Path,
    exported: Path,
    of_kinds: Path,
    tmp_path: Path,
    capsys: Output,
    line: str,
    message: str,
) -> None:
    file = written(tmp_path / "rows.csv", ROWS["agreement"])
    places = {"RUN": run, "OUT": exported, "OTHER": of_kinds, "FILE": file}
    assert message in refusal(capsys, *(places.get(word, word) for word in line.split()))


def test_code_that_a_run_names_is_not_run_unless_it_is_allowed(
    run: Path, tmp_path: Path, capsys: Output
) -> None:
    theirs = shutil.copytree(run, tmp_path / "run")
    content = results_of(theirs)
    content["config"]["task"]["agreement"]["metrics"] = {"mine": {"_target_": "builtins.print"}}
    (theirs / "results.json").write_text(json.dumps(content))
    file = written(tmp_path / "rows.csv", ROWS["agreement"])
    given = (theirs, "--task", "agreement", "--data", file)
    assert "which is not imported" in refusal(capsys, *given)
    content["config"]["task"]["agreement"]["metrics"] = {
        "mine": {"_target_": "metric_of_my_own.Share"}
    }
    (theirs / "results.json").write_text(json.dumps(content))
    (tmp_path / "metric_of_my_own.py").write_text(OWN_METRIC)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        assert "which is not imported" in refusal(capsys, *given)
        found = scores(capsys, *given, "--allow-targets", "metric_of_my_own")
    assert found == {"agreement": {"mine": 16.0}}


OWN_METRIC = """
from dataclasses import dataclass
from multiprune.metrics.metric import Metric
from multiprune.metrics.predicted import Classes


@dataclass(frozen=True)
class Share(Metric):
    accepts = (Classes,)

    def __call__(self, outputs, labels):
        return float(len(labels))
"""


def test_request_needs_no_command(run: Path) -> None:
    found = evaluate(EvaluationRequest(folder=run, tasks=["roles"]))
    assert found["roles"].scores == pytest.approx(results_of(run)["validation"]["roles"], rel=1e-6)
