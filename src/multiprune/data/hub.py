"""Tables of the Hugging Face hub, put into the form that their mirror has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from multiprune.tasks.languages import LANGUAGE
from multiprune.tasks.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from datasets import ClassLabel, Dataset

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
            raise ValueError(
                "Languages must be told by `configurations` or by `prefixes`, but both are given."
            )
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
        table = self._renamed(table, origin)
        if self.numbered is not None:
            table = table.add_column(self.numbered, [*range(len(table))])
        if language is not None:
            table = table.add_column(LANGUAGE, [language] * len(table))
        if self.prefixes:
            found = self._languages(_values(table, _ID, origin), origin)
            table = table.add_column(LANGUAGE, found)
            if languages is not None:
                table = table.select([row for row, one in enumerate(found) if one in languages])
        for column in self.named:
            table = _replaced(table, column, _names(table, column, origin))
        for column in self.stripped:
            texts = [text.strip() for text in _values(table, column, origin)]
            table = _replaced(table, column, texts)
        if self.aligned:
            columns = (_values(table, column, origin) for column in self.aligned)
            starts = [[*map(aligned_start, [context] * len(answers), answers, starts)]
                      for context, answers, starts in zip(*columns, strict=True)]  # fmt: skip
            table = _replaced(table, self.aligned[2], starts)
        return table

    def _renamed(self, table: Dataset, origin: str) -> Dataset:
        if not self.columns:
            return table
        flat = table.flatten()
        for theirs in self.columns.values():
            _check_column(flat, theirs, origin)
        return flat.rename_columns({theirs: ours for ours, theirs in self.columns.items()})

    def _languages(self, ids: Sequence[str], origin: str) -> list[str]:
        found = []
        for row, identifier in enumerate(ids):
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
            f"The hub must be reachable for {_origin(path, configuration, split)} unless "
            f"`data.mirror` is set, but it is not: {str(error).splitlines()[0]}"
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


def _values(table: Dataset, column: str, origin: str) -> list[Any]:
    _check_column(table, column, origin)
    # A slice is a list; element by element, a column of `datasets` is read anew.
    return list(table[column][:])


def _check_column(table: Dataset, column: str, origin: str) -> None:
    if column not in table.column_names:
        raise ValueError(
            f"{origin} must have a column {column!r}, but has {', '.join(table.column_names)}."
        )


def _names(table: Dataset, column: str, origin: str) -> list[Any]:
    """Return the names of class labels, or lists of them."""
    from datasets import ClassLabel

    values = _values(table, column, origin)
    feature = table.features[column]
    labels: ClassLabel = getattr(feature, "feature", feature)
    if not isinstance(labels, ClassLabel):
        raise ValueError(
            f"Column {column!r} of {origin} must hold class labels, but holds {labels}."
        )
    return [labels.int2str(one) for one in values]


def _replaced(table: Dataset, column: str, values: list[Any]) -> Dataset:
    return table.remove_columns(column).add_column(column, values)
