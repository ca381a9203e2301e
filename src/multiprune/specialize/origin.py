"""Rebuild the tasks and data of a finished run from its results."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from hydra.utils import instantiate

from multiprune.data.datamodule import EACH
from multiprune.data.read_labels import with_labels
from multiprune.models.factory import tasks_for
from multiprune.outcome import sentence
from multiprune.runs.folder import has_results
from multiprune.runs.record import RunRecord
from multiprune.targets import check_targets
from multiprune.tasks.languages import languages_of
from multiprune.tasks.scores import reads_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from multiprune.data.batches import EncodedTask
    from multiprune.data.datamodule import MultitaskDataModule
    from multiprune.models.encoder import Encoder
    from multiprune.tasks.task import Task


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes:
        run: folder of a finished run.
        config: that of the run.
    """

    run: Path
    config: Mapping[str, Any]

    def encoded(
        self,
        name: str,
        encoder: Encoder,
        mirror: str | None = None,
        *,
        others: Mapping[str, Any] | None = None,
        language: str | None = None,
    ) -> EncodedTask:
        """Return a task with its rows, as the run has read and encoded them.

        Those of a task in several languages are in ``language`` alone, or in all of them, whatever
        the run has trained on. ``mirror`` replaces the run's; ``others`` are configurations of
        tasks that it did not have.

        Raises:
            ValueError: if a class of the configuration cannot be found, or data do not fit.
            OSError: if data cannot be read.
        """
        data = self._data(name, encoder, mirror, others or {}, language)
        data.setup()
        encoded: EncodedTask = data.encoded[name]
        if not reads_rows(encoded.task):
            return encoded
        found = {split: data.rows(name, split) for split in ("validation", "test")}
        rows = {split: one for split, one in found.items() if one is not None}
        return replace(encoded, evaluated=rows)

    def training_rows(
        self, name: str, encoder: Encoder, mirror: str | None = None
    ) -> dict[str, int]:
        """Return how many training rows there are in each language of a task that has some.

        Raises:
            ValueError: if the task has no languages, or as ``encoded`` does.
            OSError: if data cannot be read.
        """
        data = self._data(name, encoder, mirror, {}, None)
        declared, rows = data.tasks[name].languages, data.rows(name, "train")
        if not declared:
            raise ValueError(f"`languages` does not apply to {name}, a task without `languages`.")
        found = Counter([] if rows is None else languages_of(rows, declared))
        return {language: found[language] for language in declared if found[language]}

    def _data(
        self,
        name: str,
        encoder: Encoder,
        mirror: str | None,
        others: Mapping[str, Any],
        language: str | None,
    ) -> MultitaskDataModule:
        task = self.task(name, encoder, mirror, others=others)
        settings = dict(self.config["data"])
        # Is written to, and the run may be somebody else's.
        settings.pop("cache", None)
        # Is of several tasks.
        settings.pop("share_texts", None)
        cap = settings.get("cap") or {}
        settings["cap"] = {key: most for key, most in cap.items() if key in (name, EACH)}
        settings["max_length"] = min(settings["max_length"], encoder.max_length)
        if mirror is not None:
            settings["mirror"] = mirror
        if language is not None:
            settings["language"] = language
        with self._constructing():
            data: MultitaskDataModule = instantiate(settings, _partial_=True, _convert_="all")(
                tasks={name: task}, tokenizer=encoder.tokenizer, seed=self.config["seed"]
            )
        return data

    def task(
        self,
        name: str,
        encoder: Encoder,
        mirror: str | None = None,
        *,
        others: Mapping[str, Any] | None = None,
    ) -> Task:
        """Return a task in all its languages, as the run's encoder reads it.

        ``mirror`` and ``others`` as those of ``encoded``.

        Raises:
            ValueError: if a class of the configuration cannot be found, or the task has no labels.
            OSError: if labels are those of data that cannot be read.
        """
        with self._constructing():
            task = instantiate((self.config["task"] | dict(others or {}))[name], _convert_="all")
            (task,) = with_labels({name: task}, mirror=self.mirror(mirror)).values()
            task.train_languages = None
            return tasks_for(encoder, {name: task})[name]

    def mirror(self, other: str | None = None) -> Path | None:
        """Return the folder of the local mirror that the run has read, or another in its place."""
        folder = self.config["data"].get("mirror") if other is None else other
        return None if folder is None else Path(folder)

    @contextmanager
    def _constructing(self) -> Iterator[None]:
        try:
            yield
        except HydraException as error:
            raise ValueError(f"{self.run}: {sentence(error)}") from error


def read_origin(run: Path, *, allow_targets: Sequence[str] = ()) -> Origin:
    """Read where the model of a run comes from; ``allow_targets`` as in ``check_targets``.

    Raises:
        FileNotFoundError: if the run is not finished, or is an exported folder.
        ValueError: if its results are damaged, or name code that is not allowed.
    """
    if not has_results(run):
        raise FileNotFoundError(
            f"{run} has no results.json: set `data_of` to the run that the model was exported from."
        )
    try:
        record = RunRecord.read(run)
        config = {**record.config}
        if not {"task", "data", "seed"} <= config.keys():
            raise KeyError("task, data and seed")
        # Those that the run has read from its training data.
        for name, labels in record.labels.items():
            config["task"][name]["labels"] = labels
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"The results of a run must hold its configuration, but those of {run} do not: {error}"
        ) from error
    parts = {name: config[name] for name in ("task", "data")}
    check_targets(parts, source=f"The results of {run}", allowed=allow_targets)
    return Origin(run, config)
