"""One budget for several tasks: the best ensemble of single-task models, and what stands beside it.

Sizes are chosen on validation scores; test scores are only reported.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.budget.allocation import (
    Option,
    best_split,
    fit_shares,
    proportional_shares,
    uniform_shares,
)
from multiprune.budget.budget import Budget, CountBudget
from multiprune.report.candidates import Candidate, models_of, one_a_seed
from multiprune.report.methods import check_comparable, methods
from multiprune.report.scores import Scores
from multiprune.report.study import by_stage
from multiprune.runs.budget_outcome import parts_of
from multiprune.runs.frame import FinishedRun, Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from multiprune.runs.frame import Runs


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        budget: room for all tasks together; a fraction is of one dense model with a head for
            every task, which is what a multitask run starts from.
        shared_embeddings: whether the single-task models share their embeddings, which then count
            once. Only models that were trained with frozen embeddings can.
    """

    budget: Budget
    shared_embeddings: bool = False

    def __post_init__(self) -> None:
        if self.shared_embeddings and "embeddings" not in parts_of(self.budget.of):
            raise ValueError(
                "Embeddings can be shared only in a budget that counts them, but "
                f"{self.budget.of} does not."
            )


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """The best ensemble of one method, and what stands beside it.

    Attributes:
        method: as :func:`multiprune.report.methods.methods` calls it.
        tasks: by name.
        budget: the parameters that ``of`` counts and that there is room for.
        dense: those of one dense model with a head for every task.
        shared: embeddings that count once for all models; 0 if each has its own.
        candidates: ``best`` (the best ensemble), ``uniform``, ``proportional``, ``multitask``.
        refused: why one of these is missing.
        skipped: runs of this method that are not used.
    """

    method: str
    tasks: tuple[str, ...]
    of: str
    budget: int
    dense: int
    shared: int
    candidates: Mapping[str, Candidate]
    refused: Mapping[str, str]
    skipped: Sequence[Skipped]


@dataclass(frozen=True)
class Ensembles:
    """The best ensemble of each method, why others have none, what is skipped, and all scores."""

    found: Sequence[Ensemble]
    refused: Mapping[str, str]
    skipped: Sequence[Skipped]
    scores: Scores


def best_ensembles(found: Runs, request: Request, *, ignore: Sequence[str] = ()) -> Ensembles:
    """Share a budget among the single-task runs of each method in ``found``.

    Raises:
        ValueError: if there is no finished run, runs cannot be compared, or no method has an
            ensemble within the budget.
    """
    if not found.finished:
        first = found.skipped[0]
        raise ValueError(f"No run is finished: {first.path}: {first.reason}.")
    runs, _ = by_stage(found.finished)
    if all(len(run.tasks) > 1 for run in runs):
        raise ValueError(
            f"No single-task runs: all {len(runs)} are multitask, and an ensemble needs "
            "one run per task."
        )
    check_comparable(runs)
    ensembles: list[Ensemble] = []
    refused: dict[str, str] = {}
    for method, alike in methods(runs, ignore=ignore).items():
        try:
            ensembles.append(best_ensemble(method, alike, request))
        except ValueError as error:
            refused[method] = str(error)
    if not ensembles:
        raise ValueError(" ".join(f"{method}: {reason}" for method, reason in refused.items()))
    return Ensembles(ensembles, refused, found.skipped, Scores(runs))


def best_ensemble(method: str, runs: Sequence[FinishedRun], request: Request) -> Ensemble:
    """Share a budget among the single-task runs of one method; see :class:`Ensemble`.

    Raises:
        ValueError: if there are no single-task runs, no choice of trained sizes fits the budget,
            or embeddings are to be shared that were not frozen.
    """
    runs, skipped = one_a_seed(runs)
    single = [run for run in runs if len(run.tasks) == 1]
    if not single:
        raise ValueError(
            "No single-task runs: all are multitask, and an ensemble needs one run per task."
        )
    of, tasks = request.budget.of, sorted({run.tasks[0] for run in single})
    dense = multitask_dense(single, of)
    budget = _room(request.budget, dense)
    shared = shared_embeddings(single, budget) if request.shared_embeddings else 0
    sizes = {task: trained_sizes(single, task, of, shared) for task in tasks}
    split = _Split(sizes, budget - shared, shared)
    best = split.candidate(best_split(sizes, split.room))
    beside, refused = _attempts(
        {
            "uniform": split.uniform,
            "proportional": split.proportional,
            "multitask": lambda: _best_multitask(runs, tasks, of, budget),
        }
    )
    return Ensemble(
        method=method,
        tasks=tuple(tasks),
        of=of,
        budget=budget,
        dense=dense,
        shared=shared,
        candidates={"best": best} | beside,
        refused=refused,
        skipped=[*skipped, *_of_other_tasks(runs, tasks)],
    )


def _attempts(
    makers: Mapping[str, Callable[[], Candidate]],
) -> tuple[dict[str, Candidate], dict[str, str]]:
    """Return the candidates that can be made, and why the others cannot."""
    candidates, refused = {}, {}
    for name, maker in makers.items():
        try:
            candidates[name] = maker()
        except ValueError as error:
            refused[name] = str(error)
    return candidates, refused


