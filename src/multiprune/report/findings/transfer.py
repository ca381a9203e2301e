"""Chains of runs: an encoder is pretrained, on one corpus or several, and finetuned on tasks.

The question is that of Campos et al. (2022): in which of these stages is it pruned?
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from multiprune.report.findings.comparison import history
from multiprune.report.findings.contender import Contender, statistic_of
from multiprune.runs.lineage import described

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.findings.contender import Statistic
    from multiprune.report.findings.model import Model
    from multiprune.report.records.frame import Row, Score
    from multiprune.runs.record import Stage

_THEN = " → "


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Models of the same pretraining and the same finetuning, of each task alone or of several.

    Attributes:
        label: what was done with the weights in each stage.
        method: as :func:`multiprune.report.findings.comparison.methods` calls it.
        served: the runs of each task, and the size of the largest model.
        density: the share of prunable parameters that it keeps.
        stages: what was learned from before the tasks, and in how many steps.
        last_steps: how many steps the models of tasks have had, rising; one if all are equal.
    """

    label: str
    method: str
    multitask: bool
    served: Contender
    density: float
    stages: Sequence[tuple[str, int]]
    last_steps: tuple[int, ...]

    @property
    def dense(self) -> bool:
        """Whether nothing is pruned in the end."""
        return self.density == 1

    def mean(self, tasks: Sequence[str], score: Score) -> Statistic | None:
        """Return the mean over ``tasks``; None unless it has the score of each."""
        return self.served.mean_score(score) if self.served.tasks_with(score) == [*tasks] else None

    @property
    def total_steps(self) -> int:
        """The steps of all stages; of the longest model, where models differ."""
        return sum(steps for _, steps in self.stages) + self.last_steps[-1]


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """A stage of masked language modelling, and how well it has ended, by metric over seeds."""

    label: str
    task: str
    kept: int
    density: float
    steps: int
    scores: Mapping[str, Statistic]


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """All that is known of chains.

    Attributes:
        rows: runs that did nothing but pretrain.
        tasks: of all chains.
        unequal: by what is learned from, the numbers of steps, where chains differ in it.
    """

    rows: Sequence[Row]
    chains: Sequence[Chain]
    pretraining: Sequence[Pretraining]
    tasks: tuple[str, ...]
    unequal: Mapping[str, Sequence[int]]


def by_stage(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Split runs to those of tasks and those that only pretrain, if there are both.

    Otherwise all of them are compared with one another.
    """
    pretraining = [row for row in rows if row.record.pretrains]
    others = [row for row in rows if not row.record.pretrains]
    return (others, pretraining) if others else (pretraining, [])


def transfer(models: Sequence[Model], pretraining: Sequence[Row]) -> Transfer | None:
    """Find the chains that ``models`` end; None if no encoder was pretrained in a run before.

    Models of encoders as they came stand beside those that were pretrained here.
    """
    rows = [run for model in models for run in model.runs]
    if not any(link.pretrains for row in rows for link in row.record.chain[:-1]):
        return None
    chains = _labelled(_chains([one for one in models if not one.runs[0].record.pretrains]))
    return Transfer(
        rows=pretraining,
        chains=chains,
        pretraining=_pretraining([*rows, *pretraining]),
        tasks=tuple(sorted({task for one in chains for task in one.served.runs})),
        unequal=_unequal(chains),
    )


def _chains(models: Sequence[Model]) -> list[Chain]:
    """Join models of one task each that have the same method and size."""
    joined: dict[tuple[object, ...], list[Model]] = {}
    for index, model in enumerate(models):
        alone = len(model.tasks) == 1
        key = (model.method, model.asked) if alone else (model.method, model.asked, index)
        joined.setdefault(key, []).append(model)
    chains = [_chain(group) for group in joined.values()]
    return sorted(chains, key=lambda one: (-one.density, one.method, one.multitask))


def _chain(models: Sequence[Model]) -> Chain:
    first = models[0].runs[0]
    links, multitask = first.record.chain, len(first.tasks) > 1
    *stages, last = described(links, first.budget.asked)
    what = last.removeprefix(", ".join(links[-1].tasks))
    runs = {task: runs for model in models for task, runs in model.contender.runs.items()}
    runs = {task: runs[task] for task in sorted(runs)}
    return Chain(
        label=_THEN.join([*stages, f"{'tasks together' if multitask else 'tasks'}{what}"]),
        method=models[0].method,
        multitask=multitask,
        served=Contender(max(model.contender.parameters for model in models), runs),
        density=max(run.budget.density for model in models for run in model.runs),
        stages=[(", ".join(link.tasks), link.steps) for link in links[:-1]],
        last_steps=tuple(sorted({run.record.steps for model in models for run in model.runs})),
    )


def _labelled(chains: Sequence[Chain]) -> list[Chain]:
    """Tell chains apart by their methods where the same was done with the weights."""
    counts = Counter((one.label, one.served.parameters) for one in chains)
    return [
        replace(one, label=f"{one.label} ({one.method})")
        if counts[one.label, one.served.parameters] > 1
        else one
        for one in chains
    ]


def _pretraining(rows: Sequence[Row]) -> list[Pretraining]:
    """Gather the stages that runs have gone through, each once a seed."""
    stages: dict[tuple[str, int, str], dict[int, Stage]] = {}
    for row in rows:
        for index, link in enumerate(row.record.chain, 1):
            if link.pretrains:
                label = _THEN.join(described(row.record.chain[:index], link.budget.asked))
                key = (label, link.budget.asked, history(row.record.chain[:index]))
                stages.setdefault(key, {})[link.seed] = link
    found = [
        _stage(label, task, list(by_seed.values()))
        for (label, *_), by_seed in stages.items()
        for task in next(iter(by_seed.values())).tasks
    ]
    return sorted(found, key=lambda one: (one.label.count(_THEN), -one.density, one.label))


def _stage(label: str, task: str, links: Sequence[Stage]) -> Pretraining:
    first = links[0]
    return Pretraining(
        label=label,
        task=task,
        kept=max(link.budget.kept for link in links),
        density=max(link.budget.density for link in links),
        steps=first.steps,
        scores={
            metric: statistic_of([link.validation[task][metric] for link in links])
            for metric in first.validation[task]
        },
    )


def _unequal(chains: Sequence[Chain]) -> dict[str, list[int]]:
    steps: dict[str, set[int]] = {}
    for one in chains:
        for name, count in one.stages:
            steps.setdefault(name, set()).add(count)
        for task, runs in one.served.runs.items():
            steps.setdefault(task, set()).update(run.record.steps for run in runs)
    return {name: sorted(counts) for name, counts in steps.items() if len(counts) > 1}
