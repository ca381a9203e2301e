from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakSet

import datasets
import pyarrow
import pytest
from datasets import Dataset
from datasets.exceptions import DatasetGenerationError
from pyarrow import parquet

from multiprune.data.source import GeneratedSource, HubSource, SplitSource
from multiprune.tasks.columns import Columns
from multiprune.tasks.rows import Rows, Source
from multiprune.tasks.synthetic import agreement
from multiprune.user_code import UserCodeError

SOURCE = HubSource(path="owner/repository", mirror="cola")
COLUMNS: dict[str, list[Any]] = {"sentence": ["the dog runs", "cats"], "label": [1, 0]}


def write(file: Path, columns: dict[str, list[Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), file)


def loaded(source: Source, split: str, mirror: Path | None = None) -> Rows:
    rows = source.load(split, mirror=mirror)
    assert rows is not None
    return rows


def test_mirror_holds_the_rows_of_a_split(tmp_path: Path) -> None:
    file = tmp_path / "cola" / "train.parquet"
    write(file, COLUMNS)
    rows = loaded(SOURCE, "train", tmp_path)
    assert rows.table.to_dict() == COLUMNS
    assert rows.origin == str(file)


def test_fingerprint_follows_the_content_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cola" / "train.parquet"
    write(file, COLUMNS)
    first = loaded(SOURCE, "train", tmp_path).fingerprint
    assert loaded(SOURCE, "train", tmp_path).fingerprint == first
    write(file, COLUMNS | {"label": [1, 1]})
    assert loaded(SOURCE, "train", tmp_path).fingerprint != first


def test_lists_of_words_stay_lists(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {"words": [["the", "dog"], []], "tags": [[0, 1], []]}
    write(tmp_path / "cola" / "train.parquet", columns)
    assert loaded(SOURCE, "train", tmp_path).table.to_dict() == columns


def test_home_folder_of_the_mirror_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "data" / "cola" / "train.parquet", COLUMNS)
    assert len(loaded(SOURCE, "train", Path("~/data")).table) == 2


def test_missing_mirror_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`data\.mirror` .* does not exist") as error:
        SOURCE.load("train", mirror=tmp_path / "nothing")
    assert str(tmp_path / "nothing") in str(error.value)


def test_missing_task_folder_is_named(tmp_path: Path) -> None:
    write(tmp_path / "sst2" / "train.parquet", COLUMNS)
    with pytest.raises(FileNotFoundError, match="must hold a folder 'cola'"):
        SOURCE.load("train", mirror=tmp_path)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_missing_required_split_is_named(tmp_path: Path, split: str) -> None:
    write(tmp_path / "cola" / "test.parquet", COLUMNS)
    with pytest.raises(
        FileNotFoundError, match=rf"{split} split .*{split}\.parquet does not exist"
    ):
        SOURCE.load(split, mirror=tmp_path)


def test_test_split_may_be_absent(tmp_path: Path) -> None:
    write(tmp_path / "cola" / "train.parquet", COLUMNS)
    assert SOURCE.load("test", mirror=tmp_path) is None


@pytest.mark.parametrize("split", ["train", "test"])
def test_empty_split_is_refused(tmp_path: Path, split: str) -> None:
    write(tmp_path / "cola" / f"{split}.parquet", {"sentence": [], "label": []})
    with pytest.raises(ValueError, match=rf"{split}\.parquet has no rows"):
        SOURCE.load(split, mirror=tmp_path)


@pytest.mark.parametrize("content", [b"", b"sentence,label\nthe dog,1\n", b"PAR1 cut off"])
def test_file_that_is_not_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "cola" / "train.parquet"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"train\.parquet is not a parquet file"):
        SOURCE.load("train", mirror=tmp_path)


def test_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cola" / "train.parquet"
    write(file, COLUMNS)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"train\.parquet is not a parquet file"):
        SOURCE.load("train", mirror=tmp_path)


def test_data_in_no_hub_need_a_mirror() -> None:
    with pytest.raises(ValueError, match=r"`data\.mirror` must be set for the data set 'cola'"):
        HubSource(path=None, mirror="cola").load("train", mirror=None)


