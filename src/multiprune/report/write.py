"""Runs in, report out: a page with figures, or the same as Markdown, JSON or CSV."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from multiprune.report.document import as_csv, as_json, as_markdown
from multiprune.report.findings.by_examples import by_examples
from multiprune.report.findings.overlap import overlaps
from multiprune.report.findings.overview import overview
from multiprune.report.folder import check_replaceable, report_folder
from multiprune.report.page.blocks import plural
from multiprune.report.page.drawing import save
from multiprune.report.page.html import page
from multiprune.report.records.frame import read_runs
from multiprune.report.sections.order import sections, sections_by_examples
from multiprune.report.specialists import document as specialist_document
from multiprune.report.specialists.files import read_specialist_files
from multiprune.report.specialists.lead import lead
from multiprune.report.specialists.overview import specialists
from multiprune.report.specialists.sections import specialist_sections

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from multiprune.report.findings.by_examples import ByExamples
    from multiprune.report.findings.overlap import Overlaps
    from multiprune.report.findings.overview import Overview
    from multiprune.report.page.blocks import Section
    from multiprune.report.records.frame import LeftOut
    from multiprune.report.specialists.overview import Specialists

#: The file that holds a format.
FILES: Mapping[str, str] = {
    "html": "index.html",
    "markdown": "report.md",
    "json": "report.json",
    "csv": "runs.csv",
}


class Document(ABC):
    """What is shown as a page with figures, and handed out as data.

    Attributes:
        files: the file that holds a format.
    """

    files: ClassVar[Mapping[str, str]] = FILES

    @property
    @abstractmethod
    def title(self) -> str:
        """The heading of the page."""

    @property
    @abstractmethod
    def lead(self) -> str:
        """What there is to say first, in a sentence or two."""

    @property
    @abstractmethod
    def left_out(self) -> Sequence[LeftOut]:
        """What was found and is not used."""

    @abstractmethod
    def sections(self) -> list[Section]:
        """Return what a page shows."""

    @abstractmethod
    def data(self, format: str) -> str:
        """Return the numbers, as ``json`` or ``csv``."""

    def text(self, format: str) -> str:
        """Return a format that takes no figures."""
        if format == "markdown":
            return as_markdown(self.title, self.lead, self.sections(), figures=False)
        return self.data(format)

    def write(self, folder: Path, format: str) -> Path:
        """Write a format, and the figures where it has any, to ``folder``; return the file.

        Raises:
            ValueError: if the folder holds anything but another report.
        """
        with report_folder(folder) as beside:
            if format in ("html", "markdown"):
                content = self._with_figures(beside, format)
            else:
                content = self.data(format)
            (beside / self.files[format]).write_text(content, encoding="utf-8")
        return folder / self.files[format]

    def _with_figures(self, folder: Path, format: str) -> str:
        shown = self.sections()
        figures = [figure for section in shown for figure in section.figures]
        drawn = {figure.name: save(figure.draw, folder, figure.name) for figure in figures}
        if format == "markdown":
            return as_markdown(self.title, self.lead, shown, figures=True)
        return page(self.title, self.lead, shown, drawn)


@dataclass(frozen=True)
class Report(Document):
    """What is known of some runs.

    Attributes:
        overlaps: None if masks were not read.
        by_examples: None if all runs must have the same numbers of training examples.
    """

    overview: Overview
    overlaps: Overlaps | None = None
    by_examples: ByExamples | None = None

    @classmethod
    def of(
        cls, paths: Sequence[Path], *, ignore: Sequence[str] = (), masks: bool = False
    ) -> Report:
        """Read runs and compare them; ``ignore`` as in :func:`.findings.overview.overview`.

        Raises:
            FileNotFoundError: if there is no run in a path.
            ValueError: if no run is finished, or runs cannot be compared.
        """
        found = overview(read_runs(*paths), ignore=ignore)
        return cls(found, overlaps=overlaps(found) if masks else None)

    @classmethod
    def of_examples(cls, paths: Sequence[Path], *, ignore: Sequence[str] = ()) -> Report:
        """Read runs of other numbers of training examples, and compare them by those.

        Raises:
            FileNotFoundError: if there is no run in a path.
            ValueError: if no run is finished, runs cannot be compared, or numbers of examples do
                not vary, or of two tasks at a time.
        """
        found = overview(read_runs(*paths), ignore=ignore, by_examples=True)
        return cls(found, by_examples=by_examples(found))

    @property
    @override
    def title(self) -> str:
        return "One budget for all tasks"

    @property
    @override
    def left_out(self) -> Sequence[LeftOut]:
        return self.overview.left_out

    @override
    def data(self, format: str) -> str:
        if format == "json":
            return as_json(self.overview, self.overlaps, self.by_examples)
        return as_csv(self.overview)

    @override
    def sections(self) -> list[Section]:
        if self.by_examples is not None:
            return sections_by_examples(self.overview, self.by_examples)
        return sections(self.overview, self.overlaps)

    @property
    @override
    def lead(self) -> str:
        rows = self.overview.all_rows
        return (
            f"{plural(len(rows), 'finished run')} of {plural(len(self.overview.tasks), 'task')} on "
            f"{rows[0].encoder}, {plural(len({row.record.seed for row in rows}), 'seed')}, "
            f"{plural(len(self.overview.methods), 'method')}; {len(self.overview.left_out):,} left "
            "out."
        )


@dataclass(frozen=True)
class SpecialistReport(Document):
    """What is known of models of one task each, cut out of a model of all."""

    found: Specialists

    files: ClassVar[Mapping[str, str]] = {**FILES, "csv": "specialists.csv"}

    @classmethod
    def of(cls, paths: Sequence[Path]) -> SpecialistReport:
        """Read what jobs have found, and compare it.

        Raises:
            FileNotFoundError: if a job has left nothing in a path.
            ValueError: if all files are damaged, or files are of different models or tasks.
        """
        return cls(specialists(*read_specialist_files(paths)))

    @property
    @override
    def title(self) -> str:
        return "One task's own model, without training"

    @property
    @override
    def lead(self) -> str:
        return lead(self.found)

    @property
    @override
    def left_out(self) -> Sequence[LeftOut]:
        return self.found.left_out

    @override
    def sections(self) -> list[Section]:
        return specialist_sections(self.found)

    @override
    def data(self, format: str) -> str:
        if format == "json":
            return specialist_document.as_json(self.found, self.lead)
        return specialist_document.as_csv(self.found)


def check_request(format: str, folder: Path | None) -> None:
    """Check what can be checked before runs are read.

    Raises:
        ValueError: if the format is unknown, or the folder holds anything but another report.
    """
    if format not in FILES:
        raise ValueError(f"`format` must be one of {', '.join(FILES)}, but is {format!r}.")
    if folder is not None:
        check_replaceable(folder)
