"""A report on specialists as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from multiprune.report.findings.contender import statistic_of
from multiprune.report.findings.ensemble_table import left_out_document
from multiprune.report.specialists.files import Elsewhere
from multiprune.report.specialists.labels_section import label_differences
from multiprune.report.specialists.overlap_section import task_overlap
from multiprune.report.specialists.unseen_section import unseen_scores, unseen_wheres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from multiprune.report.findings.contender import Statistic
    from multiprune.report.specialists.curve import Curve
    from multiprune.report.specialists.files import Setting, SpecialistFile
    from multiprune.report.specialists.overview import Specialists


def as_json(found: Specialists, lead: str) -> str:
    """Return all numbers of a report; ``overlap`` is null where it is not known."""
    content = {
        "lead": lead,
        "run": found.files[0].run,
        "of": found.of,
        "dense": found.dense,
        "tasks": list(found.tasks),
        "whole": {"mean": found.whole()} | {task: found.whole(task) for task in found.tasks},
        "setting": _setting(found.setting),
        "curves": [_curve(found, curve) for curve in found.curves],
        "label_differences": [
            {
                "label": one.curve.label,
                "examples": one.examples,
                "asked": one.asked,
                "gold": asdict(one.gold),
                "pseudo": asdict(one.pseudo),
                "difference": asdict(one.difference),
            }
            for one in label_differences(found)
        ],
        "unseen": _unseen(found),
        "overlap": _overlap(found),
        "left_out": left_out_document(found.left_out),
        "jobs": [
            {"path": str(one.path), "seed": one.seed, "seconds": one.seconds}
            | {"command": one.command, "setting": _setting(one.setting)}
            for one in found.files
        ],
    }
    return json.dumps(content, indent=2) + "\n"


def _setting(setting: Setting | None) -> dict[str, Any] | None:
    return None if setting is None else asdict(setting)


def _curve(found: Specialists, curve: Curve) -> dict[str, Any]:
    settings: list[Setting | None] = [*curve.settings] or [None]
    return {
        "label": curve.label,
        "method": curve.method,
        "options": dict(curve.options),
        "repair": curve.repair,
        "points": [
            {
                "setting": _setting(setting),
                "asked": asked,
                "density": asked / found.dense,
                "kept": curve.kept(setting, asked),
                "seeds": sorted(curve.by_draw(setting, asked)),
                "mean": _statistic(curve.score(setting, asked)),
                "tasks": {t: _statistic(curve.score(setting, asked, t)) for t in found.tasks},
            }
            for setting in settings
            for asked in curve.sizes(setting)
        ],
    }


def _statistic(value: Statistic | None) -> dict[str, Any] | None:
    return None if value is None else asdict(value)


def _unseen(found: Specialists) -> list[dict[str, Any]]:
    return [
        {
            "task": task,
            "data": data,
            "label": found.curves[index].label,
            "asked": asked,
            "whole": those[0].whole,
            "score": asdict(statistic_of([one.score for one in those])),
        }
        for task, data in unseen_wheres(found)
        for index, by_asked in unseen_scores(found, (task, data)).items()
        for asked, those in by_asked.items()
    ]


def _overlap(found: Specialists) -> dict[str, Any] | None:
    overlap = task_overlap(found)
    if overlap is None:
        return None
    shared = {
        kind: [{"tasks": list(pair)} | asdict(one) for pair, one in pairs.items()]
        for kind, pairs in overlap.shared.items()
    }
    return {"label": overlap.curve.label, "asked": overlap.asked, "shared": shared}


_COLUMNS = (
    "path", "run", "method", "options", "repair", "examples", "labels", "seed", "of", "dense",
    "task", "data", "asked", "kept", "metric", "score", "whole",
)  # fmt: skip


def as_csv(found: Specialists) -> str:
    """Return a line a specialist and data that it answered; ``data`` is empty for its task's."""
    file = io.StringIO()
    writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for one in found.files:
        writer.writerows(_lines(one))
    return file.getvalue()


def _lines(file: SpecialistFile) -> Iterator[dict[str, Any]]:
    setting = {} if file.setting is None else asdict(file.setting)
    names = ("path", "run", "method", "repair", "seed", "of", "dense")
    job = {name: getattr(file, name) for name in names} | setting
    job["options"] = json.dumps(file.options, sort_keys=True)
    for one in (*file.specialists, *file.unseen):
        whole = one.whole if isinstance(one, Elsewhere) else file.whole[one.task]
        yield job | {"metric": file.metrics[one.task], "whole": whole} | asdict(one)
