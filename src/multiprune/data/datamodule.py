"""A LightningDataModule that loads and encodes all tasks and serves one-task batches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.data.batches import (
    EncodedTask,
    EvaluationBatches,
    TrainBatches,
    examples_of,
    token_counts,
)
from multiprune.data.cache import default_cache_folder
from multiprune.data.loader import Loader, check_sendable
from multiprune.data.mixing import BatchPlan, Mixing
from multiprune.data.pieces import CorpusError
from multiprune.data.selection import check_language
from multiprune.data.shared_texts import SharedTexts, find_shared_texts
from multiprune.data.splits import SplitReader
from multiprune.data.stream import StreamedTask, check_streams, streamed_tasks
from multiprune.tasks.scores import reads_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from multiprune.tasks.rows import Rows
    from multiprune.tasks.task import Task

#: Stands for every task that ``cap`` does not name, but for streamed ones.
EACH = "each"


class MultitaskDataModule(pl.LightningDataModule):
    """Serves the train, validation and test batches of several tasks.

    Args:
        tasks: by name.
        tokenizer: that of the encoder.
        max_length: of a sequence, in tokens; longer ones are truncated, counted and reported.
        batch_size: examples of a training batch, on each rank.
        mixing: how often each task is trained.
        mirror: folder of a local mirror to read instead of the hub.
        language: use the rows in this language alone, in all splits, whatever languages tasks train
            on; None for those that each task asks for.
        cap: by task, the most training examples to use (a random choice under the seed); ``each``
            stands for every task that is not named. Streamed tasks cannot be capped.
        sort_window: so many consecutive batches of a task share examples of similar length, unless
            it is streamed.
        evaluation_batch_size: examples of a validation or test batch, on each rank.
        workers: processes that make batches ahead of the model, on each rank; 0 makes each when it
            is trained on. They change no batch.
        share_texts: tasks of one source and the same text columns share training batches: the
            encoder reads a text once for the labels of all of them.
        cache: folder of encoded rows, shared by all runs.
        seed: of the order of batches and of the choice that ``cap`` asks for.
    """

    def __init__(
        self,
        *,
        tasks: Mapping[str, Task],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        batch_size: int,
        mixing: Mixing,
        mirror: str | None = None,
        language: str | None = None,
        cap: Mapping[str, int] | None = None,
        sort_window: int = 20,
        evaluation_batch_size: int = 64,
        workers: int = 0,
        share_texts: bool = False,
        cache: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not tasks:
            raise ValueError("Training needs at least one task, but there is none.")
        check_cap(cap, tasks)
        counts = {
            "batch_size": batch_size,
            "evaluation_batch_size": evaluation_batch_size,
            "max_length": max_length,
            "sort_window": sort_window,
        }
        for name, count in counts.items():
            check_number(name, count, at_least=1, whole=True)
        for name, count in {"workers": workers, "seed": seed}.items():
            check_number(name, count, at_least=0, whole=True)
        check_room(max_length, tokenizer, tasks)
        # Refuses what does not fit the tasks; their sizes are not known yet.
        mixing.probabilities(dict.fromkeys(tasks, 1))
        check_streams(tasks, cap or {})
        if language is not None:
            check_language(language, tasks)
        self.language = language
        self.tasks, self.tokenizer, self.max_length = dict(tasks), tokenizer, max_length
        self.batch_size, self.evaluation_batch_size = batch_size, evaluation_batch_size
        self.mixing, self.cap, self.sort_window = mixing, dict(cap or {}), sort_window
        self.mirror = None if mirror is None else Path(mirror)
        self.cache = default_cache_folder() if cache is None else Path(cache)
        self.workers, self.share_texts, self.seed = workers, share_texts, seed
        self._reader = SplitReader(
            tokenizer=tokenizer,
            max_length=max_length,
            cache=self.cache,
            mirror=self.mirror,
            language=language,
            seed=seed,
        )
        self.encoded: dict[str, EncodedTask] = {}
        self._shared: dict[str, SharedTexts] = {}
        self._streamed: dict[str, StreamedTask] = {}
        self._kept: dict[tuple[str, str], Rows] = {}
        self._train: TrainBatches[Any] | None = None
        self._restored: Mapping[str, Any] = {}

    @override
    def prepare_data(self) -> None:
        if self.encoded:
            return
        for name, task in self.tasks.items():
            self._reader.encoded_splits(name, task)

    @override
    def setup(self, stage: str | None = None) -> None:
        if self.encoded:
            return
        self._streamed = streamed_tasks(
            self.tasks,
            self.tokenizer,
            max_length=self.max_length,
            folder=self.cache,
            mirror=self.mirror,
        )
        for name, task in self.tasks.items():
            most = self.cap.get(name, self.cap.get(EACH))
            self.encoded[name] = self._reader.encoded_task(name, task, most)
        if self.workers:
            check_sendable(self.encoded)
        if self.share_texts:
            weights = self.mixing.probabilities(dict.fromkeys(self.tasks, 1))
            found = find_shared_texts(self.encoded, weights)
            self._shared = {"+".join(one.tasks): one for one in found}
            if not found:
                raise ValueError(
                    "`data.share_texts` needs tasks with the same texts (source, columns and "
                    "mixing weight), but no two tasks have them: leave it out."
                )

    @property
    def examples(self) -> dict[str, int]:
        """The number of training examples of each task, after caps; of an epoch, if streamed."""
        return {
            name: self._streamed[name].examples_per_epoch
            if name in self._streamed
            else len(np.unique(examples_of(one.splits["train"])))
            for name, one in self.encoded.items()
        }

    def rows(self, name: str, split: str) -> Rows | None:
        """Return what the examples of a split stand for, in their order; before any cap."""
        if (name, split) in self._kept:
            return self._kept[name, split]
        task = self.tasks[name]
        rows = self._reader.used(name, task, split)[-1]
        if rows is not None and reads_rows(task):
            # Every evaluation reads them.
            self._kept[name, split] = rows
        return rows

    @override
    def train_dataloader(self) -> TrainBatches[Any]:
        rank, world_size = self._place()
        # Now, and not after all training: only the Trainer knows how many processes there are.
        self._check_rows_for(world_size)
        plan = self._plan(self.batch_size * world_size)
        self._close()
        opened = {
            name: one.opened(
                self.encoded[name],
                seed=self.seed,
                batch_size=plan.batch_size,
                turn=(rank, world_size),
            )
            for name, one in self._streamed.items()
        }
        self._train = TrainBatches(
            plan, {**self._texts, **opened}, rank=rank, world_size=world_size, loader=self._loader()
        )
        if self._restored:
            self._train.load_state_dict(self._restored)
            self._restored = {}
        return self._train

    def _check_rows_for(self, world_size: int) -> None:
        for name, one in self.encoded.items():
            for split in one.splits.keys() & {"validation", "test"}:
                if len(one.splits[split]) < world_size:
                    raise CorpusError(
                        f"{split} of {name} has {len(one.splits[split])} rows, fewer than the "
                        f"{world_size} processes: use fewer devices or more rows."
                    )

    @property
    def _texts(self) -> dict[str, EncodedTask | SharedTexts]:
        """What batches are made of, where tasks that share texts are one."""
        shared = {name for one in self._shared.values() for name in one.tasks}
        alone = {name: one for name, one in self.encoded.items() if name not in shared}
        return alone | self._shared

    def _plan(self, batch_size: int) -> BatchPlan:
        lengths = {
            name: one.token_counts
            if isinstance(one, SharedTexts)
            else token_counts(one.splits["train"])
            for name, one in self._texts.items()
            if name not in self._streamed
        }
        streamed = {name: one.examples_per_epoch for name, one in self._streamed.items()}
        counts = {name: streamed.get(name) or len(lengths[name]) for name in self._texts}
        sizes = {name: -(-count // batch_size) for name, count in counts.items()}
        return BatchPlan(
            lengths=lengths,
            probabilities=self._probabilities(sizes),
            batch_size=batch_size,
            seed=self.seed,
            sort_window=self.sort_window,
            streamed=streamed,
        )

    def _probabilities(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Return the share of each stock of texts: tasks that share one are as often as one is."""
        if not self._shared:
            return self.mixing.probabilities(sizes)
        stocks = {name: key for key, one in self._shared.items() for name in one.tasks}
        by_task = self.mixing.probabilities(
            {name: sizes[stocks.get(name, name)] for name in self.tasks}
        )
        by_stock = {stocks.get(name, name): share for name, share in by_task.items()}
        whole = sum(by_stock.values())
        return {name: by_stock[name] / whole for name in sizes}

    @override
    def val_dataloader(self) -> list[EvaluationBatches]:
        return self._evaluation("validation")

    @override
    def test_dataloader(self) -> list[EvaluationBatches]:
        return self._evaluation("test")

    @override
    def teardown(self, stage: str) -> None:
        self._close()

    @override
    def on_exception(self, exception: BaseException) -> None:
        self._close()

    @override
    def state_dict(self) -> dict[str, Any]:
        # Lightning restores a loader's own state too late, once its length was asked for.
        return dict(self._restored) if self._train is None else self._train.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    def _close(self) -> None:
        if self._train is not None:
            self._train.close()

    def _evaluation(self, split: str) -> list[EvaluationBatches]:
        rank, world_size = self._place()
        return [
            EvaluationBatches(
                one,
                split,
                batch_size=self.evaluation_batch_size,
                rank=rank,
                world_size=world_size,
                loader=self._loader(),
            )
            for one in self.encoded.values()
            if split in one.splits
        ]

    def _loader(self) -> Loader:
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return Loader(self.workers, is_pinned=on_cuda)

    def _place(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size


def check_cap(cap: Mapping[str, int] | None, tasks: Mapping[str, Task]) -> None:
    """Raise a ValueError unless ``cap`` has numbers of examples, by names of tasks."""
    if cap is not None and not isinstance(cap, Mapping):
        raise ValueError(
            f"`data.cap` must be numbers by task, as by data.cap.each={cap}, but is {cap}."
        )
    if unknown := set(cap or {}) - set(tasks) - {EACH}:
        raise ValueError(
            f"`data.cap` must name tasks of this run ({', '.join(tasks)}), but names "
            f"{', '.join(sorted(unknown))}."
        )
    for name, most in (cap or {}).items():
        check_number(f"cap.{name}", most, at_least=1, whole=True)


def check_room(
    max_length: int, tokenizer: PreTrainedTokenizerBase, tasks: Mapping[str, Task]
) -> None:
    """Raise a ValueError if special tokens alone fill an input: tokenizers then cut nothing."""
    for name, task in tasks.items():
        special = tokenizer.num_special_tokens_to_add(pair=len(task.text) > 1)
        if max_length < special + len(task.text):
            raise ValueError(
                f"`data.max_length` must leave room for a text between special tokens, of which "
                f"{name} has {special}, but is {max_length}."
            )
