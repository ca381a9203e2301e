"""The section on encoders that were pretrained in runs of their own, and pruned in one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report.page import blocks
from multiprune.report.page.blocks import Cell, Figure, Section, Table
from multiprune.report.page.plots import Level, Line, frontier, short
from multiprune.report.records.frame import SPLITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.findings.contender import Statistic
    from multiprune.report.findings.overview import Overview
    from multiprune.report.findings.transfer import Chain, Transfer


def transfer_section(overview: Overview) -> list[Section]:
    """Show chains of runs beside each other, if there are any."""
    found = overview.transfer
    if found is None:
        return []
    splits = sorted(SPLITS, key=lambda split: split != overview.split)
    tables = [*(_scores(found, split, overview.split) for split in splits), _pretraining(found)]
    return [
        Section(
            name="transfer",
            title="Sparse transfer",
            text=_text(overview, found),
            figures=_figures(overview, found),
            tables=[one for one in tables if one.rows],
        )
    ]


def _text(overview: Overview, found: Transfer) -> list[str]:
    text = [
        "A chain is an encoder that one run after another has trained: pretrained on texts, and "
        "finetuned on tasks in the end. It is called by what was done with weights in each run: "
        "none was pruned (dense), some were pruned during it (pruned), or those that the run "
        "before had pruned stayed so (mask kept).",
    ]
    if not found.chains:
        return [*text, "No task was learned yet."]
    text += [
        f"Scores are those on {overview.split} data, the first metric of each task, the mean over "
        "seeds with the lowest and the highest. A mean over tasks stands where a chain has all of "
        f"{', '.join(found.tasks)}.",
        _steps(found),
    ]
    return text


def _steps(found: Transfer) -> str:
    if found.unequal:
        named = [
            f"{name} {', '.join(f'{count:,}' for count in counts)}"
            for name, counts in found.unequal.items()
        ]
        return f"Chains were not trained for the same numbers of steps: {'; '.join(named)}."
    text = "Chains were trained for the same number of steps in every stage that they share"
    totals = sorted({one.total_steps for one in found.chains})
    if len(totals) > 1:
        numbers = ", ".join(f"{one:,}" for one in totals)
        return f"{text}; not all have all stages, so that their sums differ ({numbers})."
    return f"{text}."


def _figures(overview: Overview, found: Transfer) -> list[Figure]:
    means = [(one, one.mean(found.tasks, overview.score)) for one in found.chains]
    known = [(one, mean) for one, mean in means if mean is not None]
    if not known:
        return []
    points: dict[str, list[tuple[int, Statistic]]] = {}
    for one, mean in known:
        if not one.dense:
            points.setdefault(one.label, []).append((one.served.parameters, mean))
    lines = [
        Line(label, color, "-", sorted(own, key=lambda point: point[0]))
        for color, (label, own) in enumerate(points.items())
    ]
    dense = [(one.label, mean.mean) for one, mean in known if one.dense]
    levels = [Level(label, score, len(lines) + i) for i, (label, score) in enumerate(dense)]
    seen = [
        f"{line.label} {score.mean:.3f} at {short(size)}"
        for line in lines
        for size, score in line.points
    ]
    seen += [f"{one.label} {one.score:.3f}" for one in levels]
    label = f"{overview.split} score" + ", mean" * (len(found.tasks) > 1)
    return [
        Figure(
            name="transfer",
            caption=f"{', '.join(found.tasks)}, on {overview.split} data, by what was done with "
            "weights in each stage. Dashed: nothing was pruned.",
            alt=f"Scores of chains over kept parameters: {'; '.join(seen)}.",
            draw=lambda: frontier(lines, overview.dense, label, wide=True, levels=levels),
        )
    ]


def _scores(found: Transfer, split: str, shown: str) -> Table:
    score = SPLITS[split]
    rows = [
        [
            blocks.text(one.label),
            blocks.number(one.density),
            blocks.count(one.served.parameters),
            blocks.count(min(map(len, one.served.runs.values()))),
            _steps_cell(one),
            blocks.count(one.total_steps),
            blocks.statistic(one.mean(found.tasks, score)),
            *(
                blocks.statistic(one.served.score(task, score))
                if task in one.served.runs
                else blocks.EMPTY
                for task in found.tasks
            ),
        ]
        for one in found.chains
        if one.served.tasks_with(score)
    ]
    columns = ["chain", "density", "kept", "seeds", "steps", "steps in all", "mean", *found.tasks]
    return Table(
        name=f"transfer-{split}",
        caption=f"Chains: {split} scores",
        columns=columns,
        rows=rows,
        folded=split != shown,
    )


def _steps_cell(chain: Chain) -> Cell:
    first, last = chain.last_steps[0], chain.last_steps[-1]
    of_tasks = f"{first:,}" if first == last else f"{first:,} to {last:,}"
    return blocks.text(" + ".join([*(f"{steps:,}" for _, steps in chain.stages), of_tasks]))


def _pretraining(found: Transfer) -> Table:
    metrics = _metrics(found)
    rows = [
        [
            blocks.text(one.label),
            blocks.text(one.task),
            blocks.number(one.density),
            blocks.count(one.kept),
            blocks.count(next(iter(one.scores.values())).seeds),
            blocks.count(one.steps),
            *(blocks.statistic(one.scores.get(metric)) for metric in metrics),
        ]
        for one in found.pretraining
    ]
    return Table(
        name="transfer-pretraining",
        caption="Pretraining: validation scores at the end of each stage. They can be compared on "
        "the same texts only.",
        columns=["stages", "on", "density", "kept", "seeds", "steps", *metrics],
        rows=rows,
    )


def _metrics(found: Transfer) -> Sequence[str]:
    return list(dict.fromkeys(metric for one in found.pretraining for metric in one.scores))
