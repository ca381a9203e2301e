"""A source that renames columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from multiprune.tasks.columns import Columns
    from multiprune.tasks.rows import Rows, Source


@dataclass(frozen=True, kw_only=True)
class RenamedSource:
    """The rows of a source, under the column names of a task.

    Attributes:
        source: where they come from.
        names: by column of the task, what it is called there.
    """

    source: Source
    names: Mapping[str, str]

    def load(
        self,
        split: str,
        *,
        mirror: Path | None,
        languages: Sequence[str] | None = None,
        columns: Columns | None = None,
    ) -> Rows | None:
        """Return the rows of a split, as the source gives them but for the names of columns.

        Raises:
            ValueError: if two columns of the task would be one of the source.
        """
        if columns is not None:
            there = [self._there(name) for name in columns.names]
            if twice := [name for name in there if there.count(name) > 1]:
                raise ValueError(
                    f"{twice[0]!r} is named more than once in the columns "
                    f"{', '.join(columns.names)}."
                )
            columns = replace(
                columns,
                text=[self._there(name) for name in columns.text],
                others=[self._there(name) for name in columns.others],
                classes=None if columns.classes is None else self._there(columns.classes),
            )
        rows = self.source.load(split, mirror=mirror, languages=languages, columns=columns)
        if rows is None:
            return None
        here = {
            there: name
            for name, there in self.names.items()
            if there != name and there in rows.table.column_names
        }
        if not here:
            return rows
        # What is said of a column names the task's.
        said = ", ".join(f"{name} = {there}" for there, name in here.items())
        return replace(
            rows,
            table=rows.table.rename_columns(here),
            origin=f"{rows.origin} ({said})",
            fingerprint=f"{rows.fingerprint} {said}",
        )

    def _there(self, column: str) -> str:
        return self.names.get(column, column)
