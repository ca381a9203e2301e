"""Data sources: the hub, a local mirror of it, files, or a generator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multiprune.arguments import check_number
from multiprune.data.file_rows import collected, joined, matching_files, part_of, read_rows
from multiprune.data.hub import HubLayout
from multiprune.data.mirror import mirrored_folder
from multiprune.tasks.columns import check_present, check_values, row_slices
from multiprune.tasks.languages import LANGUAGE
from multiprune.tasks.rows import Rows
from multiprune.user_code import calling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyarrow import Table

    from multiprune.tasks.columns import Columns
    from multiprune.tasks.rows import Source

_Lists = Mapping[str, list[Any]]
Generator = Callable[[int, int], _Lists | Iterable[_Lists]]

_SPLITS = ("train", "validation", "test")
_REQUIRED_SPLITS = ("train", "validation")


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """A data set of the hub, or the same columns in a local mirror.

    Attributes:
        path: repository on the hub; None if the data exist in a mirror only.
        name: configuration of that repository, if it has several.
        mirror: folder below the mirror's root that holds ``<split>.parquet``; None to read the hub,
            whether or not there is a mirror.
        hub_splits: what a split is called on the hub, where that differs.
        mirror_splits: what it is called in the mirror, likewise.
        language: of all rows, if they have no column that says so.
        layout: in what the tables of the hub differ from those of the mirror.
    """

    path: str | None
    mirror: str | None = None
    name: str | None = None
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    mirror_splits: Mapping[str, str] = field(default_factory=dict)
    language: str | None = None
    layout: HubLayout = field(default_factory=HubLayout)

    def __post_init__(self) -> None:
        if self.path is None and self.mirror is None:
            raise ValueError("A data set must be on the hub (`path`) or in a mirror (`mirror`).")
        for name in ("hub_splits", "mirror_splits"):
            _check_splits(name, getattr(self, name))

    def load(
        self,
        split: str,
        *,
        mirror: Path | None,
        languages: Sequence[str] | None = None,
        columns: Columns | None = None,
    ) -> Rows | None:
        """Return the rows of a split, from the mirror if there is one.

        A mirror gives all ``languages``, as they are in one file.

        Raises:
            FileNotFoundError: if the mirror lacks the folder, or a split that is required.
            ValueError: if no mirror is given and the hub is out of reach or does not have the data
                in this layout; or if they are empty.
        """
        if columns is not None and self.language is not None:
            columns = columns.without(LANGUAGE)
        if mirror is None or self.mirror is None:
            rows = self._from_hub(split, languages, columns)
        else:
            rows = self._from_mirror(split, mirror, columns)
        if rows is not None and len(rows.table) == 0:
            raise ValueError(f"{rows.origin} has no rows.")
        if rows is None or self.language is None:
            return rows
        table = rows.table.add_column(LANGUAGE, [self.language] * len(rows.table))
        return replace(rows, table=table)

    def _from_mirror(self, split: str, root: Path, columns: Columns | None) -> Rows | None:
        assert self.mirror is not None
        folder = mirrored_folder(root, self.mirror)
        file = folder / f"{self.mirror_splits.get(split, split)}.parquet"
        if not file.is_file():
            if split in _REQUIRED_SPLITS:
                raise FileNotFoundError(f"The {split} split {file} does not exist.")
            return None
        return read_rows([file], columns, origin=str(file))

    def _from_hub(
        self, split: str, languages: Sequence[str] | None, columns: Columns | None
    ) -> Rows | None:
        if self.path is None:
            raise ValueError(
                f"`data.mirror` must be set for the data set {self.mirror!r}, which is not on the "
                "hub in this layout, but it is not set."
            )
        wanted = self.hub_splits.get(split, split)
        rows = self.layout.load(self.path, self.name, wanted, languages)
        if rows is None and split in _REQUIRED_SPLITS:
            origin = " ".join(part for part in (self.path, self.name, wanted) if part)
            raise ValueError(f"The {split} split {origin} does not exist.")
        if rows is None or columns is None:
            return rows
        check_present(columns.names, rows.table.column_names, rows.origin)
        return replace(rows, table=rows.table.select_columns(columns.names))


@dataclass(frozen=True, kw_only=True)
class SplitSource:
    """A source for each split, as where a model is tested on another data set."""

    train: Source
    validation: Source
    test: Source | None = None

    def load(
        self,
        split: str,
        *,
        mirror: Path | None,
        languages: Sequence[str] | None = None,
        columns: Columns | None = None,
    ) -> Rows | None:
        """Return the rows of a split, as its source gives them."""
        source: Source | None = getattr(self, split)
        if source is None:
            return None
        return source.load(split, mirror=mirror, languages=languages, columns=columns)


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """Rows of CSV, TSV, JSON lines or parquet files, which end in .csv, .tsv, .jsonl or .parquet.

    Attributes:
        files: by split, a path or several, whose last part may be a pattern, as in
            ``tickets/*.csv``; relative to the folder that the command is given in.
        validation: share of the training rows to set aside, if there is no file of validation rows;
            each class has its part of them.
        seed: of their choice, which is the same in all runs.
    """

    files: Mapping[str, str | Path | Sequence[str | Path]]
    validation: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.files, Mapping) or not {*self.files} <= {*_SPLITS}:
            raise ValueError(
                "`files` must be by split (train, validation, test), as in {train: tickets.csv}, "
                f"but is {self.files}."
            )
        for split, named in self.files.items():
            listed = named if isinstance(named, Sequence) else [named]
            if named is not None and not all(isinstance(one, str | Path) for one in listed):
                raise ValueError(
                    f"`files.{split}` must be a path or a list of them, but is {named!r}."
                )
        check_number("seed", self.seed, at_least=0, whole=True)
        if self.validation is None:
            return
        check_number("validation", self.validation, above=0, at_most=0.5)
        if "validation" in self.files or "train" not in self.files:
            raise ValueError(
                "`validation` is a share of the file `train`, in place of a file `validation`, but "
                f"there are files for {', '.join(self.files)}."
            )

    def load(
        self,
        split: str,
        *,
        mirror: Path | None,  # noqa: ARG002
        languages: Sequence[str] | None = None,  # noqa: ARG002
        columns: Columns | None = None,
    ) -> Rows | None:
        """Return the rows of a split; mirror and languages play no part.

        Raises:
            FileNotFoundError: if a file does not exist.
            ValueError: if a file cannot be read, lacks a column or has no rows.
        """
        is_parted = self.validation is not None and split != "test"
        named = self.files.get("train" if is_parted else split)
        if not named:
            return None
        patterns = [named] if isinstance(named, str | Path) else named
        files = [one for each in patterns for one in matching_files(each, split)]
        rows = read_rows(files, columns, origin=", ".join(map(str, patterns)))
        if not is_parted or self.validation is None:
            return rows
        if columns is not None:
            # Now, while rows have the numbers that they have in the file.
            for part in row_slices(rows):
                check_values(part, columns.names)
        classes = None if columns is None else columns.classes
        return part_of(
            rows, self.validation, seed=self.seed, classes=classes, set_aside=split != "train"
        )


@dataclass(frozen=True, kw_only=True)
class JoinedSource:
    """The rows of several sources behind each other, with the columns that all of them have.

    A split is of the sources that have it.

    Attributes:
        sources: in this order.
    """

    sources: Sequence[Source]

    def load(
        self,
        split: str,
        *,
        mirror: Path | None,
        languages: Sequence[str] | None = None,
        columns: Columns | None = None,
    ) -> Rows | None:
        """Return the rows of a split.

        Raises:
            ValueError: if the sources have no column in common.
        """
        loaded = [
            one.load(split, mirror=mirror, languages=languages, columns=columns)
            for one in self.sources
        ]
        parts = [one for one in loaded if one is not None]
        if not parts:
            return None
        shared = [
            column
            for column in parts[0].table.column_names
            if all(column in one.table.column_names for one in parts)
        ]
        origin = " + ".join(one.origin for one in parts)
        if not shared:
            raise ValueError(f"{origin} have no column in common and cannot be joined.")
        table = joined([one.table.select_columns(shared) for one in parts], origin)
        return Rows(table, origin, " ".join(one.fingerprint for one in parts))


@dataclass(frozen=True, kw_only=True)
class GeneratedSource:
    """Rows made by ``generator(count, seed)``; ``rows`` says how many for each split.

    It returns columns, lists by name, or yields the columns of some rows at a time, of which no
    more are in memory then. Splits use consecutive seeds, so that they differ.
    """

    generator: Generator
    rows: Mapping[str, int]
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.rows, Mapping):
            raise ValueError(
                f"`rows` must be numbers by split, as in {{train: 100, validation: 20}}, but is "
                f"{self.rows!r}."
            )
        _check_splits("rows", self.rows)
        for split, count in self.rows.items():
            check_number(f"rows.{split}", count, at_least=1, whole=True)
        check_number("seed", self.seed, at_least=0, whole=True)

    def load(
        self,
        split: str,
        *,
        mirror: Path | None,  # noqa: ARG002
        languages: Sequence[str] | None = None,  # noqa: ARG002
        columns: Columns | None = None,  # noqa: ARG002
    ) -> Rows | None:
        """Generate the rows of a split, with all their columns; mirror plays no part.

        They are told from others by what they hold: the generator's code may change.

        Raises:
            UserCodeError: if the generator fails, or gives other things than columns.
            ValueError: if it gives no rows.
        """
        from pyarrow import ArrowException

        if split not in self.rows:
            return None
        seed = self.seed + _SPLITS.index(split)
        origin = f"{getattr(self.generator, '__name__', 'generator')} ({split}, seed {seed})"
        parts = self._parts(self.rows[split], seed, origin)
        if (first := next(parts, None)) is None:
            raise ValueError(f"{origin} has no rows.")
        try:
            table, digest = collected(chain([first], parts))
        except ArrowException as error:
            raise ValueError(
                f"The columns of {origin} must hold values of one type, but: {error}."
            ) from error
        return Rows(table, origin, digest)

    def _parts(self, count: int, seed: int, origin: str) -> Iterator[Table]:
        from datasets import Dataset

        with calling(self.generator, f"The generator of rows {origin}"):
            made = self.generator(count, seed)
            for columns in [made] if isinstance(made, Mapping) else made:
                part: Table = Dataset.from_dict(dict(columns)).data.table
                if len(part):
                    yield part


def _check_splits(name: str, by_split: Mapping[str, Any]) -> None:
    if unknown := [one for one in by_split if one not in _SPLITS]:
        raise ValueError(
            f"`{name}` must be by split ({', '.join(_SPLITS)}), but names {', '.join(unknown)}."
        )
