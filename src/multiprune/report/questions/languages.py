"""One mask for all languages or one each: runs of one language beside shared ones of their size.

The settings are those of Li et al. (2022); scores are on validation data, which all languages have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from multiprune.report.candidates import TOLERANCE, mixing_of, models_of, of_size, one_a_seed
from multiprune.report.compare import Difference, compare, spread
from multiprune.report.methods import check_comparable, methods
from multiprune.report.page.intervals import interval_text
from multiprune.report.page.section import Section, Table, plural, table
from multiprune.runs.frame import as_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.candidates import Model
    from multiprune.report.compare import Spread
    from multiprune.report.study import Study
    from multiprune.runs.frame import FinishedRun


@dataclass(frozen=True, kw_only=True)
class LanguagePair:
    """A model of one language, and the shared one of the same method, tasks and size.

    Attributes:
        shared: None where there is none.
        scores: in the language, of both, as a frame has them.
        difference: per language less shared; None where there is none.
        reason: why not.
    """

    task: str
    language: str
    own: Model
    shared: Model | None
    scores: pd.DataFrame
    difference: Difference | None
    reason: str | None

    def spread(self, model: Model | None) -> Spread | None:
        """Return the score in the language of one of both."""
        values = self.scores[_of(self.scores, model)].value if model is not None else ()
        return spread(values) if len(values) else None


@dataclass(frozen=True, kw_only=True)
class LanguageMean:
    """What pairs of one task with the same shared model come to, over their languages."""

    pair: LanguagePair
    languages: list[str]
    shared: Spread
    own: Spread
    difference: Difference


def answer(study: Study) -> Section | None:
    """Show shared runs beside those of one language, if there are both."""
    if not study.of_language:
        return None
    pairs, unpaired = language_pairs(study)
    means = language_means(pairs)
    differences = [pair.difference for pair in pairs if pair.difference is not None]
    return Section(
        name="languages",
        title="One mask for all languages, or one each?",
        answer=_headline(means, differences),
        text=[
            "Shared: one model for all languages. Per language: one each, trained and validated in "
            f"it alone, of the same method, tasks and size (within {100 * TOLERANCE:.0f} %).",
            *_trained_in(study),
            *(interval_text(differences) if differences else ["No two of these runs are a pair."]),
        ],
        tables=[_means(means), _pairs(pairs), _missing(pairs, unpaired)],
    )


def language_pairs(study: Study) -> tuple[list[LanguagePair], list[Model]]:
    """Pair models of one language with shared ones; return these, and shared ones without pair.

    Raises:
        ValueError: if runs cannot be compared.
    """
    runs = [*study.runs, *study.of_language]
    check_comparable(runs, across_languages=True)
    models: list[Model] = []
    shared: list[Model] = []
    for method, alike in methods(runs, ignore=(*study.ignore, "data.language")).items():
        by_language: dict[str | None, list[FinishedRun]] = {}
        for run in alike:
            by_language.setdefault(run.record.language, []).append(run)
        for language, own in by_language.items():
            check_comparable(own)
            (shared if language is None else models).extend(models_of(method, one_a_seed(own)[0]))
    scores = as_frame(runs)
    scores = scores[(scores.split == "validation") & (scores.language != "")]
    models.sort(key=lambda model: (model.method, str(model.first.record.language)))
    pairs = [_pair(model, task, shared, scores) for model in models for task in model.tasks]
    paired = {id(pair.shared) for pair in pairs}
    pairs.sort(key=lambda pair: (pair.task, pair.own.method, pair.own.asked))
    return pairs, [model for model in shared if id(model) not in paired]


def language_means(pairs: Sequence[LanguagePair]) -> list[LanguageMean]:
    """Average over the languages of each task and shared model, if there are several."""
    alike: dict[tuple[str, int], list[LanguagePair]] = {}
    for pair in pairs:
        if pair.difference is not None:
            alike.setdefault((pair.task, id(pair.shared)), []).append(pair)
    means = []
    for group in alike.values():
        scores = pd.concat([pair.scores for pair in group], ignore_index=True)
        own = scores.run.isin([str(run.path) for pair in group for run in pair.own.all_runs])
        found = compare(scores, own, ~own)
        if len(group) > 1 and len(found):
            difference = found.difference[0]
            paired = scores.seed.isin(difference.seeds)
            shared, alone = (
                spread(scores[paired & side].groupby("seed").value.mean()) for side in (~own, own)
            )
            means.append(
                LanguageMean(
                    pair=group[0],
                    languages=[pair.language for pair in group],
                    shared=shared,
                    own=alone,
                    difference=difference,
                )
            )
    return means


def _of(scores: pd.DataFrame, model: Model) -> pd.Series:
    return scores.run.isin([str(run.path) for run in model.all_runs])


def _pair(own: Model, task: str, shared: Sequence[Model], scores: pd.DataFrame) -> LanguagePair:
    language = own.first.record.language
    assert language is not None
    same = [model for model in shared if _trained_alike(model, own)]
    beside = of_size(same, own.parameters)
    both = [own] if beside is None else [own, beside]
    metric = own.first.metrics[task]
    where = (scores.task == task) & (scores.language == language) & (scores.metric == metric)
    rows = scores[where & scores.run.isin([str(r.path) for one in both for r in one.all_runs])]
    difference, reason = None, None
    if beside is not None:
        found = compare(rows, _of(rows, own), _of(rows, beside))
        difference = found.difference[0] if len(found) else None
    if not same:
        reason = "there is no shared run of this method and these tasks"
    elif beside is None:
        sizes = ", ".join(f"{model.parameters:,}" for model in same)
        reason = f"the shared runs have other sizes: {sizes}"
    elif not _of(rows, beside).any():
        reason = f"the shared runs have no score in {language}"
    elif difference is None:
        reason = "the two have no seed in common"
    return LanguagePair(
        task=task,
        language=language,
        own=own,
        shared=beside,
        scores=rows,
        difference=difference,
        reason=reason,
    )


def _trained_alike(first: Model, second: Model) -> bool:
    if (first.method, first.tasks) != (second.method, second.tasks):
        return False
    return len(first.tasks) == 1 or mixing_of(first.first) == mixing_of(second.first)


def _headline(means: Sequence[LanguageMean], differences: Sequence[Difference]) -> str:
    if means:
        first = means[0]
        return (
            f"A mask per language scores {first.difference} more than a shared one, the mean over "
            f"{plural(len(first.languages), 'language')} ({first.pair.task}, "
            f"{first.pair.own.method})."
        )
    if differences:
        above = sum(difference.mean > 0 for difference in differences)
        return f"A mask per language scores more in {above} of {plural(len(differences), 'pair')}."
    return ""


def _trained_in(study: Study) -> list[str]:
    """Name the languages of shared training data, where these are not all."""
    some = {
        task: ", ".join(languages)
        for run in study.runs
        for task in run.tasks
        if (languages := run.record.tasks[task].train_languages)
    }
    named = "; ".join(f"{task} in {languages}" for task, languages in some.items())
    return [
        f"Shared runs were trained on {named} only: in other languages the difference is one of "
        "training data, too."
    ] * bool(some)


def _means(means: Sequence[LanguageMean]) -> Table:
    rows = (
        {
            "task": mean.pair.task,
            "method": mean.pair.own.method,
            "kept": mean.pair.shared.parameters if mean.pair.shared is not None else None,
            "languages": ", ".join(mean.languages),
            "seeds": len(mean.difference.seeds),
            "shared": mean.shared,
            "per language": mean.own,
            "per language - shared": mean.difference,
        }
        for mean in means
    )
    return table("languages-mean", "Mean validation score over languages", rows)


def _pairs(pairs: Sequence[LanguagePair]) -> Table:
    rows = (
        {
            "task": pair.task,
            "method": pair.own.method,
            "language": pair.language,
            "kept shared": pair.shared.parameters,
            "kept per language": pair.own.parameters,
            "seeds": len(pair.difference.seeds),
            "shared": pair.spread(pair.shared),
            "per language": pair.spread(pair.own),
            "per language - shared": pair.difference,
        }
        for pair in pairs
        if pair.shared is not None and pair.difference is not None
    )
    return table("languages", "Validation scores by language", rows)


def _missing(pairs: Sequence[LanguagePair], unpaired: Sequence[Model]) -> Table:
    none = "there is no run of one language of this size"
    missing = [(pair.task, pair.own, pair.language, pair.reason) for pair in pairs if pair.reason]
    missing += [(", ".join(model.tasks), model, "all", none) for model in unpaired]
    rows = (
        {
            "task": task,
            "method": model.method,
            "kept": model.parameters,
            "language": language,
            "reason": reason,
        }
        for task, model, language, reason in missing
    )
    return table("languages-missing", "Runs without a pair, and why", rows, fold=12)
