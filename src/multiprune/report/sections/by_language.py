"""The section on one mask for all languages, or one each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report.findings.contender import statistic_of
from multiprune.report.findings.model import TOLERANCE
from multiprune.report.page import blocks
from multiprune.report.page.blocks import Cell, Section, Table
from multiprune.report.page.interval_text import interval_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from multiprune.report.findings.by_language import ByLanguage
    from multiprune.report.findings.overview import Overview


def by_language_section(overview: Overview) -> list[Section]:
    """Show shared runs beside those of one language, if there are both."""
    found = overview.by_language
    if found is None:
        return []
    tables = [_means(found), _pairs(found), _missing(found)]
    return [
        Section(
            name="languages",
            title="One mask for all languages, or one each?",
            text=_text(overview, found),
            tables=[one for one in tables if one.rows],
        )
    ]


def _text(overview: Overview, found: ByLanguage) -> list[str]:
    text = [
        "Shared: one model for all languages, and its score in each. Per language: a model of its "
        "own, trained and validated in that language alone, of the same method and tasks, and of "
        f"the same size within {100 * TOLERANCE:.0f} %, so that serving all languages so costs as "
        "many times as much. Scores are on validation data. Differences are per language less "
        "shared, paired by seed.",
        *_trained_in(overview),
    ]
    differences = [one.difference for one in found.pairs if one.difference is not None]
    if not differences:
        return [*text, "Nothing to compare: no two of these runs are alike but for the setting."]
    return [*text, *interval_text(differences)]


def _trained_in(overview: Overview) -> list[str]:
    """Name the languages of shared training data, where these are not all."""
    some = {}
    for row in overview.rows:
        for task in row.tasks:
            if languages := row.record.tasks[task].train_languages:
                some[task] = ", ".join(languages)
    named = "; ".join(f"{task} in {languages}" for task, languages in some.items())
    return [
        f"Shared runs were trained on {named} only: in other languages the difference is one of "
        "training data, too."
    ] * bool(some)


def _means(found: ByLanguage) -> Table:
    rows = [
        [
            blocks.text(one.task),
            blocks.text(one.shared.method),
            blocks.count(one.shared.contender.parameters),
            blocks.text(", ".join(one.languages)),
            blocks.count(len(one.difference.seeds)),
            blocks.statistic(one.together),
            blocks.statistic(one.alone),
            blocks.difference(one.difference),
        ]
        for one in found.means
    ]
    return Table(
        name="languages-mean",
        caption="Mean validation score over languages",
        columns=[
            "task", "method", "kept", "languages", "seeds", "shared", "per language", "difference",
        ],
        rows=rows,
    )  # fmt: skip


def _pairs(found: ByLanguage) -> Table:
    rows = [
        [
            blocks.text(one.task),
            blocks.text(one.own.method),
            blocks.text(one.language),
            blocks.count(one.shared.contender.parameters),
            blocks.count(one.own.contender.parameters),
            blocks.count(len(one.difference.seeds)),
            _score(one.together),
            _score(one.alone),
            blocks.difference(one.difference),
        ]
        for one in found.pairs
        if one.shared is not None and one.difference is not None
    ]
    columns = [
        "task", "method", "language", "kept shared", "kept per language", "seeds", "shared",
        "per language", "difference",
    ]  # fmt: skip
    caption = "Validation scores by language"
    return Table(
        name="languages", caption=caption, columns=columns, rows=rows, folded=len(rows) > 24
    )


def _score(by_seed: Mapping[int, float]) -> Cell:
    return blocks.statistic(statistic_of(list(by_seed.values())))


def _missing(found: ByLanguage) -> Table:
    missing = [
        (one.task, one.own, one.language, one.reason)
        for one in found.pairs
        if one.reason is not None
    ]
    missing += [
        (", ".join(one.tasks), one, "all", "there is no run of one language of this size")
        for one in found.unpaired
    ]
    rows = [
        [
            blocks.text(task),
            blocks.text(model.method),
            blocks.count(model.contender.parameters),
            blocks.text(language),
            blocks.text(reason),
        ]
        for task, model, language, reason in missing
    ]
    return Table(
        name="languages-missing",
        caption="Runs that are not paired, and why",
        columns=["task", "method", "kept", "language", "reason"],
        rows=rows,
        folded=len(rows) > 12,
    )
