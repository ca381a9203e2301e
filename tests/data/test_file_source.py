"""Own data: files by split, patterns, and a share of the training rows to validate with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from pyarrow import parquet

from multiprune.data.file_rows import rows_folder
from multiprune.data.source import FileSource, HubSource, JoinedSource
from multiprune.tasks.columns import Columns

if TYPE_CHECKING:
    from multiprune.tasks.rows import Rows, Source

COLUMNS = Columns(text=["text"], others=["label"], classes="label")


def write(file: Path, labels: list[Any]) -> Path:
    rows = "".join(f"{file.stem} {row},{label}\n" for row, label in enumerate(labels))
    file.write_text(f"text,label\n{rows}")
    return file


def loaded(source: Source, split: str, columns: Columns | None = COLUMNS) -> Rows:
    rows = source.load(split, mirror=Path("/nowhere"), columns=columns)
    assert rows is not None
    return rows


def test_paths_are_seen_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.csv", ["x", "y"])
    monkeypatch.chdir(tmp_path)
    source = FileSource(files={"train": "a.csv"})
    assert loaded(source, "train").table["label"][:] == ["x", "y"]
    assert source.load("validation", mirror=None) is None
    with pytest.raises(
        FileNotFoundError, match=rf"train file b\.csv does not exist in {tmp_path}\."
    ):
        FileSource(files={"train": "b.csv"}).load("train", mirror=None)


def test_files_and_patterns_are_read_behind_each_other(tmp_path: Path) -> None:
    write(tmp_path / "b-2.csv", [3.5])
    write(tmp_path / "b-1.csv", [2])
    first = write(tmp_path / "a[1].csv", [1])
    source = FileSource(files={"train": [first, str(tmp_path / "b-*.csv")]})
    rows = loaded(source, "train")
    # Whole numbers of one file are fractions in another.
    assert rows.table.to_dict() == {
        "text": ["a[1] 0", "b-1 0", "b-2 0"],
        "label": [1.0, 2.0, 3.5],
    }
    write(tmp_path / "b-2.csv", [4.5])
    assert loaded(source, "train").fingerprint != rows.fingerprint
    write(tmp_path / "b-2.csv", ["x"])
    with pytest.raises(ValueError, match=r"b-\*\.csv have different types in a column"):
        loaded(source, "train")


def test_files_whose_class_names_differ_are_refused(tmp_path: Path) -> None:
    for stem, names in (("a", ["x", "y"]), ("b", ["y", "x"])):
        features = Features(text=Value("string"), label=ClassLabel(names=names))
        table = Dataset.from_dict({"text": ["t"], "label": [0]}, features=features)
        table.to_parquet(tmp_path / f"{stem}.parquet")
    with pytest.raises(ValueError, match="have different types in a column"):
        loaded(FileSource(files={"train": str(tmp_path / "*.parquet")}), "train")
    sources = [FileSource(files={"train": tmp_path / f"{stem}.parquet"}) for stem in "ab"]
    with pytest.raises(ValueError, match="have different types in a column"):
        loaded(JoinedSource(sources=sources), "train")


LABELS = ["a"] * 70 + ["b"] * 28 + ["c"] + ["d"]


@pytest.mark.parametrize(("share", "expected"), [(0.1, (7, 3)), (0.5, (35, 14))])
def test_each_class_has_its_share_in_validation(
    share: float, expected: tuple[int, int], tmp_path: Path
) -> None:
    source = FileSource(files={"train": write(tmp_path / "x.csv", LABELS)}, validation=share)
    train, validation = loaded(source, "train"), loaded(source, "validation")
    assert sorted(train.table["text"][:] + validation.table["text"][:]) == sorted(
        f"x {row}" for row in range(100)
    )
    # The only row of a class is trained on.
    assert Counter(validation.table["label"][:]) == dict(zip("ab", expected, strict=True))
    assert train.fingerprint != validation.fingerprint


def test_small_classes_are_in_both_parts_as_far_as_rows_go(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", [f"class {row // 4}" for row in range(400)])
    source = FileSource(files={"train": file}, validation=0.1)
    assert len(loaded(source, "validation").table) == 40
    assert len(set(loaded(source, "train").table["label"][:])) == 100


def test_rows_set_aside_are_those_of_the_seed(tmp_path: Path) -> None:
    def aside(seed: int, columns: Columns = COLUMNS) -> tuple[list[str], str]:
        source = FileSource(files={"train": tmp_path / "x.csv"}, validation=0.2, seed=seed)
        rows = loaded(source, "validation", columns)
        return rows.table["text"][:], rows.fingerprint

    write(tmp_path / "x.csv", LABELS)
    assert aside(0) == aside(0)
    unlike = [aside(0), aside(1), aside(0, Columns(text=["text"], others=["label"]))]
    assert len({fingerprint for _, fingerprint in unlike}) == len(unlike)
    assert unlike[0][0] != unlike[1][0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"files": "a.csv"}, r"must be by split .* but is a\.csv"),
        ({"files": {"dev": "a.csv"}}, r"must be by split \(train, validation, test\)"),
        ({"files": {"train": "a"}, "validation": 0.0}, r"must be in \(0, 0\.5\], but is 0\.0"),
        ({"files": {"train": "a"}, "validation": 10}, r"must be in \(0, 0\.5\], but is 10"),
        ({"files": {"train": "a"}, "validation": "10%"}, r"a number in \(0, 0\.5\], but is '10%'"),
        ({"files": {"train": "a"}, "validation": True}, r"must be in \(0, 0\.5\], but is True"),
        ({"files": {"train": "a", "validation": "b"}, "validation": 0.1}, "in place of a file"),
        ({"files": {"test": "a"}, "validation": 0.1}, "a share of the file `train`"),
    ],
)
def test_what_contradicts_itself_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FileSource(**settings)


def test_an_empty_cell_is_named_by_its_row_in_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", ["a"] * 20 + [""] + ["b"] * 20)
    with pytest.raises(ValueError, match=r"'label' of .*x\.csv must hold .* but row 20 is null"):
        loaded(FileSource(files={"train": file}, validation=0.5), "train")


def test_a_share_of_too_few_rows_is_refused(tmp_path: Path) -> None:
    source = FileSource(files={"train": write(tmp_path / "x.csv", ["a", "a", "b"])}, validation=0.1)
    with pytest.raises(ValueError, match=r"leaves no rows for one split: 0\.1 of 3 rows"):
        loaded(source, "validation")


def test_columns_that_no_task_reads_do_not_matter(tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "text": ["a"],
            "label": [1],
            "map": pyarrow.array([[("k", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
            "number": pyarrow.array([2**63 + 1], pyarrow.uint64()),
        }
    )
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "train.parquet"
    parquet.write_table(table, file)
    expected = {"text": ["a"], "label": [1]}
    assert loaded(FileSource(files={"train": file}), "train").table.to_dict() == expected
    rows = HubSource(path=None, mirror="mine").load("train", mirror=tmp_path, columns=COLUMNS)
    assert rows is not None
    assert rows.table.to_dict() == expected
    with pytest.raises(ValueError, match=r"Column 'map' of .*train\.parquet holds map<"):
        loaded(FileSource(files={"train": file}), "train", None)


def test_rows_lie_elsewhere_where_the_cache_of_datasets_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "file" / "datasets")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert rows_folder() == tmp_path / "own" / "multiprune" / "rows"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub")
    assert rows_folder() == tmp_path / "hub" / "multiprune"
