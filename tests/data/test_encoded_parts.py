"""Rows that are encoded some at a time are those that are encoded all at once."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import torch
from datasets import Dataset
from masked_task import masked_task

from multiprune.data.batches import EncodedTask
from multiprune.data.cache import encoded_rows
from multiprune.data.collate import collate
from multiprune.data.rows_file import RowsFile
from multiprune.data.source import FileSource, HubSource
from multiprune.metrics import Accuracy, AnswerF1
from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks import columns as columns_of_tasks
from multiprune.tasks import packing
from multiprune.tasks.answer_text import squad
from multiprune.tasks.classification import Classification, MultiLabel, Regression
from multiprune.tasks.packing import across_texts, beside_texts, within_texts
from multiprune.tasks.question_answering import QuestionAnswering
from multiprune.tasks.rows import EXAMPLE, Rows
from multiprune.tasks.spans import SpanTagging
from multiprune.tasks.synthetic import WORDS
from multiprune.tasks.tagging import Tagging

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow

    from multiprune.tasks.packing import Packing
    from multiprune.tasks.task import Task

TOKENIZER = character_tokenizer()
COUNT = 11
COMMON: dict[str, Any] = {
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}


def words(draw: random.Random, least: int, most: int) -> list[str]:
    return draw.choices(WORDS, k=draw.randint(least, most))


def columns() -> dict[str, list[Any]]:
    """Draw rows for all kinds of tasks; long ones stand among short ones."""
    draw = random.Random(0)
    documents = [words(draw, 1, 40) for _ in range(COUNT)]
    contexts = [" ".join(words(draw, 2, 60)) for _ in range(COUNT)]
    answers = [context.split()[-1] for context in contexts]
    return {
        "text": [" ".join(words(draw, 1, 30)) for _ in range(COUNT)],
        "other": [" ".join(words(draw, 1, 10)) for _ in range(COUNT)],
        "class": [draw.choice(["no", "yes"]) for _ in range(COUNT)],
        "set": [draw.sample(["a", "b", "c"], row % 4) for row in range(COUNT)],
        "number": [draw.uniform(0, 5) for _ in range(COUNT)],
        "words": documents,
        "tags": [draw.choices(["O", "B-x", "I-x"], k=len(one)) for one in documents],
        # The longest question, on which all windows depend, is in the last part.
        "question": [" ".join(words(draw, 1, 3 + row)) for row in range(COUNT)],
        "context": contexts,
        "answers": [[one] for one in answers],
        "starts": [[context.rindex(one)] for context, one in zip(contexts, answers, strict=True)],
    }


ROWS = Rows(Dataset.from_dict(columns()), "corpus.parquet", "fingerprint")


def tagging(kind: type[Tagging], overlap: int | None) -> Tagging:
    labels = ["O", "B-x", "I-x"]
    return kind(text=["words"], label="tags", labels=labels, overlap=overlap, **COMMON)


TASKS: dict[str, Task] = {
    "classes": Classification(text=["text"], label="class", labels=["no", "yes"], **COMMON),
    "pairs": Classification(text=["text", "other"], label="class", labels=["no", "yes"], **COMMON),
    "sets": MultiLabel(text=["text"], label="set", labels=["a", "b", "c"], **COMMON),
    "numbers": Regression(text=["text"], label="number", minimum=0, maximum=5, **COMMON),
    "tags": tagging(Tagging, 4),
    "tags cut": tagging(Tagging, None),
    "spans": tagging(SpanTagging, 4),
    "answers": QuestionAnswering(
        text=["question", "context"],
        label="answers",
        label_start="starts",
        normalize=squad,
        overlap=9,
        **COMMON | {"metrics": {"f1": AnswerF1()}},
    ),
}


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what makes all that is read and encoded at a time small."""

    def make_small() -> None:
        monkeypatch.setattr(columns_of_tasks, "_ROWS", 3)
        monkeypatch.setattr(packing, "_BLOCKS", 2)
        monkeypatch.setattr(packing, "_TOKENS", 5)

    return make_small


def check_same(task: Task, folder: Path, make_small: Callable[[], None]) -> None:
    whole, truncated = task.encode(ROWS, TOKENIZER, 24)
    make_small()
    found, cut = encoded_rows(task, ROWS, TOKENIZER, max_length=24, folder=folder)
    expected = Dataset.from_dict(whole)
    assert len(expected) > 6
    assert found.features == expected.features
    assert found.data.table.num_rows == len(found) == len(expected)
    assert found.to_dict() == expected.to_dict()
    assert cut == truncated


@pytest.mark.parametrize("name", TASKS)
def test_parts_are_those_of_all_rows(
    name: str, tmp_path: Path, in_parts: Callable[[], None]
) -> None:
    check_same(TASKS[name], tmp_path, in_parts)


