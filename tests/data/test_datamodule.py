import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset

from multiprune.data.datamodule import MultitaskDataModule
from multiprune.data.loader import Loader
from multiprune.data.mixing import FixedMixing, ProportionalMixing
from multiprune.data.pieces import CorpusError
from multiprune.data.source import GeneratedSource
from multiprune.data.wordless import wordless_rows
from multiprune.metrics import Accuracy, Pearson
from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks.classification import Classification, Regression
from multiprune.tasks.rows import Rows
from multiprune.tasks.synthetic import WORDS, agreement
from multiprune.tasks.tagging import Tagging
from multiprune.tasks.task import Task

TOKENIZER = character_tokenizer()
SPLITS = {"train": 23, "validation": 7, "test": 5}

Generator = Callable[[int, int], Mapping[str, list[Any]]]


def numbered(count: int, seed: int) -> dict[str, list[Any]]:
    """Make rows of which each is a different word of the vocabulary."""
    return {"sentence": [*WORDS[seed : seed + count]], "label": [row % 2 for row in range(count)]}


def unlabelled_test(count: int, seed: int) -> dict[str, list[Any]]:
    """Leave every third label out, and all labels of the split with seed 2: the test split."""
    labels = [-1 if seed == 2 or row % 3 == 0 else row % 2 for row in range(count)]
    return numbered(count, seed) | {"label": labels}


def task(generator: Generator = numbered, rows: Mapping[str, int] = SPLITS) -> Task:
    return Classification(
        text=["sentence"],
        label="label",
        labels=["bad", "good"],
        metrics={"accuracy": Accuracy()},
        source=GeneratedSource(generator=generator, rows=rows),
    )


def data_module(folder: Path, tasks: Mapping[str, Task], **changes: Any) -> MultitaskDataModule:
    arguments: dict[str, Any] = {
        "tokenizer": TOKENIZER,
        "max_length": 32,
        "batch_size": 4,
        "mixing": ProportionalMixing(),
        "cache": str(folder),
    }
    return MultitaskDataModule(tasks=tasks, **arguments | changes)


def set_up(folder: Path, tasks: Mapping[str, Task], **changes: Any) -> MultitaskDataModule:
    data = data_module(folder, tasks, **changes)
    data.prepare_data()
    data.setup()
    return data


def place(rank: int, world_size: int, device: str = "cpu") -> SimpleNamespace:
    """Stand for a Trainer, which says where this process is among others."""
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(global_rank=rank, world_size=world_size, strategy=strategy)


def words(data: MultitaskDataModule, name: str = "one", split: str = "train") -> list[int]:
    return [tokens[1] for tokens in data.encoded[name].splits[split]["input_ids"]]


def test_no_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one task"):
        data_module(tmp_path, {})


def test_cap_of_an_unknown_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`data\.cap` .* \(one\), but names three, two"):
        data_module(tmp_path, {"one": task()}, cap={"two": 3, "one": 2, "three": 4})


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 0},
        {"evaluation_batch_size": 0},
        {"max_length": 0},
        {"sort_window": 0},
        {"cap": {"one": 0}},
    ],
    ids=str,
)
def test_sizes_below_1_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be a whole number of at least 1, but is 0"):
        data_module(tmp_path, {"one": task()}, **changes)


def test_cap_takes_that_many_training_rows(tmp_path: Path) -> None:
    whole = words(set_up(tmp_path, {"one": task()}))
    data = set_up(tmp_path, {"one": task(), "two": task()}, cap={"one": 9})
    chosen = words(data)
    assert len(whole) == len(set(whole)) == 23
    assert len(set(chosen)) == len(chosen) == 9
    assert set(chosen) < set(whole)
    assert words(data, "two") == whole
    assert len(data.encoded["one"].splits["validation"]) == 7