def offer(monkeypatch: pytest.MonkeyPatch, splits: dict[str, dict[str, list[Any]]]) -> None:
    """Put a hub in place that has one repository with these splits."""

    def split_names(path: str, name: str | None) -> list[str]:
        assert (path, name) == ("owner/repository", "cola")
        return list(splits)

    def load(path: str, name: str | None, *, split: str) -> Dataset:
        assert (path, name) == ("owner/repository", "cola")
        return Dataset.from_dict(splits[split])

    monkeypatch.setattr(datasets, "get_dataset_split_names", split_names)
    monkeypatch.setattr(datasets, "load_dataset", load)


def test_split_has_another_name_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, {"train": COLUMNS, "validation_matched": COLUMNS})
    names = {"validation": "validation_matched"}
    source = HubSource(path="owner/repository", name="cola", mirror="cola", hub_splits=names)
    rows = loaded(source, "validation")
    assert rows.table.to_dict() == COLUMNS
    assert rows.origin == "owner/repository cola validation_matched"


def test_split_may_be_absent_from_the_hub_only_where_it_is_not_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer(monkeypatch, {"train": COLUMNS})
    source = HubSource(path="owner/repository", name="cola", mirror="cola")
    assert source.load("test", mirror=None) is None
    with pytest.raises(
        ValueError, match="validation split owner/repository cola validation does not exist"
    ):
        source.load("validation", mirror=None)


def test_only_columns_that_are_read_are_taken_from_the_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer(monkeypatch, {"train": COLUMNS | {"vector": [[1.0], [2.0]]}})
    source = HubSource(path="owner/repository", name="cola", mirror="cola")
    columns = Columns(text=["sentence"], others=["label"])
    rows = source.load("train", mirror=None, columns=columns)
    assert rows is not None
    assert rows.table.to_dict() == COLUMNS
    with pytest.raises(
        ValueError, match=r"repository cola train .* 'text', but has sentence, label, v"
    ):
        source.load("train", mirror=None, columns=Columns(text=["text"]))


def test_a_task_of_the_hub_is_read_there_though_others_have_a_mirror(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(monkeypatch, {"train": COLUMNS})
    source = HubSource(path="owner/repository", name="cola")
    assert loaded(source, "train", tmp_path).origin == "owner/repository cola train"
    with pytest.raises(ValueError, match=r"on the hub \(`path`\) or in a mirror \(`mirror`\)"):
        HubSource(path=None)


def test_data_that_the_hub_cannot_give_are_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer(monkeypatch, {"train": COLUMNS})

    def broken(*_: str | None, **__: str) -> Dataset:
        raise DatasetGenerationError("An error occurred") from ValueError("map<string, int64>")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    source = HubSource(path="owner/repository", name="cola")
    with pytest.raises(
        ValueError, match="repository cola train cannot be read: map<string, int64>"
    ):
        source.load("train", mirror=None)


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), OSError("no route")])
def test_hub_out_of_reach_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def unreachable(*_: str | None) -> list[str]:
        raise error

    monkeypatch.setattr(datasets, "get_dataset_split_names", unreachable)
    expected = r"owner/repository train; set `data\.mirror` to work offline: no route$"
    with pytest.raises(ValueError, match=expected):
        SOURCE.load("train", mirror=None)


def test_generated_rows_are_those_of_the_generator() -> None:
    source = GeneratedSource(generator=agreement, rows={"train": 5, "validation": 3}, seed=4)
    # The splits in alphabetical order have the seeds 4 and 5.
    assert loaded(source, "train").table.to_dict() == agreement(5, 4)
    assert loaded(source, "validation").table.to_dict() == agreement(3, 5)


def test_generated_splits_differ_and_are_the_same_under_the_same_seed() -> None:
    sizes = {"train": 20, "validation": 20, "test": 20}
    one, same, other = (
        GeneratedSource(generator=agreement, rows=sizes, seed=seed) for seed in (0, 0, 9)
    )
    tables = {split: loaded(one, split).table["sentence"][:] for split in sizes}
    assert len({tuple(sentences) for sentences in tables.values()}) == 3
    for split in sizes:
        assert loaded(same, split).table["sentence"][:] == tables[split]
        assert loaded(same, split).fingerprint == loaded(one, split).fingerprint
        assert loaded(other, split).fingerprint != loaded(one, split).fingerprint


def test_unknown_split_is_not_generated() -> None:
    source = GeneratedSource(generator=agreement, rows={"train": 5})
    assert source.load("test", mirror=None) is None


