"""Plain text files with one text per line."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.data.cache import stored
from multiprune.data.file_rows import rows_folder
from multiprune.tasks.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from multiprune.tasks.columns import Columns

# So many lines are read at a time.
_LINES = 1000


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """Lines of text files in UTF-8, in a column ``text``.

    Attributes:
        files: by split, a path whose last part may be a pattern, as in ``corpus/*.txt``; files are
            read in alphabetical order.
    """

    files: Mapping[str, str]

    def load(
        self,
        split: str,
        *,
        mirror: Path | None,  # noqa: ARG002
        languages: Sequence[str] | None = None,  # noqa: ARG002
        columns: Columns | None = None,  # noqa: ARG002
    ) -> Rows | None:
        """Return the rows of a split; mirror and languages play no part.

        Raises:
            FileNotFoundError: if no file fits the pattern.
            ValueError: if a file is not UTF-8, or there are no lines.
        """
        if split not in self.files:
            return None
        pattern = Path(self.files[split]).expanduser()
        files = sorted(pattern.parent.glob(pattern.name))
        if not files:
            raise FileNotFoundError(f"The text file {pattern} does not exist.")
        digest = hashlib.sha256()
        for file in files:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        place = rows_folder() / f"lines-{digest.hexdigest()[:32]}"
        table, _ = stored(place, lambda: (({"text": part}, 0) for part in _parts(files)))
        if not len(table):
            raise ValueError(f"{pattern} has no rows.")
        return Rows(table, str(pattern), digest.hexdigest())


def _parts(files: Sequence[Path]) -> Iterator[list[str]]:
    """Yield some lines at a time: one part at least."""
    yield []
    for file in files:
        try:
            # As in `split_lines`, nothing else ends a line.
            with file.open(encoding="utf-8", newline="\n") as stream:
                lines = (line.removesuffix("\n").removesuffix("\r") for line in stream)
                while part := [*islice(lines, _LINES)]:
                    yield part
        except UnicodeDecodeError:
            # Says in which line.
            lines_of(file)
            raise


def lines_of(file: Path) -> list[str]:
    """Return the lines of a text file, without what ends them.

    Raises:
        ValueError: if the file is not UTF-8 (names the first line that is not).
    """
    content = file.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"A text file must be UTF-8, but line {line:,} of {file} is not."
        ) from error
    return split_lines(text)


def split_lines(text: str) -> list[str]:
    """Return the lines of a text, without what ends them."""
    # Not `splitlines`, which also splits where a text has a page or a paragraph separator.
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