def test_capped_rows_keep_their_labels(tmp_path: Path) -> None:
    tasks = {"one": task()}
    whole, capped = set_up(tmp_path, tasks), set_up(tmp_path, tasks, cap={"one": 9})
    labels = dict(zip(words(whole), whole.encoded["one"].splits["train"]["labels"], strict=True))
    found = capped.encoded["one"].splits["train"]["labels"][:]
    assert found == [labels[word] for word in words(capped)]


def test_seed_decides_the_choice_of_a_cap(tmp_path: Path) -> None:
    tasks = {"one": task(), "two": task()}
    one, same, other = (set_up(tmp_path, tasks, cap={"one": 9}, seed=seed) for seed in (0, 0, 1))
    assert words(one) == words(same)
    assert words(one) != words(other)


def test_capped_task_has_the_same_examples_alone_and_among_others(tmp_path: Path) -> None:
    cap = {"two": 9}
    alone = set_up(tmp_path, {"two": task()}, cap=cap)
    among = set_up(tmp_path, {"one": task(), "two": task()}, cap=cap)
    chosen = [data.encoded["two"].splits["train"]["input_ids"][:] for data in (alone, among)]
    assert chosen[0] == chosen[1]


def test_cap_of_each_stands_for_the_tasks_that_are_not_named(tmp_path: Path) -> None:
    tasks = {"one": task(), "two": task()}
    data = set_up(tmp_path, tasks, cap={"each": 9, "two": 5})
    assert data.examples == {"one": 9, "two": 5}
    assert words(data) == words(set_up(tmp_path, tasks, cap={"one": 9}))


@pytest.mark.parametrize("cap", [23, 1000])
def test_cap_above_the_number_of_rows_changes_nothing(tmp_path: Path, cap: int) -> None:
    tasks = {"one": task()}
    assert words(set_up(tmp_path, tasks, cap={"one": cap})) == words(set_up(tmp_path, tasks))


def test_truncation_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # With [CLS] and [SEP], more than three words are cut; all sentences of agreement are longer.
    with caplog.at_level(logging.WARNING):
        data = set_up(tmp_path, {"one": task(agreement), "two": task()}, max_length=5)
        data.setup()
    count = sum(SPLITS.values())
    assert caplog.messages == [f"one: truncated {count} texts to 5 tokens."]
    assert (data.encoded["one"].truncated, data.encoded["two"].truncated) == (count, 0)


def test_words_that_are_not_read_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def tagged(count: int, seed: int) -> dict[str, list[Any]]:  # noqa: ARG001
        return {"words": [["the"] * 4] * count, "tags": [[0, 1, 0, 1]] * count}

    def tagging(overlap: int | None) -> Task:
        return Tagging(
            text=["words"],
            label="tags",
            labels=["other", "agent"],
            metrics={"accuracy": Accuracy()},
            source=GeneratedSource(generator=tagged, rows=SPLITS),
            overlap=overlap,
        )

    tasks = {"cut": tagging(None), "windows": tagging(1)}
    with caplog.at_level(logging.WARNING):
        data = set_up(tmp_path, tasks, max_length=5)  # three words
    assert caplog.messages == [
        "cut: truncated 35 texts to 5 tokens.",
        "cut: 35 words were truncated and count as not found.",
    ]
    assert data.examples == {"cut": 23, "windows": 23}


def test_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    data = set_up(tmp_path, {"one": task(unlabelled_test)})
    splits = data.encoded["one"].splits
    assert set(splits) == {"train", "validation"}
    assert splits["train"]["labels"][:] == [row % 2 for row in range(23) if row % 3 > 0]
    whole = words(set_up(tmp_path, {"one": task()}))
    assert words(data) == [word for row, word in enumerate(whole) if row % 3 > 0]
    assert data.test_dataloader() == []


def test_left_out_rows_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        set_up(tmp_path, {"one": task(unlabelled_test)})
    # Every third of 23 rows and of 7; the test split is left out as a whole.
    assert caplog.messages == ["one: skipped 11 rows without a label."]


