"""The sections of a report on specialists, in the order that a reader wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report.page import blocks
from multiprune.report.page.blocks import Section, Table
from multiprune.report.specialists.examples_section import number_section
from multiprune.report.specialists.labels_section import labels_section
from multiprune.report.specialists.overlap_section import overlap_section
from multiprune.report.specialists.size_section import size_section
from multiprune.report.specialists.unseen_section import unseen_section

if TYPE_CHECKING:
    from multiprune.report.specialists.overview import Specialists


def specialist_sections(found: Specialists) -> list[Section]:
    """Return the sections that there are data for."""
    shown = [
        _compared(found),
        size_section(found),
        number_section(found),
        labels_section(found),
        unseen_section(found),
        overlap_section(found),
        _jobs(found),
    ]
    return [one for one in shown if one is not None]


def _compared(found: Specialists) -> Section:
    facts = {
        "model": found.files[0].run,
        "what is counted": f"{found.of}: {found.dense:,} parameters in the whole model",
        "methods": "; ".join(curve.label for curve in found.curves),
        "calibrated on": _calibrated(found) or "nothing",
        "draws": ", ".join(map(str, sorted({one.seed for one in found.files}))),
        "jobs": f"{len(found.files):,}",
        "left out": f"{len(found.left_out):,}",
    }
    tables = [
        blocks.setting_table(facts),
        Table(
            name="tasks",
            caption="Tasks, and the whole model",
            columns=["task", "metric", "score"],
            rows=[
                [
                    blocks.text(task),
                    blocks.text(found.files[0].metrics[task]),
                    blocks.number(found.whole(task)),
                ]
                for task in found.tasks
            ],
        ),
    ]
    if found.left_out:
        tables.append(blocks.left_out_table("left-out", "Jobs left out", found.left_out))
    return Section(name="compared", title="What was compared", text=[], tables=tables)


def _calibrated(found: Specialists) -> str:
    settings = sorted({one for curve in found.curves for one in curve.settings})
    return "; ".join(
        f"{', '.join(f'{one.examples:,}' for one in settings if one.labels == labels)} examples "
        f"a task with {labels} labels"
        for labels in sorted({one.labels for one in settings})
    )


def _jobs(found: Specialists) -> Section:
    label = {file.path: curve.label for curve in found.curves for file in curve.files}
    rows = [
        [
            blocks.text(str(one.path)),
            blocks.text(label.get(one.path, one.method)),
            blocks.count(one.setting.examples) if one.setting is not None else blocks.EMPTY,
            blocks.text(one.setting.labels) if one.setting is not None else blocks.EMPTY,
            blocks.count(one.seed),
            blocks.count(len(one.specialists)),
            blocks.number(one.seconds, 1),
            blocks.text(one.command or ""),
        ]
        for one in found.files
    ]
    columns = [
        "job", "method", "examples", "labels", "seed", "specialists", "seconds", "command",
    ]  # fmt: skip
    hours = sum(one.seconds for one in found.files) / 3600
    return Section(
        name="jobs",
        title="Jobs",
        text=[f"All jobs together took {hours:,.2f} hours. Machines may differ between jobs."],
        tables=[Table(name="jobs", caption="Jobs", columns=columns, rows=rows, copied=7)],
    )
