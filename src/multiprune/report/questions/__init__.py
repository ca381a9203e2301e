"""A question of a report a file: ``answer`` returns a section, or None if there are no data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report.questions import (
    compared,
    examples,
    helping,
    kept,
    languages,
    masks,
    multitask,
    pruners,
    runs,
    sizes,
    specialists,
    transfer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from multiprune.report.page.section import Section
    from multiprune.report.specialists import Specialists
    from multiprune.report.study import Study

#: In the order that a reader wants them.
QUESTIONS: Sequence[Callable[[Study], Section | None]] = (
    pruners.answer,
    examples.answer,
    sizes.answer,
    transfer.answer,
    multitask.answer,
    helping.answer,
    languages.answer,
    kept.answer,
    masks.answer,
    compared.answer,
    runs.answer,
)

#: Of specialists, which are cut out of a run's model.
SPECIALIST_QUESTIONS: Sequence[Callable[[Specialists], Section | None]] = specialists.QUESTIONS
