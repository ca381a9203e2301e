"""Memory-mapped rows in an Arrow file, written in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pyarrow import RecordBatchStreamWriter, Schema, Table


class RowsFile:
    """Writes tables behind each other; a column has the type that fits all of them.

    As in a table that is made of all values at once, whole numbers become numbers where others are
    not whole, and a part without a value in a column takes the type of those that have some: what
    was written before is then written anew.

    Args:
        file: that is written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._schema: Schema | None = None
        self._writer: RecordBatchStreamWriter | None = None

    def write(self, part: Table) -> None:
        """Write rows behind those that were written before.

        Raises:
            pyarrow.ArrowException: if a column holds other things than before.
        """
        import pyarrow

        schema = part.schema
        if self._schema is not None:
            schema = pyarrow.unify_schemas([self._schema, schema], promote_options="permissive")
        if self._schema is None or not schema.equals(self._schema):
            self._begin(schema)
        self._append(part)

    def close(self) -> None:
        """Write what is left to be written."""
        if self._writer is not None:
            self._writer.close()

    def _append(self, part: Table) -> None:
        import pyarrow

        assert self._schema is not None
        assert self._writer is not None
        tables = [self._schema.empty_table(), part]
        self._writer.write_table(pyarrow.concat_tables(tables, promote_options="permissive"))

    def _begin(self, schema: Schema) -> None:
        import pyarrow

        before = self.file.with_name(f"{self.file.name}.before")
        is_anew = self._writer is not None
        if is_anew:
            self.close()
            self.file.rename(before)
        self._schema, self._writer = schema, pyarrow.RecordBatchStreamWriter(str(self.file), schema)
        if is_anew:
            with pyarrow.OSFile(str(before)) as written, pyarrow.ipc.open_stream(written) as parts:
                for part in parts:
                    self._append(pyarrow.Table.from_batches([part]))
            before.unlink()
