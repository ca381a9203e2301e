"""Columns of a file by the names that a task has for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from multiprune.data.renamed import RenamedSource
from multiprune.data.source import FileSource
from multiprune.metrics import Accuracy
from multiprune.tasks.classification import Classification
from multiprune.tasks.columns import Columns

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.tasks.rows import Rows

COLUMNS = Columns(text=["premise", "hypothesis"], others=["label"], classes="label")
CSV = "hypothesis,premise,label,gold\na,1,x,yes\nc,2,x,no\n"


def loaded(folder: Path, names: dict[str, str]) -> Rows:
    (folder / "rows.csv").write_text(CSV)
    source = FileSource(files={"validation": folder / "rows.csv"})
    rows = RenamedSource(source=source, names=names).load(
        "validation", mirror=None, columns=COLUMNS
    )
    assert rows is not None
    return rows


def test_columns_may_go_by_each_others_names(tmp_path: Path) -> None:
    names = {"premise": "hypothesis", "hypothesis": "premise", "label": "gold"}
    # Numbers in a column that is read as text stay texts.
    assert loaded(tmp_path, names).table.to_dict() == {
        "premise": ["a", "c"],
        "hypothesis": ["1", "2"],
        "label": ["yes", "no"],
    }


def test_names_that_are_the_same_change_nothing(tmp_path: Path) -> None:
    plain = loaded(tmp_path, {})
    same = loaded(tmp_path, {"premise": "premise"})
    assert (same.origin, same.fingerprint) == (plain.origin, plain.fingerprint)
    assert same.table.to_dict() == plain.table.to_dict()
    assert plain.table["label"][:] == ["x", "x"]
    other = loaded(tmp_path, {"label": "gold"})
    assert other.fingerprint != plain.fingerprint


def test_other_splits_are_missing(tmp_path: Path) -> None:
    source = FileSource(files={"validation": tmp_path / "rows.csv"})
    assert RenamedSource(source=source, names={}).load("test", mirror=None) is None


def test_what_is_wrong_with_a_column_is_said_of_both_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rows\.csv must have a column 'nothing'"):
        loaded(tmp_path, {"label": "nothing"})
    rows = loaded(tmp_path, {"label": "gold"})
    task = Classification(
        text=["premise", "hypothesis"],
        label="label",
        labels=["yes", "maybe"],
        metrics={"accuracy": Accuracy()},
        source=FileSource(files={}),
    )
    with pytest.raises(ValueError, match=r"'label' of .*rows\.csv \(label = gold\) .* is 'no'"):
        task.encode_labels(rows)


def test_one_column_is_not_read_as_two(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'premise' is named more than once"):
        loaded(tmp_path, {"label": "premise"})