def test_rows_without_a_word_are_left_out_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def tagged(count: int, seed: int) -> dict[str, list[Any]]:
        # The rows 4, 9, 14 and 19 of the training data are empty, and none of the others.
        words = [[] if seed == 0 and row % 5 == 4 else ["cat"] * (1 + row) for row in range(count)]
        return {"words": words, "tags": [[0] * len(one) for one in words]}

    task = Tagging(
        text=["words"],
        label="tags",
        labels=["a", "b"],
        metrics={"accuracy": Accuracy()},
        source=GeneratedSource(generator=tagged, rows=SPLITS),
    )
    with caplog.at_level(logging.WARNING):
        data = set_up(tmp_path, {"one": task})
        data.prepare_data()
    (said,) = caplog.messages
    assert said.startswith("one: skipped 4 rows without a word of ")
    assert said.endswith(", the first is row 4.")
    assert data.examples == {"one": 19}
    kept = [len(one) - 2 for one in data.encoded["one"].splits["train"]["input_ids"][:]]
    assert kept == [1 + row for row in range(23) if row % 5 < 4]
    rows = data.rows("one", "train")
    assert rows is not None
    assert [len(one) for one in rows.table["words"][:]] == kept


@pytest.mark.parametrize("empty", [0, 1])
def test_task_without_any_word_is_refused_by_its_name_and_file(tmp_path: Path, empty: int) -> None:
    def tagged(count: int, seed: int) -> dict[str, list[Any]]:
        words = [[] if seed == empty else ["cat"] for _ in range(count)]
        return {"words": words, "tags": [[0] * len(one) for one in words]}

    silent = Tagging(
        text=["words"],
        label="tags",
        labels=["a", "b"],
        metrics={"accuracy": Accuracy()},
        source=GeneratedSource(generator=tagged, rows=SPLITS),
    )
    split, count = [*SPLITS.items()][empty]
    with pytest.raises(ValueError, match="without a word") as error:
        set_up(tmp_path, {"one": task(), "silent": silent})
    assert str(error.value) == (
        f"All {count} rows of tagged ({split}, seed {empty}), of the task 'silent', are without a "
        "word in column 'words'."
    )


def test_texts_of_no_token_are_rows_without_a_word() -> None:
    bare = character_tokenizer()
    bare.backend_tokenizer.post_processor = None
    assert not bare.num_special_tokens_to_add(pair=False)
    columns = {"sentence": ["", "cat", " "], "label": [0, 1, 0]}
    rows = Rows(Dataset.from_dict(columns), "corpus.parquet", "")
    assert wordless_rows(rows, task(), bare) == [0, 2]
    # Between special tokens, there is something to read.
    assert wordless_rows(rows, task(), TOKENIZER) == []


def test_minus_1_within_the_bounds_of_a_number_is_a_label(tmp_path: Path) -> None:
    def polarity(count: int, seed: int) -> dict[str, list[Any]]:
        return numbered(count, seed) | {"label": [float(row % 3 - 1) for row in range(count)]}

    number = Regression(
        text=["sentence"],
        label="label",
        minimum=-1,
        maximum=1,
        metrics={"pearson": Pearson()},
        source=GeneratedSource(generator=polarity, rows=SPLITS),
    )
    data = set_up(tmp_path, {"one": number})
    assert len(data.encoded["one"].splits["train"]) == 23


@pytest.mark.parametrize("missing", ["train", "validation"])
def test_task_without_a_required_split_is_refused(tmp_path: Path, missing: str) -> None:
    rows = {split: count for split, count in SPLITS.items() if split != missing}
    with pytest.raises(ValueError, match=missing):
        set_up(tmp_path, {"one": task(rows=rows)})


def test_epoch_has_the_batches_of_all_tasks(tmp_path: Path) -> None:
    data = set_up(tmp_path, {"one": task(), "two": task(rows=SPLITS | {"train": 8})})
    batches = list(data.train_dataloader())
    assert [batch.task for batch in batches].count("one") == 6
    assert [batch.task for batch in batches].count("two") == 2
    found = [word for one in batches if one.task == "one" for word in one.inputs["input_ids"][:, 1]]
    assert sorted(map(int, found)) == sorted(words(data))


