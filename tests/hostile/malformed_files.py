"""Files of training data that are malformed, and what the sentence about each must name."""

from __future__ import annotations

from datetime import date
from io import BytesIO
from typing import Any

import pyarrow
from malformed_world import ACCEPTED
from pyarrow import parquet

ROWS = [("the fox runs", "yes"), ("the dogs sleep", "no")] * 20


def separated(rows: Any = ROWS, *, header: str = "text,label", by: str = ",") -> bytes:
    return "".join(f"{line}\n" for line in [header, *(by.join(row) for row in rows)]).encode()


def lines(rows: Any = ROWS) -> bytes:
    return "".join(f'{{"text": "{text}", "label": {label}}}\n' for text, label in rows).encode()


def table(**columns: Any) -> bytes:
    file = BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def labelled(*labels: str) -> list[tuple[str, str]]:
    return [("the fox runs", label) for label in labels] * 20


TWO_TEXTS = [(text, label, text) for text, label in ROWS]
TEXTS = [text for text, _ in ROWS]
WHOLE = table(text=TEXTS, label=[label for _, label in ROWS])

#: By the name of the file: what is in it, and what is said.
FILES: dict[str, tuple[bytes, str]] = {
    "empty.csv": (b"", "empty.csv must begin with the names of its columns"),
    "header-only.csv": (separated([]), "header-only.csv"),
    "blank-lines.csv": (b"\n\n\n", "blank-lines.csv must begin with the names"),
    "ragged.csv": (separated([("a", "yes"), ("b", "no", "more")]), "Line 3 of "),
    "too-few-cells.csv": (separated([("a",)]), "Line 2 of "),
    "latin-1.csv": (separated([("caf\u00e9", "yes")]).decode().encode("latin-1"), "UTF-8"),
    "utf-16.csv": (separated().decode().encode("utf-16"), "UTF-8"),
    # The mark of UTF-8 is none of the first column's name, and CRLF ends a line.
    "byte-order-mark.csv": (b"\xef\xbb\xbf" + separated(), ACCEPTED),
    "crlf.csv": (separated().replace(b"\n", b"\r\n"), ACCEPTED),
    # A character that no tokenizer knows.
    "nul.csv": (separated([("a\0b", "yes"), ("c", "no")] * 20), ACCEPTED),
    "no-label.csv": (separated(header="text,class"), "no-label.csv must have a column 'label'"),
    "no-text.csv": (separated(header="words,label"), "no-text.csv must have a column 'text'"),
    "label-missing.csv": (separated([*ROWS, ("a", "")]), "row 40 is null"),
    "all-labels-missing.csv": (separated(labelled("")), "row 0 is null"),
    "text-missing.csv": (separated([*ROWS, ("", "yes")]), "row 40 is null"),
    "one-class.csv": (separated(labelled("yes")), "two or more labels, but holds yes"),
    "fractions.csv": (separated(labelled("0.5", "1.5")), "a number is learned by Regression"),
    "nan.csv": (separated(labelled("nan", "inf")), ACCEPTED),  # Two names.
    "minus-one.csv": (separated(labelled("-1", "1")), "holds -1"),
    # More digits than a number has are a code.
    "huge.csv": (separated(labelled("9" * 30, "8" * 30)), ACCEPTED),
    "open-quote.csv": (separated([('"a', "yes"), ("b", "no")]), "must be CSV, but is not"),
    "quote-within.csv": (separated([('"a" b', "yes"), ("b", "no")]), "must be CSV, but is not"),
    "duplicated.csv": (separated(TWO_TEXTS, header="text,label,text"), "one column 'text'"),
    "semicolons.csv": (separated(header="text;label", by=";"), "must have a column 'label'"),
    "too-few.csv": (separated(ROWS[:2]), "leaves no rows for one split"),
    "quotes.tsv": (b'text\tlabel\n"a\tyes\nb"\tno\n', "must be doubled"),
    "rows.txt": (b"the fox runs\n", "rows.txt"),
    "rows.xlsx": (b"PK\x03\x04", "must end in .csv, .tsv, .jsonl, .json, .parquet"),
    "empty.jsonl": (b"", "empty.jsonl"),
    "array.jsonl": (b"[1, 2]\n", "must be a JSON object"),
    "no-json.jsonl": (b"{'text': 'a'}\n", "Line 1 of "),
    "deep.jsonl": (b"[" * 100_000 + b"\n", "Line 1 of "),
    "mixed.jsonl": (lines(labelled('"yes"', "1")), "Column 'label' of "),
    "lists.jsonl": (lines(labelled("[1]", "[2]")), "lists.jsonl"),
    "objects.jsonl": (lines(labelled('{"a": 1}', '{"a": 2}')), "objects.jsonl"),
    "huge.jsonl": (lines(labelled("9" * 30, "1")), "Column 'label' of "),
    "huge-digits.jsonl": (lines(labelled("9" * 5000, "1")), "Line 1 of "),
    "nan.jsonl": (lines(labelled("NaN", "1")), "Column 'label' of "),
    "surrogate.jsonl": (lines([("\\ud800", "0"), ("a", "1")] * 9), "Column 'text'"),
    "not-utf-8.jsonl": (b'{"text": "\xff", "label": 0}\n', "UTF-8"),
    "empty.parquet": (b"", "empty.parquet is not"),
    "text.parquet": (separated(), "text.parquet is not"),
    "truncated.parquet": (WHOLE[: len(WHOLE) // 2], "truncated.parquet is not"),
    "damaged.parquet": (WHOLE[:30] + b"\xff" * 40 + WHOLE[70:], "damaged.parquet"),
    "no-rows.parquet": (table(text=TEXTS[:0], label=TEXTS[:0]), "no-rows.parquet"),
    "no-label.parquet": (table(text=TEXTS), "must have a column 'label'"),
    "null-label.parquet": (table(text=TEXTS, label=[None] * 40), "row 0 is null"),
    "numbers.parquet": (table(text=[*range(40)], label=[0, 1] * 20), "Column 'text' of "),
    "bytes.parquet": (table(text=[b"a"] * 40, label=[0, 1] * 20), "Column 'text' of "),
    "dates.parquet": (table(text=TEXTS, label=[date(2026, 1, 1)] * 40), "Column 'label' of "),
}  # fmt: skip

#: What ``task.example`` is given in place of one file, and what is said.
SOURCES = {
    "files.train=/nowhere/a.csv": "/nowhere/a.csv does not exist",
    "files.train=/nowhere/*.csv": "/nowhere/*.csv does not exist",
    "files.train=5": "`files.train` must be a path",
    "files.train={a: b}": "`files.train`",
    "files.train=null": "there are no training rows",
    "files.train=/": "The train file / is a folder",
    "files=5": "`files`",
    "validation=nan": "`validation` must be in (0, 0.5], but is nan",
    "validation=true": "`validation` must be in (0, 0.5], but is True",
    "validation=0.9": "`validation` must be in (0, 0.5], but is 0.9",
    "seed=-1": "`seed`",
    "seed=half": "`seed`",
    "_target_=multiprune.data.source.NoSource": "multiprune.data.source.NoSource",
}

#: Files of a task in ``conf/task``, and what is said.
TASKS = {
    "": "`task`",
    "a: [": "task/mine",
    "- a\n- b\n": "must be a mapping",
    "a: !!python/object/apply:os.system ['true']\n": "python/object",
    "a: {b: 1}\n": "`task.a` must have a class",
    "a: 5\n": "`task.a` must have a class",
    "a: {_target_: multiprune.tasks.classification.Classification}\n": "Classification needs",
    "a: {_target_: os.system, command: 'true'}\n": "os.system",
    "defaults: [nowhere]\n": "nowhere",
    "defaults: [mine]\n": "task=mine",
    "a: ${b}\n": "'b'",
    "\x00": "task/mine",
    "a: 1\na: 2\n": "a",
}
