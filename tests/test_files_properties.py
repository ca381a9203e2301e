"""Files of others and our own: what is written is read again, and damage is one kind of error."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from run_folders import record_with
from strategies import json_values, names, refusal_with, seeds, texts
from whole_tables import read_table

from multiprune.launching.slurm_queue import parse
from multiprune.runs.atomic import atomic_file
from multiprune.runs.json_value import value_at
from multiprune.runs.older_record import upgraded
from multiprune.runs.record import SCHEMA, RunRecord
from multiprune.runs.schema import check_schema, checked, read_json
from multiprune.runs.status_record import StatusRecord
from multiprune.tasks.columns import Columns
from multiprune.tracking.csv import MetricsCsv

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


cells = texts | st.sampled_from(["", "1", "-2", "1.5", "007", ".5", "1e3", "nan", "1_000"])


@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[str]]:
    columns = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    rows = draw(st.integers(0, 4))
    return {name: draw(st.lists(cells, min_size=rows, max_size=rows)) for name in columns}


@given(tables(), st.sampled_from([(".csv", ","), (".tsv", "\t")]))
@example({"a": ["", "", "x"]}, (".csv", ","))
@example({"a": ['"', "a\rb", "\ufeff"], "b": ["\x00", "\u2028", '"",']}, (".csv", ","))
def test_texts_of_tables_are_those_that_were_written(
    folder: Path, table: dict[str, list[str]], kind: tuple[str, str]
) -> None:
    ending, separator = kind
    file = folder / f"table{ending}"
    if ending == ".tsv":
        # Together in one cell, these are what a quotation mark left open looks like.
        table = {name: [one.replace("\n", " ") for one in own] for name, own in table.items()}
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=separator, quoting=csv.QUOTE_ALL)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    found = read_table(file, Columns(text=[*table])).to_pydict()
    assert found == {name: [one or None for one in own] for name, own in table.items()}


@given(st.lists(st.integers(-(10**17), 10**17) | st.none(), min_size=1).filter(any))
def test_columns_of_numbers_are_numbers(folder: Path, column: list[int | None]) -> None:
    file = folder / "numbers.csv"
    halves = [None if one is None else one / 2 for one in column]
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
        writer.writerow(["whole", "half"])
        writer.writerows(zip(column, halves, strict=True))
    found = read_table(file).to_pydict()
    assert found["whole"] == column
    assert found["half"] == halves


@given(st.lists(st.fixed_dictionaries({"a": texts | st.none(), "b": st.lists(texts)}), min_size=1))
@example([{"a": "\u2028\x85\x1c\r", "b": ["\ufeff"]}])
def test_lines_of_json_are_those_that_were_written(
    folder: Path, rows: list[dict[str, Any]]
) -> None:
    file = folder / "rows.jsonl"
    for is_ascii in (True, False):
        lines = [json.dumps(row, ensure_ascii=is_ascii) for row in rows]
        file.write_text("\n".join(lines), encoding="utf-8")
        assert read_table(file).to_pylist() == rows


@given(
    st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]),
    st.one_of(
        st.binary(max_size=30),
        json_values.map(lambda value: json.dumps(value).encode()),
        st.lists(json_values, max_size=3).map(
            lambda drawn: "\n".join(json.dumps({"a": one}) for one in drawn).encode()
        ),
    ),
)
@example(".jsonl", b"[" * 100_000)
@example(".jsonl", b'{"a": "\\ud800"}')
@example(".jsonl", b'{"\\ud800": 1}')
@example(".jsonl", b'{"a": ' + b"[" * 400 + b"]" * 400 + b"}")
@example(".jsonl", b'{"a": 1' + b"0" * 5000 + b"}")
@example(".csv", b"a,b\n1,2\r3,4")
def test_a_table_of_any_bytes_is_read_or_refused_by_name(
    folder: Path, ending: str, content: bytes
) -> None:
    file = folder / f"any{ending}"
    file.write_bytes(content)
    with refusal_with(str(file)):
        assert read_table(file).num_columns >= 0


@given(st.binary(max_size=20) | json_values.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b"1" * 5000)
@example(b'"\\ud800"')
@example(b'{"\\udfff": 0}')
@example(b"\xff\xfe[\x00]\x00")
def test_any_bytes_are_json_or_a_value_error(folder: Path, content: bytes) -> None:
    file = folder / "any.json"
    file.write_bytes(content)
    with refusal_with("any.json"):
        # It can be shown.
        assert json.dumps(read_json(file), ensure_ascii=False).encode()


RESULTS: dict[str, Any] = {
    "score": 0.5,
    "config": {
        "task": {"a": {"metrics": {"f1": {"_target_": "x"}}, "languages": ["de"]}},
        "encoder": {"path": None},
        "pruner": {"_target_": "x"},
        "data": {"cap": {"a": 3}},
    },
    "budget": {"of": "encoder", "dense": 3, "asked": 2, "kept": 2},
    "ledger": [{"part": "heads", "dense": 1, "kept": 1}],
    "validation": {"a": {"f1": 0.5}},
    "test": {},
    "density": {"x.weight": 0.5},
    "mask_sha256": "",
    "steps": 3,
    "wall_seconds": 1.5,
    "seed": 0,
    "lineage": [],
}
STATUS: dict[str, Any] = {
    "state": "running",
    "step": 3,
    "started": "2025-01-01T00:00:00+00:00",
    "updated": "2025-01-01T00:00:00+00:00",
    "pid": 1,
    "host": "h",
}


def replaced(node: Any, value: Any, generator: np.random.Generator) -> Any:
    """Return the same with one node, anywhere, that is ``value``."""
    inner = isinstance(node, (dict, list)) and len(node) > 0
    if not inner or generator.random() < 0.2:
        return value
    if isinstance(node, list):
        return [replaced(node[0], value, generator), *node[1:]]
    key = list(node)[generator.integers(len(node))]
    return {**node, key: replaced(node[key], value, generator)}


def read_record(content: Any) -> None:
    whole = upgraded(content, name="file.json")
    found = asdict(checked(RunRecord, whole, name="file.json"))
    # What is read is what stands there, and nothing else.
    assert all(found[key] == value for key, value in whole.items() if key in ("score", "config"))


def read_status(content: Any) -> None:
    check_schema(StatusRecord, content, name="file.json")


TODAY = {"schema": SCHEMA, **asdict(record_with())}


@pytest.mark.parametrize(
    ("read", "whole"), [(read_record, RESULTS), (read_record, TODAY), (read_status, STATUS)]
)
@given(value=json_values, seed=seeds)
def test_a_record_is_as_its_schema_has_it_or_a_value_error(
    read: Callable[[Any], None], whole: dict[str, Any], value: Any, seed: int
) -> None:
    read(whole)
    changed = replaced(whole, value, np.random.default_rng(seed))
    for content in (value, changed):
        with refusal_with("file.json"):
            read(content)


@given(json_values, st.lists(names, min_size=1, max_size=2).map(".".join))
def test_one_value_is_of_its_type_or_a_value_error(content: Any, dotted: str) -> None:
    for kind in (float, int, str, dict, list):
        for node in (content, {dotted.partition(".")[0]: content}):
            with refusal_with("file.json"):
                found: object = value_at(node, dotted, kind, name="file.json")
                assert type(found) is kind


rows_logged = st.lists(
    st.dictionaries(names.map("val/{}".format), st.floats(allow_nan=False), max_size=3),
    min_size=1,
    max_size=6,
)


def logged(folder: Path, rows: list[dict[str, float]], first: int) -> list[dict[str, float]]:
    logger = MetricsCsv(str(folder))
    for step, row in enumerate(rows):
        if step >= first:
            logger.log_metrics(row, step)
    logger.finalize("success")
    with (folder / "metrics.csv").open(newline="") as stream:
        return [
            {name: float(cell) for name, cell in row.items() if cell}
            for row in csv.DictReader(stream)
        ]


@given(rows_logged, st.data())
def test_curves_of_a_resumed_run_are_those_of_a_straight_one(
    folder: Path, rows: list[dict[str, float]], data: st.DataObject
) -> None:
    for name in ("straight", "resumed"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "metrics.csv").unlink(missing_ok=True)
    straight = logged(folder / "straight", rows, 0)
    assert straight == [{"step": step, **row} for step, row in enumerate(rows)]
    stop = data.draw(st.integers(1, len(rows)))
    again = data.draw(st.integers(0, stop - 1))
    logged(folder / "resumed", rows[:stop], 0)
    # A crash may have cut the file anywhere behind what is repeated.
    file = folder / "resumed" / "metrics.csv"
    whole = file.read_bytes()
    kept = sum(len(line) for line in whole.splitlines(keepends=True)[: again + 1])
    file.write_bytes(whole[: data.draw(st.integers(kept, len(whole)))])
    assert logged(folder / "resumed", rows, again) == straight


@given(st.lists(st.tuples(st.binary(max_size=9), st.sampled_from([None, ValueError, OSError]))))
def test_a_file_is_the_last_that_was_written_whole(
    folder: Path, writes: list[tuple[bytes, type[Exception] | None]]
) -> None:
    file = folder / "whole"
    file.unlink(missing_ok=True)
    expected = None
    for content, error in writes:
        try:
            with atomic_file(file) as beside:
                beside.write_bytes(content)
                if error is not None:
                    raise error("in the midst")
            expected = content
        except (ValueError, OSError):
            assert error is not None
        assert (file.read_bytes() if file.exists() else None) == expected
        assert not [*folder.glob("whole.*")]


paths = texts.map(lambda text: "".join(one for one in text if one.isprintable()).strip())


@given(
    st.dictionaries(
        st.integers(1, 99).map(str)
        | st.tuples(st.integers(1, 9), st.integers(0, 9)).map(lambda pair: f"{pair[0]}_{pair[1]}"),
        st.tuples(st.sampled_from(["RUNNING", "PENDING", "COMPLETING"]), paths),
    )
)
def test_the_queue_is_read_as_slurm_prints_it(jobs: dict[str, tuple[str, str]]) -> None:
    listing = "".join(f"{name}|{state}|/{path}\n" for name, (state, path) in jobs.items())
    found = parse(listing)
    assert list(found) == list(jobs)
    for name, (state, path) in jobs.items():
        assert found[name].runs == (state != "PENDING")
        assert str(found[name].submission) == str(type(found[name].submission)(f"/{path}"))
        assert found[name].position == int([*name.split("_"), "0"][1])


def test_numbers_that_are_none_are_read_as_such(folder: Path) -> None:
    (folder / "nan.json").write_text("[NaN, 1e999]")
    first, second = read_json(folder / "nan.json")
    assert math.isnan(first)
    assert second == math.inf
