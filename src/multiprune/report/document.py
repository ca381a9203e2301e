"""A report as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from multiprune.report.findings.difference import MEAN
from multiprune.report.findings.ensemble_table import document as ensemble_document
from multiprune.report.findings.ensemble_table import left_out_document
from multiprune.report.ladder_document import ladder_document
from multiprune.report.records.frame import SPLITS
from multiprune.report.transfer_document import transfer_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from multiprune.report.findings.against_ensembles import Comparison
    from multiprune.report.findings.auxiliary import Effect
    from multiprune.report.findings.by_examples import ByExamples, Pair
    from multiprune.report.findings.by_language import ByLanguage
    from multiprune.report.findings.difference import Difference
    from multiprune.report.findings.ladders import Ladders
    from multiprune.report.findings.layers import Position
    from multiprune.report.findings.model import Model
    from multiprune.report.findings.overlap import Overlap, Overlaps, Shared
    from multiprune.report.findings.overview import Overview
    from multiprune.report.page.blocks import Section, Table
    from multiprune.report.records.frame import Row


def as_json(overview: Overview, overlaps: Overlaps | None, found: ByExamples | None) -> str:
    """Return all numbers of a report; ``masks`` and ``examples`` are null if not asked for."""
    content = {
        "encoder": overview.rows[0].encoder,
        "of": overview.of,
        "dense": overview.dense,
        "tasks": list(overview.tasks),
        "split": overview.split,
        "models": [_model(one) for one in overview.models],
        "comparisons": [_comparison(one) for one in overview.comparisons],
        "effects": [_effect(one) for one in overview.effects],
        "languages": None if overview.by_language is None else _languages(overview.by_language),
        "ladders": None if overview.ladders is None else _ladders(overview.ladders),
        "transfer": None if overview.transfer is None else transfer_document(overview.transfer),
        "masks": None if overlaps is None else _masks(overlaps),
        "examples": None if found is None else [_pair(one) for one in found.pairs],
        "left_out": left_out_document(overview.left_out),
        "runs": [_run(row) for row in overview.all_rows],
    }
    return json.dumps(content, indent=2) + "\n"


def as_csv(overview: Overview) -> str:
    """Return a line a finished run; scores have a column a task and split, empty where unknown."""
    tasks = sorted({task for row in overview.all_rows for task in row.tasks})
    names = [f"{split}/{task}" for split in SPLITS for task in tasks]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*_RUN, *(f"examples/{task}" for task in tasks), *names])
    for row in overview.all_rows:
        scores = [_score(row, split, task) for split in SPLITS for task in tasks]
        described = _run(row) | {"tasks": " ".join(row.tasks)}
        examples = [row.record.examples.get(task) for task in tasks]
        writer.writerow([*(described[name] for name in _RUN), *examples, *scores])
    return file.getvalue()


def as_markdown(title: str, lead: str, sections: Sequence[Section], *, figures: bool) -> str:
    """Return the text and tables of a page; ``figures`` are files beside it."""
    return "\n".join(_markdown(title, lead, sections, figures=figures)) + "\n"


_RUN = (
    "path", "tasks", "language", "pruner", "seed", "of", "dense", "asked", "kept", "steps",
    "wall_seconds", "command",
)  # fmt: skip


def _run(row: Row) -> dict[str, Any]:
    record, budget = row.record, row.budget
    described = {
        "language": record.language,
        "pruner": record.method.name,
        "seed": record.seed,
        "of": budget.scope,
        "dense": budget.dense,
        "asked": budget.asked,
        "kept": budget.kept,
        "steps": record.steps,
        "wall_seconds": record.wall_seconds,
        "command": row.command,
    }
    scores = {split: {task: _score(row, split, task) for task in row.tasks} for split in SPLITS}
    words = {"path": str(row.path), "tasks": list(row.tasks), "examples": dict(row.record.examples)}
    return described | words | scores


def _score(row: Row, split: str, task: str) -> float | None:
    return SPLITS[split](row, task) if task in row.tasks else None


def _model(model: Model) -> dict[str, Any]:
    contender = model.contender
    scores: dict[str, dict[str, Any]] = {}
    for split, score in SPLITS.items():
        found = {task: contender.score(task, score) for task in model.tasks}
        found[MEAN] = contender.mean_score(score)
        scores[split] = {name: None if one is None else asdict(one) for name, one in found.items()}
    return {
        "method": model.method,
        "tasks": list(model.tasks),
        "asked": model.asked,
        "parameters": contender.parameters,
        "seeds": [run.record.seed for run in model.runs],
        "examples": dict(model.runs[0].record.examples),
        **scores,
        "ledger": [dict(run.ledger.kept) for run in model.runs],
        "density": [dict(run.record.density) for run in model.runs],
        "runs": [str(run.path) for run in model.runs],
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "method": comparison.method,
        "budget": comparison.budget,
        "reason": comparison.reason,
        "differences": _by_split(comparison.differences),
        "ensemble": comparison.ensemble and ensemble_document(comparison.ensemble),
    }


def _effect(effect: Effect) -> dict[str, Any]:
    return {
        "method": effect.whole.method,
        "parameters": effect.whole.contender.parameters,
        "tasks": list(effect.whole.tasks),
        "left_out": effect.left_out,
        "differences": _by_split(effect.differences),
    }


def _by_split(differences: Mapping[str, Mapping[str, Difference]]) -> dict[str, Any]:
    return {
        split: {name: asdict(one) for name, one in by_task.items()}
        for split, by_task in differences.items()
    }


def _languages(found: ByLanguage) -> dict[str, Any]:
    return {
        "pairs": [
            {"task": one.task, "language": one.language, "method": one.own.method}
            | {"kept": one.own.contender.parameters}
            | {"kept_shared": one.shared and one.shared.contender.parameters}
            | {"alone": dict(one.alone), "together": dict(one.together), "reason": one.reason}
            | {"difference": None if one.difference is None else asdict(one.difference)}
            for one in found.pairs
        ],
        "means": [
            {"task": one.task, "languages": list(one.languages), "method": one.shared.method}
            | {"kept_shared": one.shared.contender.parameters}
            | {name: asdict(getattr(one, name)) for name in ("alone", "together", "difference")}
            for one in found.means
        ],
    }


def _ladders(found: Ladders) -> dict[str, Any]:
    return {
        "found": [ladder_document(one) for one in found.found],
        "left_out": left_out_document(found.left_out),
    }


def _pair(pair: Pair) -> dict[str, Any]:
    names = ("task", "method", "examples", "budget", "size", "reason")
    sides = {"together": pair.together, "alone": pair.alone}
    return {name: getattr(pair, name) for name in names} | {
        "differences": {split: asdict(one) for split, one in pair.differences.items()},
        **{name: None if one is None else _model(one) for name, one in sides.items()},
    }


def _masks(overlaps: Overlaps) -> dict[str, Any]:
    return {
        "found": [_overlap(one) for one in overlaps.found],
        "left_out": left_out_document(overlaps.left_out),
    }


def _overlap(overlap: Overlap) -> dict[str, Any]:
    return {
        "method": overlap.method,
        "asked": overlap.asked,
        "pairs": [asdict(one) for one in overlap.pairs],
        "between_tasks": _by_position(overlap.between_tasks),
        "between_both": _by_position(overlap.between_both),
        "between_seeds": _by_position(overlap.between_seeds),
        "density": [
            {"layer": layer, "matrix": matrix, "density": density}
            for (layer, matrix), density in overlap.density.items()
        ],
    }


def _by_position(shared: Mapping[Position, Shared]) -> list[dict[str, Any]]:
    return [
        {"layer": layer, "matrix": matrix} | asdict(one) for (layer, matrix), one in shared.items()
    ]


def _markdown(
    title: str, lead: str, sections: Sequence[Section], *, figures: bool
) -> Iterator[str]:
    yield f"# {title}\n\n{lead}"
    for section in sections:
        yield f"\n## {section.title}"
        yield from (f"\n{paragraph}" for paragraph in section.text)
        for figure in section.figures if figures else ():
            yield f"\n![{_words(figure.alt)}]({figure.name}.svg)\n\n{figure.caption}"
        for table in section.tables:
            yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield f"\n**{table.caption}**\n"
    yield f"| {' | '.join(table.columns)} |"
    yield f"|{'|'.join(['---'] * len(table.columns))}|"
    for row in table.rows:
        cells = [
            f"`{cell.text}`" if index == table.copied and cell.text else cell.text
            for index, cell in enumerate(row)
        ]
        yield f"| {' | '.join(map(_words, cells))} |"


def _words(words: str) -> str:
    return words.replace("|", r"\|").replace("\n", " ")
