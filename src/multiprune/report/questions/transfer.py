"""Sparse transfer: an encoder is pretrained, on one corpus or several, and finetuned on tasks.

The question is that of Campos et al. (2022): in which of these stages is it pruned?
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from multiprune.report.candidates import Candidate
from multiprune.report.compare import MEAN, spread
from multiprune.report.methods import history
from multiprune.report.page.plots import Level, Line, frontier, short
from multiprune.report.page.section import Figure, Section, Table, joined, table
from multiprune.runs.frame import SPLITS
from multiprune.runs.lineage import described

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.candidates import Model
    from multiprune.report.compare import Spread
    from multiprune.report.study import Study
    from multiprune.runs.frame import FinishedRun
    from multiprune.runs.record import Stage

_THEN = " → "


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Models of the same pretraining and the same finetuning, of each task alone or of several.

    Attributes:
        label: what was done with the weights in each stage.
        method: as :func:`multiprune.report.methods.methods` calls it.
        served: the runs of each task, and the size of the largest model.
        density: the share of prunable parameters that it keeps.
        stages: what was learned from before the tasks, and in how many steps.
        last_steps: how many steps the models of tasks have had, rising; one if all are equal.
    """

    label: str
    method: str
    multitask: bool
    served: Candidate
    density: float
    stages: Sequence[tuple[str, int]]
    last_steps: tuple[int, ...]

    @property
    def dense(self) -> bool:
        """Whether nothing is pruned in the end."""
        return self.density == 1

    @property
    def total_steps(self) -> int:
        """The steps of all stages; of the longest model, where models differ."""
        return sum(steps for _, steps in self.stages) + self.last_steps[-1]

    @property
    def steps(self) -> str:
        """The steps of each stage."""
        first, last = self.last_steps[0], self.last_steps[-1]
        of_tasks = f"{first:,}" if first == last else f"{first:,} to {last:,}"
        return " + ".join([*(f"{steps:,}" for _, steps in self.stages), of_tasks])


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """A stage of masked language modelling, and how well it has ended, by metric over seeds."""

    label: str
    task: str
    kept: int
    density: float
    steps: int
    scores: Mapping[str, Spread]


def answer(study: Study) -> Section | None:
    """Show chains of runs beside each other, if an encoder was pretrained in a run before."""
    runs = [run for model in study.models for run in model.all_runs]
    if study.by_examples or not any(
        link.pretrains for run in runs for link in run.record.chain[:-1]
    ):
        return None
    chains = chains_of(study)
    tasks = sorted({task for chain in chains for task in chain.served.runs})
    splits = sorted(SPLITS, key=lambda split: split != study.split)
    text = [
        "A chain is called by what was done with weights in each run: none was pruned (dense), "
        "some were (pruned), or those that the run before had pruned stayed so (mask kept).",
    ]
    if chains:
        text.append(_steps(chains))
    return Section(
        name="transfer",
        title="Sparse transfer",
        answer=_headline(study, chains, tasks) if chains else "No task was learned yet.",
        text=text,
        figures=_figures(study, chains, tasks),
        tables=[
            *(_scores(study, chains, tasks, split) for split in splits),
            _pretraining(pretraining_of([*runs, *study.pretraining])),
        ],
    )


def chains_of(study: Study) -> list[Chain]:
    """Join models of one task each that have the same method and size, and keep others apart."""
    joined_models: dict[tuple[object, ...], list[Model]] = {}
    for index, model in enumerate(study.models):
        if not model.first.record.pretrains:
            alone = len(model.tasks) == 1
            key = (model.method, model.asked) if alone else (model.method, model.asked, index)
            joined_models.setdefault(key, []).append(model)
    chains = [_chain(group) for group in joined_models.values()]
    chains.sort(key=lambda chain: (-chain.density, chain.method, chain.multitask))
    return _labelled(chains)


def _chain(models: Sequence[Model]) -> Chain:
    first = models[0].first
    links, multitask = first.record.chain, len(first.tasks) > 1
    *stages, last = described(links, first.budget.asked)
    what = last.removeprefix(", ".join(links[-1].tasks))
    runs = {task: runs for model in models for task, runs in model.runs.items()}
    all_runs = [run for model in models for run in model.all_runs]
    return Chain(
        label=_THEN.join([*stages, f"{'tasks together' if multitask else 'tasks'}{what}"]),
        method=models[0].method,
        multitask=multitask,
        served=Candidate(
            max(model.parameters for model in models), {task: runs[task] for task in sorted(runs)}
        ),
        density=max(run.budget.density for run in all_runs),
        stages=[(", ".join(link.tasks), link.steps) for link in links[:-1]],
        last_steps=tuple(sorted({run.record.steps for run in all_runs})),
    )


def _labelled(chains: Sequence[Chain]) -> list[Chain]:
    """Tell chains apart by their methods where the same was done with the weights."""
    counts = Counter((chain.label, chain.served.parameters) for chain in chains)
    return [
        replace(chain, label=f"{chain.label} ({chain.method})")
        if counts[chain.label, chain.served.parameters] > 1
        else chain
        for chain in chains
    ]


