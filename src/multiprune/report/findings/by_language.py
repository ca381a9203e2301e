"""One mask for all languages or one each: runs of one language beside shared ones of their size.

The settings are those of Li et al. (2022); scores are on validation data, which all languages have.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from multiprune.report.findings.comparison import comparable, methods
from multiprune.report.findings.contender import mixing_of, one_a_seed, statistic_of
from multiprune.report.findings.difference import Difference, paired_interval
from multiprune.report.findings.model import models_of, of_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.findings.contender import Statistic
    from multiprune.report.findings.model import Model
    from multiprune.report.records.frame import LeftOut, Row, Score

_NO_EXAMPLES = "scores of one language are compared by seed only"


@dataclass(frozen=True, kw_only=True)
class LanguagePair:
    """A model of one language, and the shared one of the same method, tasks and size.

    Attributes:
        shared: None where there is none.
        alone: the score in the language by seed, of its own model.
        together: the same of the shared one.
        difference: alone less together; None where there is none.
        reason: why not.
    """

    task: str
    language: str
    own: Model
    shared: Model | None
    alone: Mapping[int, float]
    together: Mapping[int, float]
    difference: Difference | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class LanguageMean:
    """What pairs of one task with the same shared model come to, over their languages.

    Attributes:
        alone: mean over languages of models of each, over the seeds that all have.
        together: mean over the same of the shared one.
    """

    task: str
    languages: tuple[str, ...]
    shared: Model
    alone: Statistic
    together: Statistic
    difference: Difference


@dataclass(frozen=True, kw_only=True)
class ByLanguage:
    """All that is known of runs of one language.

    Attributes:
        rows: those runs.
        models: of them, each of one language.
        unpaired: shared models that no model of one language is beside.
        left_out: runs of one language that others repeat.
    """

    rows: Sequence[Row]
    models: Sequence[Model]
    pairs: Sequence[LanguagePair]
    means: Sequence[LanguageMean]
    unpaired: Sequence[Model]
    left_out: Sequence[LeftOut]


def by_setting(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Split runs to those of the shared setting and those of one language, if there are both.

    Otherwise all of them are compared with one another.
    """
    own = [row for row in rows if row.record.language is not None]
    shared = [row for row in rows if row.record.language is None]
    return (shared, own) if shared else (own, [])


def by_language(
    shared: Sequence[Row], own: Sequence[Row], *, ignore: Sequence[str] = ()
) -> ByLanguage:
    """Pair models of one language with shared ones; ``ignore`` as in :func:`methods`.

    Raises:
        ValueError: if runs cannot be compared.
    """
    rows = [*shared, *own]
    comparable(rows, across_languages=True)
    models: list[Model] = []
    whole: list[Model] = []
    left_out: list[LeftOut] = []
    for method, alike in methods(rows, ignore=(*ignore, "data.language")).items():
        whole += models_of(
            method, one_a_seed([row for row in alike if row.record.language is None])[0]
        )
        for language in sorted(
            {row.record.language for row in alike if row.record.language is not None}
        ):
            mine = [row for row in alike if row.record.language == language]
            comparable(mine)
            once, repeated = one_a_seed(mine)
            models += models_of(method, once)
            left_out += repeated
    pairs = [_pair(model, task, whole) for model in models for task in model.tasks]
    paired = {id(one.shared) for one in pairs}
    return ByLanguage(
        rows=own,
        models=models,
        pairs=sorted(pairs, key=lambda one: (one.task, one.own.method, one.own.asked)),
        means=_means(pairs),
        unpaired=[model for model in whole if id(model) not in paired],
        left_out=left_out,
    )


def _score_in(language: str) -> Score:
    def score(row: Row, task: str) -> float | None:
        return row.record.validation[task].get(f"{row.metrics[task]}.{language}")

    return score


def _pair(own: Model, task: str, whole: Sequence[Model]) -> LanguagePair:
    language = own.runs[0].record.language
    assert language is not None
    same = [one for one in whole if _trained_alike(one, own)]
    shared = of_size(same, own.contender.parameters)
    score = _score_in(language)
    alone = own.contender.by_seed(task, score)
    together = {} if shared is None else shared.contender.by_seed(task, score)
    difference, reason = _difference([alone], [together]), None
    if not same:
        reason = "there is no shared run of this method and these tasks"
    elif shared is None:
        sizes = ", ".join(f"{one.contender.parameters:,}" for one in same)
        reason = f"the shared runs have other sizes: {sizes}"
    elif not together:
        reason = f"the shared runs have no score in {language}"
    elif difference is None:
        reason = "the two have no seed in common"
    return LanguagePair(
        task=task,
        language=language,
        own=own,
        shared=shared,
        alone=alone,
        together=together,
        difference=difference,
        reason=reason,
    )


def _trained_alike(first: Model, second: Model) -> bool:
    if (first.method, first.tasks) != (second.method, second.tasks):
        return False
    return len(first.tasks) == 1 or mixing_of(first.runs[0]) == mixing_of(second.runs[0])


def _means(pairs: Sequence[LanguagePair]) -> list[LanguageMean]:
    """Average over the languages of each task and shared model, if there are several."""
    alike: dict[tuple[str, int], list[LanguagePair]] = {}
    for one in pairs:
        if one.difference is not None:
            alike.setdefault((one.task, id(one.shared)), []).append(one)
    means = []
    for (task, _), group in alike.items():
        alone, together = [one.alone for one in group], [one.together for one in group]
        difference, shared = _difference(alone, together), group[0].shared
        if len(group) > 1 and difference is not None and shared is not None:
            means.append(
                LanguageMean(
                    task=task,
                    languages=tuple(one.language for one in group),
                    shared=shared,
                    alone=_mean(alone, difference.seeds),
                    together=_mean(together, difference.seeds),
                    difference=difference,
                )
            )
    return means


def _mean(by_language: Sequence[Mapping[int, float]], seeds: Sequence[int]) -> Statistic:
    return statistic_of([statistics.fmean(one[seed] for one in by_language) for seed in seeds])


def _difference(
    alone: Sequence[Mapping[int, float]], together: Sequence[Mapping[int, float]]
) -> Difference | None:
    """Return the difference of scores by language and seed, paired by the seeds that all have."""
    seeds = sorted(set.intersection(*map(set, [*alone, *together])))
    if not seeds:
        return None
    own, shared = (
        np.array([[[by_seed[seed] for seed in seeds] for by_seed in side]])
        for side in (alone, together)
    )
    mean = float((own - shared).mean())
    if len(seeds) == 1:
        return Difference(mean, tuple(seeds), reason=_NO_EXAMPLES)
    low, high = paired_interval(own, shared)
    return Difference(mean, tuple(seeds), low, high, reason=_NO_EXAMPLES)