@pytest.mark.parametrize("way", [across_texts, within_texts, beside_texts])
def test_blocks_are_those_of_all_texts(
    way: Packing, tmp_path: Path, in_parts: Callable[[], None]
) -> None:
    check_same(masked_task(packing=way).read_by(TOKENIZER), tmp_path, in_parts)


def test_windows_are_of_the_rows_of_the_whole_split(
    tmp_path: Path, in_parts: Callable[[], None]
) -> None:
    in_parts()
    found, _ = encoded_rows(TASKS["tags"], ROWS, TOKENIZER, max_length=24, folder=tmp_path)
    assert sorted(set(found[EXAMPLE][:])) == [*range(COUNT)]


@pytest.mark.parametrize(
    ("name", "column", "value", "said"),
    [
        ("classes", "text", None, "'text' .* but row 7 is null"),
        ("classes", "class", "maybe", "row 7 is 'maybe'"),
        ("sets", "set", ["z"], "row 7 is 'z'"),
        ("numbers", "number", 9.0, "row 7 is 9.0"),
        ("tags", "tags", ["O"], "row 7 has 1 tags"),
        ("tags", "tags", "unknown", "row 7 is 'u"),
        ("answers", "starts", [900], "row 7 of corpus.parquet is not at position 900"),
    ],
)
def test_refusals_name_rows_as_the_whole_split_numbers_them(
    name: str, column: str, value: Any, said: str, tmp_path: Path, in_parts: Callable[[], None]
) -> None:
    changed = columns()
    if value == "unknown":
        value = ["u"] * len(changed["words"][7])
    changed[column][7] = value
    rows = Rows(Dataset.from_dict(changed), "corpus.parquet", "changed")
    in_parts()
    with pytest.raises(ValueError, match=said):
        encoded_rows(TASKS[name], rows, TOKENIZER, max_length=24, folder=tmp_path)
    assert not [one for one in tmp_path.glob("*") if one.is_dir()]


@pytest.mark.parametrize(
    "values",
    [
        [[1, 2], [2.5], [None, 3]],
        [[None, None], ["a"], [None], ["b", "c"]],
        [[[]], [[1]], [[], None]],
        [[{"a": 1}], [{"b": "x"}], [None]],
    ],
    ids=str,
)
def test_parts_of_several_types_become_what_all_values_are(
    values: list[list[Any]], tmp_path: Path
) -> None:
    import pyarrow

    file = RowsFile(tmp_path / "rows.arrow")
    for part in values:
        file.write(pyarrow.table({"x": part}))
    file.close()
    found: pyarrow.Table = Dataset.from_file(str(file.file)).data.table
    expected = pyarrow.table({"x": [one for part in values for one in part]})
    assert found.schema.equals(expected.schema)
    assert found.to_pydict() == expected.to_pydict()
    assert [one.name for one in tmp_path.iterdir()] == ["rows.arrow"]


@pytest.mark.parametrize("name", TASKS)
def test_batches_are_those_of_lists_of_numbers(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    table, _ = encoded_rows(task, ROWS, TOKENIZER, max_length=24, folder=tmp_path)
    chosen = [7, 0, 3, 3]
    encoded = EncodedTask(
        name="task", task=task, splits={"train": table}, truncated=0, padding_token=5
    )
    found = encoded.batch("train", chosen)
    lists = dict(table[chosen])
    lists.pop(EXAMPLE, None)
    expected = collate("task", task, lists, padding_token=5)
    assert found.inputs.keys() == expected.inputs.keys()
    for key, tensor in expected.inputs.items():
        assert found.inputs[key].dtype == tensor.dtype
        assert torch.equal(found.inputs[key], tensor)
    assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_rows_of_files_and_encoded_rows_are_mapped_to_memory(ending: str, tmp_path: Path) -> None:
    ROWS.table.select_columns(["text", "class"]).to_pandas().pipe(
        {
            "csv": lambda table, file: table.to_csv(file, index=False),
            "jsonl": lambda table, file: table.to_json(file, orient="records", lines=True),
            "parquet": lambda table, file: table.to_parquet(file),
        }[ending],
        tmp_path / f"x.{ending}",
    )
    source = FileSource(files={"train": tmp_path / f"x.{ending}"})
    rows = source.load("train", mirror=None, columns=TASKS["classes"].columns)
    assert rows is not None
    encoded, _ = encoded_rows(TASKS["classes"], rows, TOKENIZER, max_length=9, folder=tmp_path)
    for table in (rows.table, encoded):
        (file,) = table.cache_files
        assert file["filename"].endswith("rows.arrow")
    assert rows.table["text"][:] == ROWS.table["text"][:]
