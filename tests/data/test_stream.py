"""Training on a corpus that is encoded as it is read."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import fsspec
import pytest
from streamed_world import (
    TEXTS,
    TOKENIZER,
    data_module,
    encoded_pieces,
    read,
    source,
    streamed,
    take,
    texts_of,
    tokens_of,
    train_batches,
    write_lines,
    write_parquet,
)

from multiprune.data.pieces import CorpusError, Piece
from multiprune.data.source import GeneratedSource
from multiprune.metrics import Accuracy
from multiprune.tasks.classification import Classification
from multiprune.tasks.packing import across_texts, beside_texts
from multiprune.tasks.synthetic import agreement

if TYPE_CHECKING:
    from pathlib import Path

# In batches of 8, a pass through the corpus has 15.
PASS = len(TEXTS) // 8


@pytest.mark.parametrize(
    ("buffer", "files", "piece_size"),
    [(1, 3, 250), (2, 3, 250), (5, 3, 250), (100, 3, 250), (1, 1, 100_000)],
)
def test_each_text_comes_once_a_pass_in_another_order_each_time(
    tmp_path: Path, buffer: int, files: int, piece_size: int
) -> None:
    corpus = write_lines(tmp_path / "corpus", files=files)
    task = streamed(corpus, buffer=buffer, piece_size=piece_size)
    batches = train_batches(tmp_path / "cache", task)
    passes = [texts_of(take(batches, PASS)) for _ in range(3)]
    for one in passes:
        assert Counter(one) == Counter(TEXTS)
        assert one != sorted(one)
    assert passes[0] != passes[1] != passes[2] != passes[0]


def test_seed_and_name_of_the_task_decide_the_order(tmp_path: Path) -> None:
    task, cache = streamed(write_lines(tmp_path / "corpus")), tmp_path / "cache"
    one, same, other = (
        read(take(train_batches(cache, task, seed=seed), PASS)) for seed in (0, 0, 1)
    )
    assert one == same
    assert one != other
    texts = texts_of(take(train_batches(cache, task), PASS))
    renamed = texts_of(take(train_batches(cache, {"other": task}), PASS))
    assert Counter(texts) == Counter(renamed)
    assert texts != renamed


def test_the_blocks_of_two_pieces_are_shuffled_together(tmp_path: Path) -> None:
    task = streamed(write_lines(tmp_path / "corpus"), buffer=2)
    batches = train_batches(tmp_path / "cache", task)
    pieces = source(str(tmp_path / "corpus" / "*.txt")).corpus("text", None).pieces
    piece_of = {text: number for number, piece in enumerate(pieces) for text in piece.texts()}
    sequence = [piece_of[text] for text in texts_of(take(batches, PASS))]
    order = [*dict.fromkeys(sequence)]
    assert len(order) > 8
    assert order != sorted(order)
    for first in range(0, len(order) - 1, 2):
        pair = order[first : first + 2]
        count = sum(number in pair for number in piece_of.values())
        group, sequence = sequence[:count], sequence[count:]
        assert {*group} == {*pair}
        # Neither is one piece behind the other.
        assert len([*groupby(group)]) > 2


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_read_what_one_reads(tmp_path: Path, world_size: int) -> None:
    task, cache = streamed(write_lines(tmp_path / "corpus")), tmp_path / "cache"
    whole = take(train_batches(cache, task), 40)
    shutil.rmtree(cache)
    ranks = [
        take(train_batches(cache, task, rank=rank, world_size=world_size), 40)
        for rank in range(world_size)
    ]
    for one, *parts in zip(whole, *ranks, strict=True):
        rows = {row: place for place, row in enumerate(one.rows)}
        assert sorted(row for part in parts for row in part.rows) == sorted(rows)
        for part in parts:
            places = [rows[row] for row in part.rows]
            assert tokens_of(part) == [tokens_of(one)[place] for place in places]
            width = part.labels.shape[1]
            assert part.labels.tolist() == one.labels[places, :width].tolist()


def test_three_ranks_read_each_text_once(tmp_path: Path) -> None:
    task, cache = streamed(write_lines(tmp_path / "corpus")), tmp_path / "cache"
    ranks = [
        take(train_batches(cache, task, rank=rank, world_size=3, batch_size=4), len(TEXTS) // 12)
        for rank in range(3)
    ]
    assert Counter(text for one in ranks for text in texts_of(one)) == Counter(TEXTS)


@pytest.mark.parametrize("keeps_cache", [True, False])
@pytest.mark.parametrize("served", [0, 1, 2, 3, PASS - 1, PASS, PASS + 2, 3 * PASS + 4])
def test_a_resumed_run_reads_the_same_blocks_with_the_same_tokens_hidden(
    tmp_path: Path, served: int, keeps_cache: bool
) -> None:
    # A group has about 20 blocks, and an epoch of training 5 batches: 1 stops within the first
    # group, 2 and 3 around its border, the others around the end of a pass and behind it.
    task, cache = streamed(write_lines(tmp_path / "corpus")), tmp_path / "cache"
    straight = read(take(train_batches(cache, task), served + PASS))
    stopped = train_batches(cache, task)
    take(stopped, served)
    pieces = encoded_pieces(cache)
    if not keeps_cache:
        shutil.rmtree(cache)
    resumed = data_module(cache, task)
    resumed.load_state_dict(stopped.state_dict())
    batches = resumed.train_dataloader()
    found = take(batches, 1)
    if not keeps_cache and served > PASS:
        # Nothing of what came before the group is read again.
        assert encoded_pieces(cache) <= 4 < pieces
    assert read(found + take(batches, PASS - 1)) == straight[served:]


def test_blocks_are_found_by_number_alone(tmp_path: Path) -> None:
    task = streamed(write_lines(tmp_path / "corpus"))
    stream = train_batches(tmp_path / "cache", task).streams["mlm"]
    ahead = stream[range(300)]["input_ids"]
    for number in (299, 0, 150, 149, 37):
        assert stream[[number]]["input_ids"] == [ahead[number]]
    assert stream[[7, 200, 7, 3]]["input_ids"] == [ahead[place] for place in (7, 200, 7, 3)]


def test_lines_and_rows_and_file_systems_give_the_same_blocks(tmp_path: Path) -> None:
    # One piece each, so that pieces are the same.
    lines = write_lines(tmp_path / "corpus", files=1)
    table = write_parquet(tmp_path / "a.parquet", TEXTS, row_group_size=200)
    content = "".join(f"{text}\r\n" for text in TEXTS).encode()
    fsspec.filesystem("memory").pipe("/streamed/a.txt", content)
    found = [
        read(take(train_batches(tmp_path / "cache", streamed(file, piece_size=1 << 20)), PASS + 3))
        for file in (lines, table, "memory://streamed/*.txt")
    ]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("packing", [across_texts, beside_texts])
def test_every_token_comes_once_a_pass_however_texts_are_packed(
    tmp_path: Path, packing: Any
) -> None:
    task = streamed(write_lines(tmp_path / "corpus"), packing=packing)
    stream = train_batches(tmp_path / "cache", task).streams["mlm"]
    count = sum(len(stream.ahead.encoder(piece)) for piece in stream.corpus.pieces)
    for first in (0, count):
        columns = stream[range(first, first + count)]
        ordinary = Counter(token for block in columns["input_ids"] for token in block if token > 4)
        words = Counter(" ".join(TEXTS).split())
        assert {TOKENIZER.decode([token]): times for token, times in ordinary.items()} == words
        assert ("position_ids" in columns) == (packing is beside_texts)


def test_training_begins_once_the_first_group_is_encoded(tmp_path: Path) -> None:
    task, cache = streamed(write_lines(tmp_path / "corpus")), tmp_path / "cache"
    batches = train_batches(cache, task)
    assert len(task.source.corpus("text", None).pieces) > 8  # type: ignore[attr-defined]
    assert encoded_pieces(cache) == 0
    take(batches, 1)
    assert encoded_pieces(cache) == 2
    take(batches, 3)
    assert encoded_pieces(cache) == 4


def test_as_many_pieces_are_held_however_large_the_corpus_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = streamed(write_lines(tmp_path / "corpus", TEXTS * 5))
    batches = train_batches(tmp_path / "cache", task)
    stream = batches.streams["mlm"]
    held: WeakSet[Any] = WeakSet()
    encode = type(stream.ahead.encoder).__call__
    most = 0

    def noted(self: Any, piece: Piece) -> Any:
        nonlocal most
        table = encode(self, piece)
        held.add(table)
        most = max(most, len(held))
        return table

    monkeypatch.setattr(type(stream.ahead.encoder), "__call__", noted)
    take(batches, 5 * PASS)
    assert len(stream.corpus.pieces) > 40
    assert most <= 2 * stream.corpus.source.buffer


def test_an_epoch_counts_the_blocks_that_are_stated_beside_other_tasks(tmp_path: Path) -> None:
    supervised = Classification(
        text=["sentence"],
        label="label",
        labels=["no", "yes"],
        metrics={"accuracy": Accuracy()},
        source=GeneratedSource(generator=agreement, rows={"train": 32, "validation": 8}),
    )
    mlm = streamed(write_lines(tmp_path / "corpus"), examples_per_epoch=41)
    tasks = {"mlm": mlm, "agreement": supervised}
    data = data_module(tmp_path / "cache", tasks, max_length=32, cap={"each": 24})
    assert data.examples == {"mlm": 41, "agreement": 24}
    batches = data.train_dataloader()
    names = [batch.task for batch in batches]
    # 41 blocks are 6 batches of 8.
    assert Counter(names) == {"mlm": 6, "agreement": 3}
    # The stream goes on in the next epoch, and is the same as alone.
    first = [batch for batch in take(data.train_dataloader(), 18) if batch.task == "mlm"]
    alone = take(train_batches(tmp_path / "cache", mlm, max_length=32), 12)
    assert [tokens_of(one) for one in first] == [tokens_of(one) for one in alone]
    assert [*first[-1].rows] == [*range(88, 96)]


def test_pieces_without_text_are_skipped_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pattern = write_lines(tmp_path / "corpus")
    (tmp_path / "corpus" / "9.txt").write_text("\n" * 500)
    batches = train_batches(tmp_path / "cache", streamed(pattern))
    with caplog.at_level(logging.WARNING):
        assert Counter(texts_of(take(batches, PASS))) == Counter(TEXTS)
        take(batches, 3 * PASS)
    (message,) = caplog.messages
    assert "2 of " in message
    assert message.endswith("pieces hold no text.")


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["", "  "], "gives 0 blocks, and a batch needs 8"), (TEXTS[:5], "gives 5 blocks")],
)
def test_a_corpus_of_less_than_a_batch_is_refused(
    tmp_path: Path, texts: list[str], message: str
) -> None:
    batches = train_batches(tmp_path / "cache", streamed(write_lines(tmp_path / "corpus", texts)))
    with pytest.raises(CorpusError, match=message):
        take(batches, 1)


def test_a_corpus_that_has_changed_is_refused_when_a_run_goes_on(tmp_path: Path) -> None:
    task, cache = streamed(write_lines(tmp_path / "corpus")), tmp_path / "cache"
    stopped = train_batches(cache, task)
    expected = read(take(stopped, 6))[3:]
    stopped = train_batches(cache, task)
    take(stopped, 3)
    # A copy elsewhere is the same corpus.
    copy = streamed(write_lines(tmp_path / "copy" / "corpus"))
    moved = data_module(cache, copy)
    moved.load_state_dict(stopped.state_dict())
    assert read(take(moved.train_dataloader(), 3)) == expected
    for change in ("appended", "added"):
        pattern = write_lines(tmp_path / change / "corpus")
        file = tmp_path / change / "corpus" / ("0.txt" if change == "appended" else "3.txt")
        with file.open("a") as stream:
            stream.write("one more\n")
        changed = data_module(cache, streamed(pattern))
        changed.load_state_dict(stopped.state_dict())
        with pytest.raises(CorpusError, match="were added, removed or resized since"):
            changed.train_dataloader()


def test_bad_text_ends_training_with_a_sentence(tmp_path: Path) -> None:
    pattern = write_lines(tmp_path / "corpus", files=1)
    file = tmp_path / "corpus" / "0.txt"
    content = bytearray(file.read_bytes())
    content[1234] = 0xFF
    file.write_bytes(content)
    with pytest.raises(CorpusError, match=r"UTF-8, but byte 1,234 of .*0\.txt is not"):
        take(train_batches(tmp_path / "cache", streamed(pattern)), PASS)


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for name in ("examples_per_epoch", "piece_size", "buffer"):
        with pytest.raises(ValueError, match=f"`{name}` must be .* at least 1, but is 0"):
            source("a.txt", **{name: 0})
    with pytest.raises(ValueError, match=r"`workers` must be .* at least 0, but is -1"):
        source("a.txt", workers=-1)
    with pytest.raises(ValueError, match=r"list of patterns, but is \(\)"):
        source()
    task = streamed(write_lines(tmp_path / "corpus"))
    with pytest.raises(ValueError, match=r"`data\.cap` .* but mlm is streamed"):
        data_module(tmp_path, task, cap={"mlm": 3})
    with pytest.raises(ValueError, match="can only be streamed"):
        task.source.load("train", mirror=None)
    wrong = Classification(
        text=["text"], label="label", labels=["a", "b"], metrics={"accuracy": Accuracy()},
        source=task.source,
    )  # fmt: skip
    with pytest.raises(ValueError, match="but mlm is a Classification"):
        data_module(tmp_path, wrong)


def test_only_patterns_of_the_mirror_are_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(tmp_path / "mirror" / "corpus")
    own = source("mirror/corpus/0.txt", mirror=["corpus/*.txt"])
    mirrored = replace(own, files=None)
    assert len(mirrored.corpus("text", tmp_path / "mirror").pieces) > 8
    with pytest.raises(
        FileNotFoundError, match=r"No files of the corpus match .*elsewhere/corpus/\*\.txt"
    ):
        mirrored.corpus("text", tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"`data\.mirror` must be set for corpus/\*\.txt"):
        mirrored.corpus("text", None)
    monkeypatch.chdir(tmp_path)
    pieces = own.corpus("text", tmp_path / "elsewhere").pieces
    names = {one.file.name for one in pieces}
    assert names == {str(tmp_path / "mirror" / "corpus" / "0.txt")}
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match=r"corpus .* has no text"):
        source(str(tmp_path / "empty.txt")).corpus("text", None)


def test_a_piece_that_is_cached_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, cache = streamed(write_lines(tmp_path / "corpus")), tmp_path / "cache"
    expected = read(take(train_batches(cache, task), PASS))

    def refuse(_: Piece) -> list[str]:
        raise AssertionError

    monkeypatch.setattr(Piece, "texts", refuse)
    assert read(take(train_batches(cache, task), PASS)) == expected
