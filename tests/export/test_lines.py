"""Lines are predicted for as the texts in them are, some at a time, or refused by their number."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import torch
from masked_task import masked_task
from shipped_world import TASKS, TOKENIZER
from test_predict import assert_same

import multiprune
from multiprune.export.checkpoint import save_model
from multiprune.export.lines import predict_lines
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from multiprune.export.shipped import ShippedModel

TEXTS = ["the fox runs", "", "the red dog chased one cat", "a tab\tin it", "line\u2028separator"]
PAIRS = ["one fox", "the dog runs", "", "by the big old pond", "dog"]
SINGLE = ["classes", "number", "tags"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ShippedModel:
    torch.manual_seed(0)
    encoder = from_scratch(layers=1, hidden=16, heads=2, intermediate=12)
    tasks = TASKS | {"mlm": masked_task().read_by(encoder.tokenizer)}
    place = tmp_path_factory.mktemp("run") / "model"
    save_model(place, MultitaskModel(encoder.model, tasks).eval(), TOKENIZER, tasks)
    loaded: ShippedModel = multiprune.load(place)
    return loaded


def lines(texts: Sequence[str], end: str = "\n") -> list[bytes]:
    return [f"{text}{end}".encode() for text in texts]


def objects(*rows: Any) -> list[bytes]:
    return lines([json.dumps(row) for row in rows])


@pytest.mark.parametrize("task", SINGLE)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_each_line_is_a_text_also_an_empty_one(model: ShippedModel, task: str, end: str) -> None:
    found = [*predict_lines(model, lines(TEXTS, end), [task])]
    assert_same(found, [asdict(one) for one in model.predict(task, TEXTS)])


def test_last_line_needs_no_end_and_first_no_byte_order_mark(model: ShippedModel) -> None:
    given = [b"\xef\xbb\xbfthe fox\n", b"runs"]
    expected = [asdict(one) for one in model.predict("classes", ["the fox", "runs"])]
    assert_same([*predict_lines(model, given, ["classes"])], expected)


def test_pairs_stand_on_a_line_with_a_tab_between_them(model: ShippedModel) -> None:
    texts = [text.replace("\t", " ") for text in TEXTS]
    given = lines([f"{one}\t{other}" for one, other in zip(texts, PAIRS, strict=True)])
    expected = [asdict(one) for one in model.predict("pairs", texts, PAIRS)]
    for named in ([], ["pairs"]):
        assert_same([*predict_lines(model, given, named)], expected)


def test_several_tasks_predict_from_one_pass(
    model: ShippedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = model.encoder.forward

    def counted(*args: Any, **inputs: Any) -> Any:
        seen.append(len(inputs["input_ids"]))
        return forward(*args, **inputs)

    texts = ["the fox runs", "the red dog chased one cat", "dog"]
    expected = {task: [asdict(one) for one in model.predict(task, texts)] for task in SINGLE}
    monkeypatch.setattr(model.encoder, "forward", counted)
    # All tasks that read one text, by default.
    for named in ([], SINGLE, [*SINGLE, *SINGLE]):
        seen.clear()
        found = [*predict_lines(model, lines(texts), named, batch_size=2)]
        assert seen == [2, 1]
        assert [list(one) for one in found] == [SINGLE] * 3
        assert_same({task: [one[task] for one in found] for task in SINGLE}, expected)


def test_json_lines_have_the_columns_of_each_task(model: ShippedModel) -> None:
    rows = [
        {"sentence": text, "premise": pair, "hypothesis": "the fox", "id": 3, "tokens": ["the", ""]}
        for text, pair in zip(TEXTS, PAIRS, strict=True)
    ]
    found = [*predict_lines(model, objects(*rows), are_json=True)]
    expected = {
        "classes": model.predict("classes", TEXTS),
        "pairs": model.predict("pairs", PAIRS, ["the fox"] * 5),
        "number": model.predict("number", TEXTS),
        "tags": model.predict("tags", [["the", ""]] * 5),
    }
    by_row = zip(*expected.values(), strict=True)
    assert_same(
        found,
        [{task: asdict(one) for task, one in zip(expected, row, strict=True)} for row in by_row],
    )
    # Of those that are not named, each must find its columns on the first line.
    some = objects({"sentence": "dog"}, {"sentence": "the fox runs"})
    assert [[*one] for one in predict_lines(model, some, are_json=True)] == [
        ["classes", "number"]
    ] * 2
    alone = [*predict_lines(model, objects({"tokens": "the fox"}), are_json=True)]
    assert_same(alone, [asdict(one) for one in model.predict("tags", "the fox")])


def test_input_without_end_is_predicted_for_as_it_comes(model: ShippedModel) -> None:
    read = count()

    def endless() -> Iterator[bytes]:
        while True:
            yield f"the fox {next(read)}\n".encode()

    found = predict_lines(model, endless(), ["classes"], batch_size=4)
    expected = model.predict("classes", [f"the fox {number}" for number in range(300)])
    for one in expected:
        assert_same(next(found), asdict(one))
    assert next(read) < 300 + 200


def test_bytes_become_predictions_that_json_can_write(model: ShippedModel) -> None:
    text = "ein \u202e Füchs \x1b[31m läuft"
    (found,) = predict_lines(model, lines([text]), ["tags"])
    assert json.loads(json.dumps(found)) == found
    assert json.dumps(found).isascii()


@pytest.mark.parametrize(
    ("given", "tasks", "are_json", "message"),
    [
        ([], ["classes"], False, "No texts to predict"),
        ([], [], True, "No texts to predict"),
        (lines(["dog"]), ["other"], False, "must be one of classes, .* but is 'other'"),
        (lines(["dog"]), ["mlm"], False, "mlm predicts masked tokens"),
        (lines(["dog", "the fox"]), ["pairs"], False, "Line 1 must hold premise and hypothesis"),
        (lines(["a\tb", "a\tb\tc"]), ["pairs"], False, "Line 2 must hold .* has 2 tabs"),
        (lines(["a\tb", ""]), [], False, "Line 2 must hold .* has 0 tabs"),
        (
            lines(["a\tb\tc"]),
            [],
            False,
            r"3 text\(s\) .*: choose one .* pairs \(premise, hypothesis\)",
        ),
        (lines(["a"]), ["classes", "pairs"], False, "read one text and others two .* `--json`"),
        ([b"the fox\n", b"\xff\n"], ["classes"], False, "Line 2 must be text in UTF-8"),
        (lines(["the fox"]), [], True, "Line 1 must be JSON"),
        (objects({"sentence": "a"}) + lines([""]), [], True, "Line 2 must be JSON"),
        (objects(["a"]), ["classes"], True, "Line 1 must be a JSON object, .* is a list"),
        (objects({"text": "a"}), [], True, "line 1, the columns text: choose one"),
        (objects({"text": "a"}), ["classes"], True, "Line 1 must have 'sentence', but has text"),
        (objects({}), ["classes"], True, "Line 1 must have 'sentence', but has nothing"),
        (objects({"sentence": 3}), ["classes"], True, "'sentence' on line 1 must be a string, but"),
        (objects({"sentence": ["a"]}), ["classes"], True, "must be a string, but is"),
        (objects({"tokens": ["a", 1]}), ["tags"], True, "a string or a list of words, but is"),
        (objects({"tokens": None}), [], True, "a string or a list of words, but is None"),
    ],
)
def test_what_tasks_do_not_read_is_refused_by_its_line(
    model: ShippedModel, given: list[bytes], tasks: list[str], are_json: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        list(predict_lines(model, given, tasks, are_json=are_json))
    assert "\n" not in str(refused.value)


def test_batches_have_a_size(model: ShippedModel) -> None:
    with pytest.raises(ValueError, match="`batch_size` must be a whole number of at least 1"):
        next(predict_lines(model, lines(["dog"]), ["classes"], batch_size=0))


def test_model_without_predictions_for_texts_is_refused(tmp_path: Path) -> None:
    encoder = from_scratch(layers=1, hidden=16, heads=2, intermediate=12)
    tasks = {"mlm": masked_task().read_by(encoder.tokenizer)}
    save_model(tmp_path / "model", MultitaskModel(encoder.model, tasks), encoder.tokenizer, tasks)
    with pytest.raises(ValueError, match="None of the tasks mlm can predict for texts"):
        next(predict_lines(multiprune.load(tmp_path / "model"), lines(["dog"])))
