"""The curves of single-task models: score against size, from the runs of one method."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.budget.allocation import Option
from multiprune.budget.ledger import parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.records.frame import Row


@dataclass(frozen=True)
class TrainedSize(Option):
    """A size of one task, with the runs that were trained at it, one a seed.

    ``size`` is that of the largest of them, so that the budget holds whichever seed is taken.
    """

    runs: tuple[Row, ...] = ()


def trained_sizes(single: Sequence[Row], task: str, of: str, shared: int) -> list[TrainedSize]:
    """Return the sizes that ``task`` was trained at, in parameters that ``of`` counts.

    ``shared`` is how many of them other models have too. Runs that were asked for the same budget
    are one size.
    """
    by_asked: dict[int, list[Row]] = {}
    for row in single:
        if row.tasks == (task,):
            by_asked.setdefault(row.budget.asked, []).append(row)
    return [
        TrainedSize(
            size=max(row.ledger.kept_in(of) for row in runs) - shared,
            score=statistics.fmean(row.validation_score(task) for row in runs),
            seeds=len(runs),
            runs=tuple(runs),
        )
        for runs in by_asked.values()
    ]


def multitask_dense(single: Sequence[Row], of: str) -> int:
    """Return the size of one dense model with a head for every task of single-task runs."""
    encoder = sum(single[0].ledger.dense[part] for part in parts_of(of) if part != "heads")
    heads = {row.tasks[0]: row.ledger.dense["heads"] for row in single}
    return encoder + (sum(heads.values()) if "heads" in parts_of(of) else 0)


def shared_embeddings(single: Sequence[Row], budget: int) -> int:
    """Return the number of embeddings, which all of the single-task runs left as they were.

    Raises:
        ValueError: if one of them did not, or ``budget`` has no room for the embeddings.
    """
    for row in single:
        if not row.frozen_embeddings:
            raise ValueError(
                "Embeddings can be shared only if they were frozen "
                f"(+encoder.freeze_embeddings=true) and not pruned, but in {row.path} they were "
                "not."
            )
    shared = single[0].ledger.kept["embeddings"]
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
