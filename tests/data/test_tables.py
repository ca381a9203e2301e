"""Tables in files, each read as Python's own modules or pyarrow wrote it."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pyarrow
import pytest
from pyarrow import parquet
from whole_tables import read_table

from multiprune.tasks.columns import Columns

if TYPE_CHECKING:
    from pathlib import Path

ROWS: dict[str, list[Any]] = {
    "text": ['say "yes",\nor no', "007", "a\tb \u2028 c", "Ä"],
    "label": [2, 0, -1, 2],
    "weight": [1.5, 2.0, -3.25, 1e-3],
    "name": ["x", "7", "y", "true"],
}
COLUMNS = Columns(text=["text"], others=["label", "weight", "name"])


def write(file: Path) -> None:
    rows = [dict(zip(ROWS, one, strict=True)) for one in zip(*ROWS.values(), strict=True)]
    if file.suffix == ".parquet":
        parquet.write_table(pyarrow.table(ROWS), file)
    elif file.suffix in (".jsonl", ".json"):
        file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    else:
        # With the mark that Excel puts before UTF-8, and its ends of lines.
        with file.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.DictWriter(
                stream, list(ROWS), dialect="excel", delimiter=SEPARATORS[file.suffix]
            )
            writer.writeheader()
            writer.writerows(rows)


SEPARATORS = {".csv": ",", ".tsv": "\t"}


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_all_kinds_of_files_hold_the_same_rows(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows{ending}"
    write(file)
    assert read_table(file, COLUMNS).to_pydict() == ROWS
    chosen = read_table(file, Columns(text=["text"], others=["label"]))
    assert chosen.to_pydict() == {name: ROWS[name] for name in ("text", "label")}
    with pytest.raises(
        ValueError, match=rf"rows\{ending} must have a column 'body', but has text, label"
    ):
        read_table(file, Columns(text=["body"]))


def read(folder: Path, name: str, content: bytes | str) -> dict[str, list[Any]]:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    columns: dict[str, list[Any]] = read_table(
        file, COLUMNS.without("weight").without("name")
    ).to_pydict()
    return columns


def test_endings_may_be_in_capitals_and_strings_of_any_layout(tmp_path: Path) -> None:
    (tmp_path / "X.CSV").write_text("text,label\na,1\n")
    expected = {"text": ["a"], "label": [1]}
    assert read_table(tmp_path / "X.CSV").to_pydict() == expected
    views = pyarrow.table({"text": pyarrow.array(["a"], pyarrow.string_view()), "label": [1]})
    parquet.write_table(views, tmp_path / "x.parquet")
    found = read_table(tmp_path / "x.parquet")
    assert found.to_pydict() == expected
    assert found.schema.field("text").type == pyarrow.string()


def test_empty_cells_and_missing_keys_are_null(tmp_path: Path) -> None:
    expected = {"text": ["a", None, "NA"], "label": [1, 2, None]}
    assert read(tmp_path, "x.csv", "text,label\na,1\n\n,2\nNA,\n") == expected
    lines = (
        '{"text": "a", "label": 1, "map": {"b": 2}}\n\n{"label": 2}\n{"text": "NA", "label": null}'
    )
    assert read(tmp_path, "x.jsonl", lines) == expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "-1", "+3"], [1, -1, 3]),
        (["1", "2.5", "1e3"], [1.0, 2.5, 1000.0]),
        (["01", "2"], ["01", "2"]),
        (["true", "false"], ["true", "false"]),
        (["2024-01-01", "x"], ["2024-01-01", "x"]),
        (["1" * 30, "2"], ["1" * 30, "2"]),
    ],
)
def test_cells_are_numbers_only_if_all_are(
    cells: list[str], expected: list[Any], tmp_path: Path
) -> None:
    content = "label,text\n" + "".join(f"{cell},a\n" for cell in cells)
    found = read(tmp_path, "x.csv", content)["label"]
    assert found == (expected if isinstance(expected[0], str) else pytest.approx(expected))
    assert [type(one) for one in found] == [type(one) for one in expected]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", "", r"x\.csv must begin with the names of its columns, but is empty"),
        ("x.csv", "text;label\na;1\n", r"must have a column 'text', but has text;label"),
        ("x.csv", "text,text,label\na,b,1\n", r"has more than one column 'text'"),
        ("x.csv", "text,label\na,1\nb, c,2\n", r"Line 3 of .* each of 2 columns, but has 3"),
        ("x.csv", 'text,label\n"a,1\nb,2\n', r"Line 3 of .*x\.csv must be CSV"),
        ("x.tsv", 'text\tlabel\n"a" b\t1\n', r"Line 2 of .*x\.tsv must be TSV"),
        ("x.tsv", 'text\tlabel\n"a\t1\nb"\t2\n', r"Line 3 of .* ends a quoted cell with tabs"),
        ("x.csv", b"text,label\n\xe4,1\n", r"x\.csv must be text in UTF-8"),
        ("x.jsonl", b'{"text": "\xe4"}', r"x\.jsonl must be text in UTF-8"),
        ("x.jsonl", '{"text": "a", "label": 1}\n{"text"\n', r"Line 2 of .*x\.jsonl must be JSON"),
        ("x.json", '[{"text": "a"}]', r"Line 1 of .* must be a JSON object, .* but is a list"),
        ("x.jsonl", '{"text": "b", "label": [1, "c"]}', r"'label' of .* one type"),
        ("x.xlsx", "text", r"must end in \.csv, \.tsv, \.jsonl, \.json, \.parquet, but .*x\.xlsx"),
        ("x.parquet", "text,label", r"x\.parquet is not a parquet file"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_in_a_sentence(
    name: str, content: bytes | str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        read(tmp_path, name, content)


def test_categories_of_pandas_are_texts(tmp_path: Path) -> None:
    categories = pyarrow.array(["a", "b", "a"]).dictionary_encode()
    parquet.write_table(pyarrow.table({"text": categories}), tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet").to_pydict() == {"text": ["a", "b", "a"]}
