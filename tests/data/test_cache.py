import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from filelock import FileLock
from pyarrow import Table
from transformers import PreTrainedTokenizerBase

from multiprune.data.cache import default_cache_folder, encoded_rows
from multiprune.data.rows_file import RowsFile
from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks.classification import Classification
from multiprune.tasks.rows import Rows
from multiprune.tasks.task import Task

Encoded = tuple[dict[str, list[Any]], int]

COLUMNS: dict[str, list[Any]] = {
    "sentence": ["the dog runs", "cats", "the red cat runs"],
    "label": [1, 0, 1],
}
ROWS = Rows(Dataset.from_dict(COLUMNS), "corpus.parquet", "fingerprint")


class CountingTask(Classification):
    """A task that counts how often it encodes, and can do something first."""

    encodings = 0
    first: Callable[[], object] | None = None

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
        self.encodings += 1
        if self.first is not None:
            self.first()
        return super().encode(rows, tokenizer, max_length)


def counting_task(labels: tuple[str, ...] = ("bad", "good")) -> CountingTask:
    return CountingTask(
        text=["sentence"],
        label="label",
        labels=labels,
        metrics={"accuracy": Accuracy()},
        source=HubSource(path=None, mirror="nowhere"),
    )


def read(
    task: Task, folder: Path, *, rows: Rows = ROWS, max_length: int = 16, cased: bool = False
) -> Encoded:
    tokenizer = character_tokenizer()
    if cased:
        tokenizer.backend_tokenizer.normalizer = None
    table, truncated = encoded_rows(task, rows, tokenizer, max_length=max_length, folder=folder)
    return table.to_dict(), truncated


def visible(folder: Path) -> list[Path]:
    return [one for one in folder.glob("*") if not one.name.endswith(".lock")]


def test_rows_are_those_that_the_task_encodes(tmp_path: Path) -> None:
    expected = counting_task().encode(ROWS, character_tokenizer(), 16)
    assert read(counting_task(), tmp_path) == expected


def test_second_reader_does_not_tokenize(tmp_path: Path) -> None:
    task = counting_task()
    first = read(task, tmp_path)
    assert task.encodings == 1
    other = counting_task()
    assert read(task, tmp_path) == first
    assert read(other, tmp_path) == first
    assert (task.encodings, other.encodings) == (1, 0)


def test_tokenizer_that_was_used_before_finds_the_same_rows(tmp_path: Path) -> None:
    task, tokenizer = counting_task(), character_tokenizer()
    encoded_rows(task, ROWS, tokenizer, max_length=16, folder=tmp_path)
    tokenizer(["the dog"], padding=True, truncation=True, max_length=3)
    encoded_rows(task, ROWS, tokenizer, max_length=16, folder=tmp_path)
    assert task.encodings == 1


def test_number_of_truncated_texts_is_kept(tmp_path: Path) -> None:
    task = counting_task()
    # With [CLS] and [SEP], the texts have 5, 3 and 6 tokens.
    assert [read(task, tmp_path, max_length=4)[1] for _ in range(2)] == [2, 2]
    assert read(task, tmp_path, max_length=5)[1] == 1


@pytest.mark.parametrize(
    "changed", ["max_length", "labels", "fingerprint", "tokenizer", "text", "nothing"]
)
def test_rows_are_encoded_anew_when_what_they_depend_on_changes(
    tmp_path: Path, changed: str
) -> None:
    read(counting_task(), tmp_path)
    task = counting_task(("bad", "great") if changed == "labels" else ("bad", "good"))
    if changed == "text":
        task.text = ["sentence", "sentence"]
    rows = Rows(ROWS.table, ROWS.origin, "other" if changed == "fingerprint" else ROWS.fingerprint)
    max_length = 5 if changed == "max_length" else 16
    read(task, tmp_path, rows=rows, max_length=max_length, cased=changed == "tokenizer")
    assert task.encodings == (0 if changed == "nothing" else 1)


def test_origin_of_the_rows_plays_no_part(tmp_path: Path) -> None:
    read(counting_task(), tmp_path)
    task = counting_task()
    read(task, tmp_path, rows=Rows(ROWS.table, "elsewhere.parquet", ROWS.fingerprint))
    assert task.encodings == 0


def test_failing_encode_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    wrong = Rows(Dataset.from_dict(COLUMNS | {"label": [0, 1, 2]}), "corpus.parquet", "wrong")
    with pytest.raises(ValueError, match="row 2 is 2"):
        read(counting_task(), folder, rows=wrong)
    assert not visible(folder)


def test_failing_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(rows: RowsFile, _part: Table) -> None:
        rows.file.write_text("half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RowsFile, "write", full)
        with pytest.raises(OSError, match="No space left"):
            read(counting_task(), tmp_path)
    assert not visible(tmp_path)
    assert read(counting_task(), tmp_path)[0]["labels"] == [1, 0, 1]


def test_what_a_killed_process_has_half_written_is_gone_once_the_rows_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(rows: RowsFile, _part: Table) -> None:
        rows.file.write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RowsFile, "write", killed)
        # As after ``kill -9``, nothing is done on the way out.
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            read(counting_task(), tmp_path)
    assert [one.is_dir() for one in visible(tmp_path)] == [True]
    assert read(counting_task(), tmp_path)[0]["labels"] == [1, 0, 1]
    (place,) = visible(tmp_path)
    assert not place.name.startswith(".")


def test_of_several_readers_at_once_one_tokenizes(tmp_path: Path) -> None:
    tasks = [counting_task() for _ in range(4)]
    together = threading.Barrier(len(tasks))

    def read_with_the_others(task: CountingTask) -> Encoded:
        task.first = lambda: time.sleep(0.1)
        together.wait()
        return read(task, tmp_path)

    with ThreadPoolExecutor(len(tasks)) as pool:
        first, *others = pool.map(read_with_the_others, tasks)
    assert sum(task.encodings for task in tasks) == 1
    assert all(other == first for other in others)


def test_without_locks_rows_that_another_process_wrote_meanwhile_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: FileLock) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    task, other = counting_task(), counting_task()
    task.first = lambda: read(other, tmp_path)
    found = read(task, tmp_path)
    assert (task.encodings, other.encodings) == (1, 1)
    assert found == read(other, tmp_path)
    assert len(visible(tmp_path)) == 1
    assert "may tokenize the same rows at once: FileSystem does not" in caplog.text


@pytest.mark.parametrize("lost", ["counts.json", "rows.arrow"])
def test_rows_of_which_a_file_has_vanished_are_written_anew(lost: str, tmp_path: Path) -> None:
    expected = read(counting_task(), tmp_path)
    (file,) = tmp_path.rglob(lost)
    file.unlink()
    task = counting_task()
    assert read(task, tmp_path) == expected
    assert read(task, tmp_path) == expected
    assert task.encodings == 1


def test_rows_that_are_cut_short_are_written_anew(tmp_path: Path) -> None:
    expected = read(counting_task(), tmp_path)
    (file,) = tmp_path.rglob("*.arrow")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert read(counting_task(), tmp_path) == expected


def test_missing_parents_of_the_folder_are_made(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    read(counting_task(), folder)
    assert len(visible(folder)) == 1


def test_default_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_folder() == tmp_path / "xdg" / "multiprune"
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert default_cache_folder() == tmp_path / ".cache" / "multiprune"
