"""One budget for several tasks: the best ensemble of single-task models, and what stands beside it.

Sizes are chosen on validation scores; test scores are only reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.budget.allocation import (
    best_split,
    fit_shares,
    proportional_shares,
    uniform_shares,
)
from multiprune.budget.budget import Budget, CountBudget
from multiprune.budget.ledger import parts_of
from multiprune.report.findings.comparison import comparable, methods
from multiprune.report.findings.contender import Contender, one_a_seed, training_of
from multiprune.report.findings.curves import (
    TrainedSize,
    multitask_dense,
    shared_embeddings,
    trained_sizes,
    training_examples,
)
from multiprune.report.findings.transfer import by_stage
from multiprune.report.records.frame import LeftOut, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from multiprune.report.records.frame import Frame


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
        method: as :func:`multiprune.report.findings.comparison.methods` calls it.
        tasks: by name.
        budget: the parameters that ``of`` counts and that there is room for.
        dense: those of one dense model with a head for every task.
        shared: embeddings that count once for all models; 0 if each has its own.
        contenders: ``best`` (the best ensemble), ``uniform``, ``proportional``, ``multitask``.
        refused: why one of these is missing.
        left_out: runs of this method that are not used.
    """

    method: str
    tasks: tuple[str, ...]
    of: str
    budget: int
    dense: int
    shared: int
    contenders: Mapping[str, Contender]
    refused: Mapping[str, str]
    left_out: Sequence[LeftOut]


@dataclass(frozen=True)
class Ensembles:
    """The best ensemble of each method, why others have none, and what is left out of all."""

    found: Sequence[Ensemble]
    refused: Mapping[str, str]
    left_out: Sequence[LeftOut]


def best_ensembles(frame: Frame, request: Request, *, ignore: Sequence[str] = ()) -> Ensembles:
    """Share a budget among the single-task runs of each method in ``frame``.

    Raises:
        ValueError: if there is no finished run, runs cannot be compared, or no method has an
            ensemble within the budget.
    """
    if not frame.rows:
        first = frame.left_out[0]
        raise ValueError(f"At least one run must be finished, but {first.path}: {first.reason}.")
    rows, _ = by_stage(frame.rows)
    if all(len(row.tasks) > 1 for row in rows):
        raise ValueError(
            f"An ensemble needs runs of single tasks, but all of {len(rows)} are multitask."
        )
    comparable(rows)
    found: list[Ensemble] = []
    refused: dict[str, str] = {}
    for method, alike in methods(rows, ignore=ignore).items():
        try:
            found.append(best_ensemble(method, alike, request))
        except ValueError as error:
            refused[method] = str(error)
    if not found:
        raise ValueError(" ".join(f"{method}: {reason}" for method, reason in refused.items()))
    return Ensembles(found, refused, frame.left_out)


def best_ensemble(method: str, rows: Sequence[Row], request: Request) -> Ensemble:
    """Share a budget among the single-task runs of one method; see :class:`Ensemble`.

    Raises:
        ValueError: if there are no single-task runs, no choice of trained sizes fits the budget,
            or embeddings are to be shared that were not frozen.
    """
    rows, left_out = one_a_seed(rows)
    single = [row for row in rows if len(row.tasks) == 1]
    if not single:
        raise ValueError("An ensemble needs runs of single tasks, but all of these are multitask.")
    of, tasks = request.budget.of, sorted({row.tasks[0] for row in single})
    dense = multitask_dense(single, of)
    budget = _room(request.budget, dense)
    shared = shared_embeddings(single, budget) if request.shared_embeddings else 0
    sizes = {task: trained_sizes(single, task, of, shared) for task in tasks}
    split = _Split(sizes, budget - shared, shared)
    best = split.contender(best_split(sizes, split.room))
    beside, refused = _attempts(
        {
            "uniform": split.uniform,
            "proportional": split.proportional,
            "multitask": lambda: _best_multitask(rows, tasks, of, budget),
        }
    )
    return Ensemble(
        method=method,
        tasks=tuple(tasks),
        of=of,
        budget=budget,
        dense=dense,
        shared=shared,
        contenders={"best": best} | beside,
        refused=refused,
        left_out=[*left_out, *_of_other_tasks(rows, tasks)],
    )


def _attempts(
    makers: Mapping[str, Callable[[], Contender]],
) -> tuple[dict[str, Contender], dict[str, str]]:
    """Return the contenders that can be made, and why the others cannot."""
    contenders, refused = {}, {}
    for name, maker in makers.items():
        try:
            contenders[name] = maker()
        except ValueError as error:
            refused[name] = str(error)
    return contenders, refused


@dataclass(frozen=True)
class _Split:
    """Room for the models of several tasks, beside embeddings that they share."""

    sizes: Mapping[str, Sequence[TrainedSize]]
    room: int
    shared: int

    def contender(self, chosen: Mapping[str, TrainedSize]) -> Contender:
        sizes = {task: one.size for task, one in chosen.items()}
        runs = {task: one.runs for task, one in chosen.items()}
        return Contender(self.shared + sum(sizes.values()), runs, sizes)

    def uniform(self) -> Contender:
        shares = uniform_shares(list(self.sizes), self.room)
        return self.contender(fit_shares(self.sizes, shares))

    def proportional(self) -> Contender:
        examples = {task: training_examples(task, sizes) for task, sizes in self.sizes.items()}
        shares = proportional_shares(examples, self.room)
        return self.contender(fit_shares(self.sizes, shares))


def _room(budget: Budget, dense: int) -> int:
    # An ensemble may well have room for more than one dense model.
    return budget.count if isinstance(budget, CountBudget) else budget.parameters(dense)


def _best_multitask(rows: Sequence[Row], tasks: Sequence[str], of: str, budget: int) -> Contender:
    """Return the multitask runs with the best mean validation score; of equals, the smallest."""
    alike: dict[str, list[Row]] = {}
    for row in rows:
        if len(tasks) > 1 and set(row.tasks) == set(tasks):
            alike.setdefault(training_of(row), []).append(row)
    if not alike:
        raise ValueError("There is no multitask run of exactly these tasks.")
    sizes = {key: max(run.ledger.kept_in(of) for run in runs) for key, runs in alike.items()}
    contenders = [
        Contender(sizes[key], dict.fromkeys(tasks, runs))
        for key, runs in alike.items()
        if sizes[key] <= budget
    ]
    if not contenders:
        raise ValueError(
            f"A multitask model must fit the budget of {budget:,} parameters, but the smallest "
            f"has {min(sizes.values()):,}."
        )
    return max(contenders, key=lambda one: (_validation(one), -one.parameters))


def _validation(contender: Contender) -> float:
    mean = contender.mean_score(Row.validation_score)
    assert mean is not None
    return mean.mean


def _of_other_tasks(rows: Sequence[Row], tasks: Sequence[str]) -> list[LeftOut]:
    left_out = []
    for row in rows:
        untrained = sorted(set(row.tasks) - set(tasks))
        absent = sorted(set(tasks) - set(row.tasks))
        if len(row.tasks) > 1 and untrained:
            reason = f"multitask, but there is no single-task run of {', '.join(untrained)}"
            left_out.append(LeftOut(row.path, reason))
        elif len(row.tasks) > 1 and absent:
            reason = f"multitask, but without {', '.join(absent)}"
            left_out.append(LeftOut(row.path, reason))
    return left_out
