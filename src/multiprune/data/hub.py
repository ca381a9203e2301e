"""Tables of the Hugging Face hub, converted to the layout of the local mirror."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from multiprune.data.file_rows import rewritten
from multiprune.tasks.languages import LANGUAGE
from multiprune.tasks.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from datasets import ClassLabel, Dataset, Features

# Part of every fingerprint: raise it when tables are put into their form in another way.
_FORMAT = 1

# Says which row it is, and in some data sets its language.
_ID = "id"

# Starts of answers are looked for so many characters around where they should be.
_FARTHEST = 16


@dataclass(frozen=True, kw_only=True)
class HubLayout:
    """In what the tables of a repository differ from their mirror.

    Attributes:
        configurations: by language, where each has one of its own.
        prefixes: what the column ``id`` begins with, by language, where one configuration has all.
        columns: what a column is called on the hub, where that differs; ``answers.text`` is the
            part ``text`` of ``answers``.
        named: columns of class labels that the mirror has by name.
        numbered: a column to add: which row of its configuration a row is, from 0.
        stripped: columns of texts with blanks around them.
        aligned: the columns of contexts, answers and starts, where contexts have lost the blanks
            that starts count (huggingface/datasets, issue 2585).
    """

    configurations: Mapping[str, str] = field(default_factory=dict)
    prefixes: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    named: Sequence[str] = ()
    numbered: str | None = None
    stripped: Sequence[str] = ()
    aligned: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.configurations and self.prefixes:
            raise ValueError("Set either `configurations` or `prefixes`, not both.")
        if len(self.aligned) not in (0, 3):
            raise ValueError(
                f"`aligned` must name contexts, answers and starts, but names {list(self.aligned)}."
            )

    def load(
        self, path: str, name: str | None, split: str, languages: Sequence[str] | None
    ) -> Rows | None:
        """Return the rows of a split in ``languages`` (None is all), if any of them has it.

        Raises:
            ValueError: if the hub is out of reach, or has no such repository, configuration or
                column; or if there is no saying where rows in one of the languages are.
        """
        from datasets import concatenate_datasets

        chosen = self._chosen(path, name, languages)
        tables = {}
        for language, configuration in chosen.items():
            origin = _origin(path, configuration, split)
            table = _table(path, configuration, split)
            if table is not None:
                tables[configuration] = self._arranged(table, language, languages, origin)
        if not tables:
            return None
        table = concatenate_datasets([*tables.values()])
        names = ", ".join(one for one in tables if one is not None)
        return Rows(table, _origin(path, names, split), str(table._fingerprint))

    def _chosen(
        self, path: str, name: str | None, languages: Sequence[str] | None
    ) -> dict[str | None, str | None]:
        """Return the configurations to read, by language where each has its own."""
        known = self.configurations or self.prefixes
        if known and (unknown := [one for one in languages or () if one not in known]):
            raise ValueError(
                f"The source of {path} must say where rows in {', '.join(unknown)} are, but knows "
                f"only {', '.join(known)}."
            )
        if not self.configurations:
            return {None: name}
        return {
            language: configuration
            for language, configuration in self.configurations.items()
            if languages is None or language in languages
        }

    def _arranged(
        self, table: Dataset, language: str | None, languages: Sequence[str] | None, origin: str
    ) -> Dataset:
        """Return a table as its mirror has it: some rows at a time, and kept beside the table."""
        table = self._renamed(table, origin)
        for column in [*self.named, *self.stripped, *self.aligned, *([_ID] * bool(self.prefixes))]:
            _check_column(table, column, origin)
        import pyarrow.compute
        from datasets import List, Value

        features = table.features.copy()
        labels = {column: _labels(features, column, origin) for column in self.named}
        for column, label in labels.items():
            is_label = features[column] is label
            features[column] = Value("string") if is_label else List(Value("string"))
        if self.numbered is not None:
            features[self.numbered] = Value("int64")
        if language is not None or self.prefixes:
            features[LANGUAGE] = Value("string")
        if features == table.features and not self.stripped and not self.aligned:
            return table

        def part(columns: dict[str, list[Any]], rows: list[int]) -> dict[str, list[Any]]:
            if self.numbered is not None:
                columns[self.numbered] = rows
            if language is not None:
                columns[LANGUAGE] = [language] * len(rows)
            if self.prefixes:
                columns[LANGUAGE] = self._languages(columns[_ID], rows, origin)
            for column, label in labels.items():
                columns[column] = [label.int2str(one) for one in columns[column]]
            for column in self.stripped:
                columns[column] = [text.strip() for text in columns[column]]
            if self.aligned:
                three = (columns[column] for column in self.aligned)
                columns[self.aligned[2]] = [
                    [*map(aligned_start, [context] * len(answers), answers, starts)]
                    for context, answers, starts in zip(*three, strict=True)
                ]
            return columns

        table = rewritten(table, part, features=features, depends_on=[_FORMAT, self, language])
        if self.prefixes and languages is not None:
            found = table.with_format("arrow")[LANGUAGE][:]
            wanted = pyarrow.compute.is_in(found, pyarrow.array([*languages]))
            table = table.select(np.flatnonzero(wanted))
        return table

    def _renamed(self, table: Dataset, origin: str) -> Dataset:
        if not self.columns:
            return table
        flat = table.flatten()
        for theirs in self.columns.values():
            _check_column(flat, theirs, origin)
        return flat.rename_columns({theirs: ours for ours, theirs in self.columns.items()})

    def _languages(self, ids: Sequence[str], rows: Sequence[int], origin: str) -> list[str]:
        found = []
        for row, identifier in zip(rows, ids, strict=True):
            mine = [one for one, prefix in self.prefixes.items() if identifier.startswith(prefix)]
            if not mine:
                raise ValueError(
                    f"Column {_ID!r} of {origin} must begin with one of "
                    f"{', '.join(self.prefixes.values())}, but row {row} is {identifier!r}."
                )
            found.append(mine[0])
        return found


def aligned_start(context: str, answer: str, start: int) -> int:
    """Return the place of an answer in its context that is nearest to ``start``, but not far.

    Of two that are equally near it is the first. Without any it is ``start``.
    """
    near = range(max(0, start - _FARTHEST), start + _FARTHEST + 1)
    places = [place for place in near if context.startswith(answer, place)]
    return min(places, key=lambda place: abs(place - start), default=start)


def _table(path: str, configuration: str | None, split: str) -> Dataset | None:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        if split not in _splits(path, configuration):
            return None
        return load_dataset(path, configuration, split=split)
    except (OSError, ConnectionError) as error:
        raise ValueError(
            "The Hugging Face hub cannot be reached for "
            f"{_origin(path, configuration, split)}; set `data.mirror` to work offline: "
            f"{str(error).splitlines()[0]}"
        ) from error
    except DatasetsError as error:
        raise ValueError(
            f"{_origin(path, configuration, split)} cannot be read: {error.__cause__ or error}"
        ) from error


def _splits(path: str, configuration: str | None) -> list[str]:
    from datasets import get_dataset_split_names

    try:
        return [*get_dataset_split_names(path, configuration)]
    except ValueError as error:
        what = path if configuration is None else f"{path} {configuration}"
        raise ValueError(
            f"The hub must have {what} unless `data.mirror` is set, but it does not: "
            f"{str(error.__cause__ or error).splitlines()[0]:.200}"
        ) from error


def _origin(path: str, configuration: str | None, split: str) -> str:
    return " ".join(part for part in (path, configuration, split) if part)


def _check_column(table: Dataset, column: str, origin: str) -> None:
    if column not in table.column_names:
        raise ValueError(
            f"{origin} must have a column {column!r}, but has {', '.join(table.column_names)}."
        )


def _labels(features: Features, column: str, origin: str) -> ClassLabel:
    """Return the class labels of a column, or of its lists."""
    from datasets import ClassLabel

    labels = getattr(features[column], "feature", features[column])
    if not isinstance(labels, ClassLabel):
        raise ValueError(
            f"Column {column!r} of {origin} must hold class labels, but holds {labels}."
        )
    return labels
