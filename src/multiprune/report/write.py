"""Runs in, report out: a page with figures, or the same as Markdown, JSON or CSV."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from multiprune.report.folder import check_replaceable, report_folder
from multiprune.report.page.drawing import save
from multiprune.report.page.format import as_csv, as_json, as_markdown
from multiprune.report.page.html import page
from multiprune.report.page.section import joined, plural
from multiprune.report.questions import QUESTIONS, SPECIALIST_QUESTIONS
from multiprune.report.questions.runs import runs_table
from multiprune.report.questions.specialists import specialists_frame
from multiprune.report.specialists import Specialists
from multiprune.report.study import Study
from multiprune.runs.find import run_folders
from multiprune.runs.frame import Runs, read_runs
from multiprune.runs.specialist_file import (
    SPECIALISTS,
    read_specialist_files,
    specialist_folders,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from multiprune.report.page.section import Section
    from multiprune.runs.frame import Skipped

#: The file that holds a format.
FILES: Mapping[str, str] = {
    "html": "index.html",
    "markdown": "report.md",
    "json": "report.json",
    "csv": "runs.csv",
}

#: As many answers stand below the title.
ANSWERS = 3


@dataclass(frozen=True)
class Report:
    """What is known of some runs, or of specialists of one, or of both."""

    study: Study | None
    specialists: Specialists | None = None

    @classmethod
    def read(
        cls,
        paths: Sequence[Path],
        *,
        ignore: Sequence[str] = (),
        masks: bool = False,
        by_examples: bool = False,
    ) -> Report:
        """Read runs, and what jobs have cut out of them, and compare them.

        Raises:
            FileNotFoundError: if there is neither in a path.
            ValueError: if no run is finished, or runs cannot be compared.
        """
        paths = [path.parent if path.name == SPECIALISTS else path for path in paths]
        folders = [folder for path in paths for folder in specialist_folders(path)]
        files, damaged = read_specialist_files(folders)
        specialists = Specialists.from_files(files, damaged) if files else None
        runs = _read_runs(paths, folders)
        if specialists is not None and not runs.finished:
            if ignore or masks or by_examples:
                raise ValueError(
                    "`--ignore`, `--masks` and `--by-examples` are for runs that were trained, but "
                    "there are only models that were cut out of one."
                )
            return cls(None, specialists)
        if specialists is None and damaged:
            if not runs.finished:
                raise ValueError(damaged[0].reason)
            runs = Runs(runs.finished, [*runs.skipped, *damaged])
        study = Study.from_runs(runs, ignore=ignore, reads_masks=masks, by_examples=by_examples)
        return cls(study, specialists)

    @property
    def title(self) -> str:
        """What this folder shows."""
        if self.study is None:
            assert self.specialists is not None
            return f"Models of one task each, cut out of {self.specialists.files[0].run}"
        study = self.study
        encoder = study.runs[0].encoder.rstrip("/").rpartition("/")[2]
        tasks = joined(study.tasks) if len(study.tasks) < 6 else f"{len(study.tasks)} tasks"
        pruners = sorted({run.record.method.name for run in study.runs if not run.is_dense})
        named = joined(pruners) if len(pruners) < 5 else f"{len(pruners)} pruners"
        return f"{encoder} on {tasks}: {named or 'nothing pruned'}"

    @property
    def answers(self) -> list[str]:
        """What there is to say first."""
        found = [one.answer for one in self.sections if one.answer and one.leads]
        return found[:ANSWERS]

    @property
    def skipped(self) -> Sequence[Skipped]:
        """What was found and is not used."""
        return [
            *(self.study.skipped if self.study is not None else ()),
            *(self.specialists.skipped if self.specialists is not None else ()),
        ]

    @cached_property
    def sections(self) -> list[Section]:
        """The questions that there are data for."""
        found: list[Section | None] = []
        if self.study is not None:
            found += [answer(self.study) for answer in QUESTIONS]
        if self.specialists is not None:
            found += [answer(self.specialists) for answer in SPECIALIST_QUESTIONS]
        return [section for section in found if section is not None]

    @property
    def summary(self) -> str:
        """How much was read, in a line."""
        counts = []
        if self.study is not None:
            runs = self.study.all_runs
            counts = [
                plural(len(runs), "finished run"),
                plural(len({run.seed for run in runs}), "seed"),
                plural(len(self.study.methods), "method"),
            ]
        if self.specialists is not None:
            counts.append(plural(len(self.specialists.files), "job"))
        return f"{', '.join(counts)}; {len(self.skipped):,} skipped."

    def text(self, format: str) -> str:
        """Return a format that takes no figures."""
        if format == "csv":
            return self._csv()
        if format == "json":
            return as_json(self.title, self.answers, self.sections, self.skipped)
        return as_markdown(self.title, self.answers, self.sections, figures=False)

    def write(self, folder: Path, format: str) -> Path:
        """Write a format, and the figures where it has any, to ``folder``; return the file.

        Raises:
            ValueError: if the folder holds anything but another report.
        """
        with report_folder(folder) as beside:
            illustrated = format in ("html", "markdown")
            content = self._with_figures(beside, format) if illustrated else self.text(format)
            (beside / FILES[format]).write_text(content, encoding="utf-8")
        return folder / FILES[format]

    def _with_figures(self, folder: Path, format: str) -> str:
        figures = [figure for section in self.sections for figure in section.figures]
        drawn = {figure.name: save(figure.draw, folder, figure.name) for figure in figures}
        if format == "markdown":
            return as_markdown(self.title, self.answers, self.sections, figures=True)
        return page(self.title, self.answers, self.sections, drawn)

    def _csv(self) -> str:
        if self.study is None:
            assert self.specialists is not None
            return as_csv(specialists_frame(self.specialists))
        runs = runs_table(self.study).frame.drop(columns=["validation", "test"]).set_index("run")
        scores = self.study.scores.frame
        columns = scores.split + "/" + scores.task
        wide = scores.assign(column=columns).pivot_table("value", "run", "column")
        numbers = scores.assign(column="examples/" + scores.task)
        numbers = numbers.dropna(subset=["examples"]).pivot_table("examples", "run", "column")
        return as_csv(runs.join(numbers.astype("Int64")).join(wide).reset_index())


def check_request(format: str, folder: Path | None) -> None:
    """Check what can be checked before runs are read.

    Raises:
        ValueError: if the format is unknown, or the folder holds anything but another report.
    """
    if format not in FILES:
        raise ValueError(f"`format` must be one of {', '.join(FILES)}, but is {format!r}.")
    if folder is not None:
        check_replaceable(folder)


def _read_runs(paths: Sequence[Path], jobs: Sequence[Path]) -> Runs:
    """Read runs; a job that has left specialists is none, though it began as one."""
    with_runs = []
    for path in paths:
        try:
            run_folders([path])
        except FileNotFoundError:
            if not any(path == job or path in job.parents for job in jobs):
                raise
        else:
            with_runs.append(path)
    found = read_runs(*with_runs)
    own = {job.resolve() for job in jobs}
    return Runs(found.finished, [one for one in found.skipped if one.path.resolve() not in own])
