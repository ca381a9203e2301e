"""Where rows come from: the hub, a local mirror of parquet files, other files, or a generator."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from multiprune.data.hub import HubLayout
from multiprune.data.mirror import mirrored_folder
from multiprune.tasks.languages import LANGUAGE
from multiprune.tasks.task import Rows

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset

    from multiprune.tasks.task import Source

Generator = Callable[[int, int], Mapping[str, list[Any]]]

_SPLITS = ("train", "validation", "test")
_REQUIRED_SPLITS = ("train", "validation")


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """A data set of the hub, or the same columns in a local mirror.

    Attributes:
        path: repository on the hub; None if the data exist in a mirror only.
        name: configuration of that repository, if it has several.
        mirror: folder below the mirror's root that holds ``<split>.parquet``.
        hub_splits: what a split is called on the hub, where that differs.
        mirror_splits: what it is called in the mirror, likewise.
        language: of all rows, if they have no column that says so.
        layout: in what the tables of the hub differ from those of the mirror.
    """

    path: str | None
    mirror: str
    name: str | None = None
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    mirror_splits: Mapping[str, str] = field(default_factory=dict)
    language: str | None = None
    layout: HubLayout = field(default_factory=HubLayout)

    def load(
        self, split: str, *, mirror: Path | None, languages: Sequence[str] | None = None
    ) -> Rows | None:
        """Return the rows of a split, from the mirror if there is one.

        A mirror gives all ``languages``, as they are in one file.

        Raises:
            FileNotFoundError: if the mirror lacks the folder, or a split that is required.
            ValueError: if no mirror is given and the hub is out of reach or does not have the data
                in this layout; or if they are empty.
        """
        if mirror is None:
            rows = self._from_hub(split, languages)
        else:
            rows = self._from_mirror(split, mirror)
        if rows is not None and len(rows.table) == 0:
            raise ValueError(f"A split must have rows, but {rows.origin} is empty.")
        if rows is None or self.language is None:
            return rows
        table = rows.table.add_column(LANGUAGE, [self.language] * len(rows.table))
        return replace(rows, table=table)

    def _from_mirror(self, split: str, mirror: Path) -> Rows | None:
        folder = mirrored_folder(mirror, self.mirror)
        file = folder / f"{self.mirror_splits.get(split, split)}.parquet"
        if not file.is_file():
            if split in _REQUIRED_SPLITS:
                raise FileNotFoundError(f"A task needs a {split} split, but {file} does not exist.")
            return None
        return _rows_of(file)

    def _from_hub(self, split: str, languages: Sequence[str] | None) -> Rows | None:
        if self.path is None:
            raise ValueError(
                f"`data.mirror` must be set for the data set {self.mirror!r}, which is not on the "
                "hub in this layout, but it is not set."
            )
        wanted = self.hub_splits.get(split, split)
        rows = self.layout.load(self.path, self.name, wanted, languages)
        if rows is None and split in _REQUIRED_SPLITS:
            origin = " ".join(part for part in (self.path, self.name, wanted) if part)
            raise ValueError(f"A task needs a {split} split, but {origin} does not exist.")
        return rows


@dataclass(frozen=True, kw_only=True)
class SplitSource:
    """A source for each split, as where a model is tested on another data set."""

    train: Source
    validation: Source
    test: Source | None = None

    def load(
        self, split: str, *, mirror: Path | None, languages: Sequence[str] | None = None
    ) -> Rows | None:
        """Return the rows of a split, as its source gives them."""
        source: Source | None = getattr(self, split)
        return None if source is None else source.load(split, mirror=mirror, languages=languages)


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """Rows of parquet files, by split.

    Attributes:
        files: by split.
    """

    files: Mapping[str, Path]

    def load(
        self,
        split: str,
        *,
        mirror: Path | None,  # noqa: ARG002
        languages: Sequence[str] | None = None,  # noqa: ARG002
    ) -> Rows | None:
        """Return the rows of a split; mirror and languages play no part.

        Raises:
            FileNotFoundError: if the file does not exist.
            ValueError: if it is not a parquet file, or has no rows.
        """
        if split not in self.files:
            return None
        file = self.files[split].expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"A split must be a parquet file, but {file} does not exist.")
        rows = _rows_of(file)
        if len(rows.table) == 0:
            raise ValueError(f"A split must have rows, but {rows.origin} is empty.")
        return rows


@dataclass(frozen=True, kw_only=True)
class JoinedSource:
    """The rows of several sources behind each other, with the columns that all of them have.

    A split is of the sources that have it.

    Attributes:
        sources: in this order.
    """

    sources: Sequence[Source]

    def load(
        self, split: str, *, mirror: Path | None, languages: Sequence[str] | None = None
    ) -> Rows | None:
        """Return the rows of a split.

        Raises:
            ValueError: if the sources have no column in common.
        """
        from datasets import concatenate_datasets

        loaded = [one.load(split, mirror=mirror, languages=languages) for one in self.sources]
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
            raise ValueError(f"Sources that are joined must share a column, but {origin} do not.")
        table = concatenate_datasets([one.table.select_columns(shared) for one in parts])
        return Rows(table, origin, " ".join(one.fingerprint for one in parts))


@dataclass(frozen=True, kw_only=True)
class GeneratedSource:
    """Rows made by ``generator(count, seed)``; ``rows`` says how many for each split.

    Splits use consecutive seeds, so that they differ.
    """

    generator: Generator
    rows: Mapping[str, int]
    seed: int = 0

    def load(
        self,
        split: str,
        *,
        mirror: Path | None,  # noqa: ARG002
        languages: Sequence[str] | None = None,  # noqa: ARG002
    ) -> Rows | None:
        """Generate the rows of a split; mirror and languages play no part."""
        from datasets import Dataset

        if split not in self.rows:
            return None
        seed = self.seed + _SPLITS.index(split)
        columns = self.generator(self.rows[split], seed)
        origin = f"{getattr(self.generator, '__name__', 'generator')} ({split}, seed {seed})"
        table: Dataset = Dataset.from_dict(dict(columns))
        if len(table) == 0:
            raise ValueError(f"A split must have rows, but {origin} is empty.")
        return Rows(table, origin, hashlib.sha256(json.dumps(columns).encode()).hexdigest())


def _rows_of(file: Path) -> Rows:
    from datasets import Dataset

    table = Dataset.from_dict(_parquet_columns(file))
    return Rows(table, str(file), hashlib.sha256(file.read_bytes()).hexdigest())


def _parquet_columns(file: Path) -> dict[str, list[Any]]:
    import pyarrow.parquet

    try:
        return dict(pyarrow.parquet.read_table(file).to_pydict())
    except (OSError, ValueError) as error:
        raise ValueError(f"A split must be a parquet file, but {file} is not: {error}") from error
