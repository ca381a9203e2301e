"""The folder of a report: written as a whole, and never over anything but a report."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from multiprune.runs.atomic import atomic_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Lists the files that are the report's own.
MARK = ".multiprune-report"


def check_replaceable(folder: Path) -> None:
    """Check that nothing would be lost.

    Raises:
        ValueError: if ``folder`` is a file, or holds anything that is not part of a report.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"A report is written into a folder, but {folder} is a file.")
    if not folder.is_dir():
        return
    mark = folder / MARK
    own = {MARK, *(mark.read_text().splitlines() if mark.is_file() else ())}
    if others := sorted({one.name for one in folder.iterdir()} - own):
        raise ValueError(
            "A report is written into a new or empty folder or over another report, but "
            f"{folder} holds {others[0]}."
        )


@contextmanager
def report_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to write into, which takes the place of ``folder`` if nothing fails."""
    check_replaceable(folder)
    folder = folder.resolve()
    with atomic_folder(folder, claim=lambda _: check_replaceable(folder)) as beside:
        yield beside
        names = sorted(file.name for file in beside.iterdir())
        (beside / MARK).write_text("".join(f"{name}\n" for name in names))
