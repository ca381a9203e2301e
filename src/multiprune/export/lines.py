"""Predict for the lines of a file."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from multiprune.export.answering import predicted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from multiprune.export.shipped import ShippedModel
    from multiprune.tasks.outputs.output import Prediction

    #: What a line holds for tasks that read the same columns: a text, or a text and its pair.
    Parts = Sequence[Any]

# Batches that are read before their texts are sorted by length.
_BATCHES = 32


def predict_lines(
    model: ShippedModel,
    lines: Iterable[bytes],
    tasks: Sequence[str] = (),
    *,
    are_json: bool = False,
    batch_size: int = 32,
) -> Iterator[dict[str, Any]]:
    """Yield the fields of the prediction for each line; of several tasks, by the task's name.

    Lines are read some at a time, whatever their number is. An empty line is an empty text.

    Args:
        model: that predicts.
        lines: UTF-8. Each is a text, or two with a tab between them for tasks that read pairs.
        tasks: that predict; all those that read what is on the first line by default.
        are_json: whether lines are objects instead, with the columns of the tasks; a text whose
            words are tagged may be a list of words.
        batch_size: rows of a batch.

    Raises:
        ValueError: if there is no line, one of them is not what the tasks read (its number is
            named), or tasks cannot be read together.
    """
    texts = _decoded(lines)
    if (first := next(texts, None)) is None:
        raise ValueError("No texts to predict: the input is empty.")
    reads = readable_columns(model)
    if not reads:
        raise ValueError(f"None of the tasks {', '.join(model.meaning)} can predict for texts.")
    chosen = _named(model, reads, tasks, are_json) or _reading(reads, first, are_json)
    remaining = chain([first], texts)
    while part := [*islice(remaining, _BATCHES * max(1, batch_size))]:
        found = _predicted(model, part, chosen, reads, are_json, batch_size)
        for row in zip(*(found[task] for task in chosen), strict=True):
            by_task = {task: asdict(one) for task, one in zip(chosen, row, strict=True)}
            yield by_task if len(chosen) > 1 else by_task[chosen[0]]


def _predicted(
    model: ShippedModel,
    lines: Sequence[tuple[int, str]],
    tasks: Sequence[str],
    reads: Mapping[str, tuple[str, ...]],
    are_json: bool,
    batch_size: int,
) -> dict[str, list[Prediction]]:
    """Return by task what is predicted for lines, of which those that read the same share rows."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for task in tasks:
        # Of objects, tasks read the columns of their own; of other lines, all of them the same.
        groups.setdefault(reads[task if are_json else tasks[0]], []).append(task)
    words = {
        columns: all(model.output(name).reads_words for name in names)
        for columns, names in groups.items()
    }
    rows = [_parts(line, number, words, are_json) for number, line in lines]
    found: dict[str, list[Prediction]] = {}
    for place, names in enumerate(groups.values()):
        texts, *pairs = (list(one) for one in zip(*(row[place] for row in rows), strict=True))
        for alike in model.tasks_of_one_encoder(names):
            found |= predicted(model, alike, texts, pairs[0] if pairs else None, batch_size)
    return found


def readable_columns(model: ShippedModel) -> dict[str, tuple[str, ...]]:
    """Return the text columns of each task that predicts labels, numbers or spans for texts."""
    return {
        task: tuple(meaning["text"])
        for task, meaning in model.meaning.items()
        if not model.output(task).over_vocabulary
    }


def _decoded(lines: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """Yield lines without their ends, and their numbers from 1."""
    for number, line in enumerate(lines, 1):
        try:
            # A byte order mark, as some editors write it, is no part of a text.
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"Line {number:,} must be text in UTF-8, but is not: {error}."
            ) from error
        yield number, text.removesuffix("\n").removesuffix("\r")


def _named(
    model: ShippedModel,
    reads: Mapping[str, Sequence[str]],
    tasks: Sequence[str],
    are_json: bool,
) -> list[str]:
    """Return the tasks that were named, each once."""
    for task in tasks:
        model.check_task(task)
        if task not in reads:
            raise ValueError(f"{task} predicts masked tokens and cannot predict for a text.")
    if not are_json and len({len(reads[task]) for task in tasks}) > 1:
        raise ValueError(
            f"Some tasks read one text and others two ({_listed(reads, tasks)}): choose tasks "
            "with `--task`, or pass JSON lines with `--json`."
        )
    return [*dict.fromkeys(tasks)]


def _reading(
    reads: Mapping[str, Sequence[str]], first: tuple[int, str], are_json: bool
) -> list[str]:
    """Return all tasks that read what the first line holds."""
    number, line = first
    if len(reads) == 1:
        return [*reads]
    if are_json:
        given = _object(line, number)
        found = [task for task, columns in reads.items() if {*columns} <= given.keys()]
    else:
        count = line.count("\t") + 1
        found = [task for task, columns in reads.items() if len(columns) == count]
    if not found:
        what = (
            f"the columns {', '.join(given)}" if are_json else f"{count} text(s) with tabs between"
        )
        raise ValueError(
            f"No task reads line {number}, {what}: choose one with `--task` from "
            f"{_listed(reads, reads)}."
        )
    return found


def _listed(reads: Mapping[str, Sequence[str]], tasks: Iterable[str]) -> str:
    return ", ".join(f"{task} ({', '.join(reads[task])})" for task in tasks)


def _parts(
    line: str, number: int, words: Mapping[tuple[str, ...], bool], are_json: bool
) -> list[Parts]:
    """Return what a line holds for each group of columns, and whether they may be lists of words.

    Raises:
        ValueError: if that is not on the line.
    """
    if are_json:
        given = _object(line, number)
        return [
            [_value(given, column, number, words=words[columns]) for column in columns]
            for columns in words
        ]
    found: list[Parts] = []
    for columns in words:
        parts = line.split("\t") if len(columns) > 1 else [line]
        if len(parts) != len(columns):
            raise ValueError(
                f"Line {number:,} must hold {' and '.join(columns)} with one tab between them, but "
                f"has {len(parts) - 1} tabs."
            )
        found.append(parts)
    return found


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Line {number:,} must be JSON, but is not: {error}.") from error
    if not isinstance(given, dict):
        raise ValueError(
            f'Line {number:,} must be a JSON object, as in {{"text": "…"}}, but is a '
            f"{type(given).__name__}."
        )
    return given


def _value(given: Mapping[str, Any], column: str, number: int, *, words: bool) -> Any:
    if column not in given:
        raise ValueError(
            f"Line {number:,} must have {column!r}, but has {', '.join(given) or 'nothing'}."
        )
    value = given[column]
    is_list = isinstance(value, list) and all(isinstance(word, str) for word in value)
    if not isinstance(value, str) and not (words and is_list):
        what = "a string or a list of words" if words else "a string"
        raise ValueError(f"{column!r} on line {number:,} must be {what}, but is {value!r}.")
    return value