def test_mixing_sees_the_tasks_in_batches(tmp_path: Path) -> None:
    tasks = {"one": task(), "two": task(rows=SPLITS | {"train": 8})}
    data = set_up(tmp_path, tasks, mixing=FixedMixing(weights={"one": 1, "two": 3}))
    names = [batch.task for batch in data.train_dataloader()]
    assert (names.count("one"), names.count("two")) == (2, 6)


def test_evaluation_has_one_iterable_a_task(tmp_path: Path) -> None:
    tasks = {"one": task(), "two": task(rows={"train": 4, "validation": 6})}
    data = set_up(tmp_path, tasks, evaluation_batch_size=4)
    sizes = [[(one.task, len(one.labels)) for one in loader] for loader in data.val_dataloader()]
    assert sizes == [[("one", 4), ("one", 3)], [("two", 4), ("two", 2)]]
    assert [[one.task for one in loader] for loader in data.test_dataloader()] == [["one"] * 2]


def test_ranks_of_the_trainer_share_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = set_up(tmp_path, {"one": task()}, evaluation_batch_size=2)
    trained: list[int] = []
    evaluated: list[int] = []
    for rank in range(2):
        monkeypatch.setattr(data, "trainer", place(rank, 2))
        batches = list(data.train_dataloader())
        # Two ranks of 4 examples see the 23 rows in batches of 8, 8 and 7, the last one filled up.
        assert [len(batch.labels) for batch in batches] == [4, 4, 4]
        trained += [int(word) for one in batches for word in one.inputs["input_ids"][:, 1]]
        (loader,) = data.val_dataloader()
        evaluated += [int(word) for one in loader for word in one.inputs["input_ids"][:, 1]]
    assert set(trained) == set(words(data))
    assert sorted(evaluated) == sorted(words(data, split="validation"))


def test_a_split_of_fewer_rows_than_processes_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = set_up(tmp_path, {"one": task()})
    for world_size in (5, 6):
        monkeypatch.setattr(data, "trainer", place(0, world_size))
        fits = pytest.raises(
            CorpusError, match="test of one has 5 rows, fewer than the 6 processes"
        )
        with fits if world_size == 6 else nullcontext():
            data.train_dataloader()


def test_restored_state_continues_the_training_batches(tmp_path: Path) -> None:
    tasks = {"one": task(), "two": task(rows=SPLITS | {"train": 8})}
    expected = list(set_up(tmp_path, tasks).train_dataloader())

    stopped = set_up(tmp_path, tasks)
    first = list(islice(stopped.train_dataloader(), 3))
    resumed = set_up(tmp_path, tasks)
    resumed.load_state_dict(stopped.state_dict())
    found = first + list(islice(resumed.train_dataloader(), len(expected) - 3))
    for one, other in zip(found, expected, strict=True):
        assert one.task == other.task
        assert one.inputs["input_ids"].tolist() == other.inputs["input_ids"].tolist()
        assert one.labels.tolist() == other.labels.tolist()


def test_module_that_never_trained_has_no_state(tmp_path: Path) -> None:
    data = set_up(tmp_path, {"one": task()})
    assert data.state_dict() == {}
    data.load_state_dict({})
    assert data.train_dataloader().state_dict() == {"served": 0}


def test_a_number_of_workers_below_0_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`workers` must be a whole number of at least 0"):
        data_module(tmp_path, {"one": task()}, workers=-1)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_are_pinned_for_cuda_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    data = set_up(tmp_path, {"one": task()}, workers=2)
    monkeypatch.setattr(data, "trainer", place(0, 1, device))
    (evaluation,) = data.val_dataloader()
    for batches in (data.train_dataloader(), evaluation):
        assert batches.loader == Loader(workers=2, is_pinned=device == "cuda")