def pretraining_of(runs: Sequence[FinishedRun]) -> list[Pretraining]:
    """Gather the stages that runs have gone through, each once a seed."""
    stages: dict[tuple[str, int, str], dict[int, Stage]] = {}
    for run in runs:
        for index, link in enumerate(run.record.chain, 1):
            if link.pretrains:
                label = _THEN.join(described(run.record.chain[:index], link.budget.asked))
                key = (label, link.budget.asked, history(run.record.chain[:index]))
                stages.setdefault(key, {})[link.seed] = link
    found = [
        _stage(label, task, list(by_seed.values()))
        for (label, *_), by_seed in stages.items()
        for task in next(iter(by_seed.values())).tasks
    ]
    return sorted(found, key=lambda stage: (stage.label.count(_THEN), -stage.density, stage.label))


def _stage(label: str, task: str, links: Sequence[Stage]) -> Pretraining:
    return Pretraining(
        label=label,
        task=task,
        kept=max(link.budget.kept for link in links),
        density=max(link.budget.density for link in links),
        steps=links[0].steps,
        scores={
            metric: spread(link.validation[task][metric] for link in links)
            for metric in links[0].validation[task]
        },
    )


def _mean(
    study: Study, chain: Chain, tasks: Sequence[str], split: str | None = None
) -> Spread | None:
    """Return the mean over ``tasks``; None unless the chain has the score of each."""
    found = study.spreads(chain.served, split)
    return found[MEAN] if tasks and all(task in found for task in tasks) else None


def _headline(study: Study, chains: Sequence[Chain], tasks: Sequence[str]) -> str:
    means = [(chain, mean) for chain in chains if (mean := _mean(study, chain, tasks)) is not None]
    dense = [one for one in means if one[0].dense]
    sparse = [one for one in means if not one[0].dense]
    if not dense or not sparse:
        return ""
    best, score = max(sparse, key=lambda one: one[1].mean)
    whole, level = max(dense, key=lambda one: one[1].mean)
    share = f" ({100 * score.mean / level.mean:.1f} %)" if level.mean > 0 else ""
    return (
        f"The best sparse chain, {best.label} at a density of {best.density:.3g}, scores {score}"
        f"{share}; the best dense one, {whole.label}, {level} ({joined(tasks)}, {study.split})."
    )


def _steps(chains: Sequence[Chain]) -> str:
    counts: dict[str, set[int]] = {}
    for chain in chains:
        for name, steps in chain.stages:
            counts.setdefault(name, set()).add(steps)
        for task, runs in chain.served.runs.items():
            counts.setdefault(task, set()).update(run.record.steps for run in runs)
    unequal = {name: sorted(steps) for name, steps in counts.items() if len(steps) > 1}
    if unequal:
        named = [f"{name} {', '.join(f'{n:,}' for n in steps)}" for name, steps in unequal.items()]
        return f"Chains were not trained for the same numbers of steps: {'; '.join(named)}."
    text = "Chains were trained for the same number of steps in every stage that they share"
    totals = sorted({chain.total_steps for chain in chains})
    if len(totals) > 1:
        numbers = ", ".join(f"{total:,}" for total in totals)
        return f"{text}; not all have all stages, so that their sums differ ({numbers})."
    return f"{text}."


def _figures(study: Study, chains: Sequence[Chain], tasks: Sequence[str]) -> list[Figure]:
    known = [(chain, mean) for chain in chains if (mean := _mean(study, chain, tasks)) is not None]
    if not known:
        return []
    points: dict[str, list[tuple[int, Spread]]] = {}
    for chain, mean in known:
        if not chain.dense:
            points.setdefault(chain.label, []).append((chain.served.parameters, mean))
    lines = [
        Line(label, color, "-", sorted(own, key=lambda point: point[0]))
        for color, (label, own) in enumerate(points.items())
    ]
    dense = [(chain.label, mean.mean) for chain, mean in known if chain.dense]
    levels = [Level(label, score, len(lines) + i) for i, (label, score) in enumerate(dense)]
    seen = [
        f"{line.label} {score.mean:.3f} at {short(size)}"
        for line in lines
        for size, score in line.points
    ]
    seen += [f"{level.label} {level.score:.3f}" for level in levels]
    label = f"{study.split} score" + ", mean" * (len(tasks) > 1)
    return [
        Figure(
            name="transfer",
            caption=f"{', '.join(tasks)}, on {study.split} data. Dashed: nothing was pruned.",
            alt=f"Scores of chains over kept parameters: {'; '.join(seen)}.",
            draw=lambda: frontier(lines, study.dense, label, levels=levels),
        )
    ]


def _scores(study: Study, chains: Sequence[Chain], tasks: Sequence[str], split: str) -> Table:
    rows = (
        {
            "chain": chain.label,
            "density": chain.density,
            "kept": chain.served.parameters,
            "seeds": chain.served.seeds,
            "steps": chain.steps,
            "steps in all": chain.total_steps,
            MEAN: _mean(study, chain, tasks, split),
            **{task: found.get(task) for task in tasks},
        }
        for chain in chains
        if (found := study.spreads(chain.served, split))
    )
    fold = 10**6 if split == study.split else 0
    return table(f"transfer-{split}", f"Chains: {split} scores", rows, fold=fold)


def _pretraining(found: Sequence[Pretraining]) -> Table:
    rows = (
        {
            "stages": stage.label,
            "on": stage.task,
            "density": stage.density,
            "kept": stage.kept,
            "seeds": next(iter(stage.scores.values())).seeds,
            "steps": stage.steps,
            **stage.scores,
        }
        for stage in found
    )
    caption = (
        "Pretraining: validation scores at the end of each stage, to be compared on the same texts "
        "only"
    )
    return table("transfer-pretraining", caption, rows)