def test_mirror_plays_no_part_in_generated_rows(tmp_path: Path) -> None:
    source = GeneratedSource(generator=agreement, rows={"train": 5})
    with_mirror = loaded(source, "train", tmp_path / "nothing")
    assert with_mirror.table.to_dict() == loaded(source, "train").table.to_dict()


def test_generator_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`rows\.train` must be a whole number of at least 1"):
        GeneratedSource(generator=agreement, rows={"train": 0})


def in_parts(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield what ``agreement`` returns, three rows at a time."""
    made = agreement(count, seed)
    for first in range(0, count, 3):
        yield {name: values[first : first + 3] for name, values in made.items()}


def train_rows(generator: Any, count: int = 8) -> Rows:
    rows = GeneratedSource(generator=generator, rows={"train": count}).load("train", mirror=None)
    assert rows is not None
    return rows


def test_rows_that_are_generated_in_parts_are_those_of_the_parts() -> None:
    assert train_rows(in_parts).table.to_dict() == agreement(8, 0)


def test_no_more_than_two_parts_are_in_memory() -> None:
    class Part(dict[str, Any]):
        """Can be watched."""

        __hash__ = object.__hash__  # type: ignore[assignment]

    alive: WeakSet[Part] = WeakSet()
    most = 0

    def generator(count: int, _: int) -> Iterator[Part]:
        nonlocal most
        for row in range(count):
            part = Part(number=[row])
            alive.add(part)
            most = max(most, len(alive))
            yield part

    rows = train_rows(generator, 30)
    assert rows.table["number"][:] == [*range(30)]
    assert rows.table.cache_files  # on the disk
    assert most <= 2


def test_generated_rows_are_told_by_what_they_hold_and_not_by_the_name_of_the_generator() -> None:
    def generator(count: int, _: int) -> dict[str, Any]:
        return {"number": [*range(count)]}

    first = train_rows(generator)

    def generator(count: int, _: int) -> dict[str, Any]:  # type: ignore[no-redef]
        return {"number": [*range(1, count + 1)]}

    changed = train_rows(generator)
    assert first.origin == changed.origin
    assert first.fingerprint != changed.fingerprint
    assert changed.table["number"][:] == [*range(1, 9)]
    assert train_rows(lambda count, _: {"number": [*range(count)]}).fingerprint == first.fingerprint


def test_parts_that_are_none_or_do_not_fit_are_refused() -> None:
    def other_types(_: int, __: int) -> Iterator[dict[str, Any]]:
        yield {"a": ["text"]}
        yield {"a": [{"b": 1}]}

    def failing(_: int, __: int) -> Iterator[dict[str, Any]]:
        yield {"a": ["text"]}
        raise KeyError("b")

    with pytest.raises(ValueError, match=r"columns of other_types .* values of one type, but: "):
        train_rows(other_types)
    with pytest.raises(UserCodeError, match=r"of rows failing \(train, seed 0\) failed with KeyE"):
        train_rows(failing)
    nothing: list[Any] = [[], {"a": []}, [{"a": []}, {"a": []}]]
    for made in nothing:
        with pytest.raises(ValueError, match=r"<lambda> .* has no rows"):
            train_rows(lambda _, __, made=made: made)


def test_rows_of_one_language_say_so(tmp_path: Path) -> None:
    write(tmp_path / "cola" / "train.parquet", COLUMNS)
    source = HubSource(path=None, mirror="cola", language="en")
    assert loaded(source, "train", tmp_path).table["lang"][:] == ["en", "en"]
    assert source.load("test", mirror=tmp_path) is None


def test_splits_may_come_from_several_sources(tmp_path: Path) -> None:
    write(tmp_path / "cola" / "train.parquet", COLUMNS)
    write(tmp_path / "cola" / "validation.parquet", COLUMNS)
    other: dict[str, list[Any]] = {"sentence": ["a goat"], "label": [0]}
    write(tmp_path / "other" / "validation.parquet", other)
    tested = HubSource(path=None, mirror="other", mirror_splits={"test": "validation"})
    source = SplitSource(train=SOURCE, validation=SOURCE, test=tested)
    for split, expected in (("train", COLUMNS), ("validation", COLUMNS), ("test", other)):
        assert loaded(source, split, tmp_path).table.to_dict() == expected
    assert SplitSource(train=SOURCE, validation=SOURCE).load("test", mirror=tmp_path) is None