@dataclass(frozen=True)
class _Split:
    """Room for the models of several tasks, beside embeddings that they share."""

    sizes: Mapping[str, Sequence[TrainedSize]]
    room: int
    shared: int

    def candidate(self, chosen: Mapping[str, TrainedSize]) -> Candidate:
        sizes = {task: one.size for task, one in chosen.items()}
        runs = {task: one.runs for task, one in chosen.items()}
        return Candidate(self.shared + sum(sizes.values()), runs, sizes)

    def uniform(self) -> Candidate:
        shares = uniform_shares(list(self.sizes), self.room)
        return self.candidate(fit_shares(self.sizes, shares))

    def proportional(self) -> Candidate:
        examples = {task: training_examples(task, sizes) for task, sizes in self.sizes.items()}
        shares = proportional_shares(examples, self.room)
        return self.candidate(fit_shares(self.sizes, shares))


def _room(budget: Budget, dense: int) -> int:
    # An ensemble may well have room for more than one dense model.
    return budget.count if isinstance(budget, CountBudget) else budget.parameters(dense)


def _best_multitask(
    runs: Sequence[FinishedRun], tasks: Sequence[str], of: str, budget: int
) -> Candidate:
    """Return the multitask runs with the best mean validation score; of equals, the smallest."""
    suite = [run for run in runs if len(tasks) > 1 and set(run.tasks) == set(tasks)]
    if not suite:
        raise ValueError("No multitask run has exactly these tasks.")
    alike = [model.all_runs for model in models_of("", suite)]
    found = [
        Candidate(max(run.kept_in(of) for run in own), dict.fromkeys(tasks, own)) for own in alike
    ]
    candidates = [one for one in found if one.parameters <= budget]
    if not candidates:
        raise ValueError(
            f"A multitask model must fit the budget of {budget:,} parameters, but the smallest "
            f"has {min(one.parameters for one in found):,}."
        )
    return max(candidates, key=lambda one: (_validation(one), -one.parameters))


def _validation(candidate: Candidate) -> float:
    scores = [
        run.record.validation[task][run.metrics[task]]
        for task, runs in candidate.runs.items()
        for run in runs
    ]
    return statistics.fmean(scores)


def _of_other_tasks(runs: Sequence[FinishedRun], tasks: Sequence[str]) -> list[Skipped]:
    skipped = []
    for run in runs:
        untrained = sorted(set(run.tasks) - set(tasks))
        absent = sorted(set(tasks) - set(run.tasks))
        if len(run.tasks) > 1 and untrained:
            reason = f"multitask, but there is no single-task run of {', '.join(untrained)}"
            skipped.append(Skipped(run.path, reason))
        elif len(run.tasks) > 1 and absent:
            reason = f"multitask, but without {', '.join(absent)}"
            skipped.append(Skipped(run.path, reason))
    return skipped


@dataclass(frozen=True)
class TrainedSize(Option):
    """A size of one task, with the runs that were trained at it, one a seed.

    ``size`` is that of the largest of them, so that the budget holds whichever seed is taken.
    """

    runs: tuple[FinishedRun, ...] = ()


def trained_sizes(
    single: Sequence[FinishedRun], task: str, of: str, shared: int
) -> list[TrainedSize]:
    """Return the sizes that ``task`` was trained at, in parameters that ``of`` counts.

    ``shared`` is how many of them other models have too. Runs that were asked for the same budget
    are one size.
    """
    by_asked: dict[int, list[FinishedRun]] = {}
    for run in single:
        if run.tasks == (task,):
            by_asked.setdefault(run.budget.asked, []).append(run)
    return [
        TrainedSize(
            size=max(run.kept_in(of) for run in runs) - shared,
            score=statistics.fmean(run.record.validation[task][run.metrics[task]] for run in runs),
            seeds=len(runs),
            runs=tuple(runs),
        )
        for runs in by_asked.values()
    ]


def multitask_dense(single: Sequence[FinishedRun], of: str) -> int:
    """Return the size of one dense model with a head for every task of single-task runs."""
    encoder = sum(single[0].dense[part] for part in parts_of(of) if part != "heads")
    heads = {run.tasks[0]: run.dense["heads"] for run in single}
    return encoder + (sum(heads.values()) if "heads" in parts_of(of) else 0)


def shared_embeddings(single: Sequence[FinishedRun], budget: int) -> int:
    """Return the number of embeddings, which all of the single-task runs left as they were.

    Raises:
        ValueError: if one of them did not, or ``budget`` has no room for the embeddings.
    """
    for run in single:
        if not run.frozen_embeddings:
            raise ValueError(
                "Embeddings can be shared only if they were frozen "
                f"(encoder.freeze_embeddings=true) and not pruned, but in {run.path} they were "
                "not."
            )
    shared = single[0].kept["embeddings"]
    if shared > budget:
        raise ValueError(
            f"A budget of {budget:,} parameters must hold the shared embeddings, but those are "
            f"{shared:,}."
        )
    return shared


def training_examples(task: str, sizes: Sequence[TrainedSize]) -> int:
    """Return the number of training examples of a task.

    Raises:
        ValueError: if its runs do not hold it.
    """
    runs = [run for size in sizes for run in size.runs]
    for run in runs:
        if task in run.record.examples:
            return run.record.examples[task]
    raise ValueError(
        "A share proportional to training examples needs their number, but the results of "
        f"{runs[0].path} do not hold it."
    )
