"""Tables of files, whole."""

from pathlib import Path

import pyarrow

from multiprune.data.tables import table_parts
from multiprune.tasks.columns import Columns


def read_table(file: Path, columns: Columns | None = None) -> pyarrow.Table:
    """Return what the parts of a table are together."""
    return pyarrow.concat_tables(table_parts(file, columns), promote_options="permissive")
