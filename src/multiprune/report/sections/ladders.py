"""The section on every size from one run, or a run for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report.findings.contender import statistic_of
from multiprune.report.findings.ladder_pairs import APART, scores_of, seconds_of
from multiprune.report.page import blocks
from multiprune.report.page.blocks import Figure, Section, Table
from multiprune.report.page.plots import Line, ends, frontier, short

if TYPE_CHECKING:
    from multiprune.report.findings.ladders import Ladders, ManySizes
    from multiprune.report.findings.overview import Overview
    from multiprune.report.page.blocks import Cell


def ladder_section(overview: Overview) -> list[Section]:
    """Show models of many sizes beside separate ones, if there are such models."""
    found = overview.ladders
    if found is None:
        return []
    not_used = "Not used in this section, and why"
    tables = [
        _pairs(overview, found),
        _cost(found),
        _sizes(overview, found),
        blocks.left_out_table("ladders-left-out", not_used, found.left_out, of="run or file"),
    ]
    return [
        Section(
            name="ladders",
            title="Every size from one run, or a run for each?",
            text=_text(found),
            figures=[_figure(overview, index, one) for index, one in enumerate(found.found)],
            tables=[one for one in tables if one.rows],
        )
    ]


def _text(found: Ladders) -> list[str]:
    splits = " and ".join(dict.fromkeys(one.split for one in found.found))
    text = [
        "One run: a model that was trained for every size from dense to its budget, as "
        "multiprune frontier has evaluated it. A run each: models of one size, of the same tasks, "
        f"encoder and number of steps. Scores are means over tasks, on {splits} data.",
        "Two sizes are a pair if each is the nearest to the other in kept parameters and the "
        f"larger is at most {APART:g} times the smaller; scores of a pair are over the seeds that "
        "both have. The ratio is that of the score of the one run to that of a run each. A dense "
        "model stands beside the sizes of every method.",
    ]
    if not found.found:
        return [text[0].partition(" Scores")[0], "Nothing to compare: no file can be used."]
    for one in found.found:
        text += _summary(one)
        if not any(each.pairs for each in one.separate):
            text.append(f"Nothing to compare with {one.model.method}: no separate size is a pair.")
    return text


def _summary(one: ManySizes) -> list[str]:
    text = []
    seconds = seconds_of(one.model)
    if one.dense is not None:
        text.append(
            f"One run of {one.model.method} takes {seconds / seconds_of(one.dense):.2f} times as "
            "long as a dense model alone."
        )
    for each in one.separate:
        ratios = [pair.ratio for pair in each.pairs if pair.ratio is not None]
        if each.ratio is None:
            continue
        text.append(
            f"{one.model.method} has {each.ratio:.3f} times the score of {each.method}, the mean "
            f"over {blocks.plural(len(ratios), 'size')} (lowest {min(ratios):.3f}, highest "
            f"{max(ratios):.3f}). One run takes {seconds / each.seconds:.2f} times as long "
            f"as {blocks.plural(len(each.pairs), 'run')} of these sizes."
        )
    return text


def _figure(overview: Overview, index: int, one: ManySizes) -> Figure:
    points = [(point.parameters, point.mean) for point in one.points]
    lines = [Line(f"one run, {one.model.method}", 0, "-", points)]
    for color, each in enumerate(one.separate, 1):
        scores = [scores_of(model, one.tasks, one.split) for model in each.models]
        sizes = [model.contender.parameters for model in each.models]
        means = [statistic_of(list(by_seed.values())) for by_seed in scores]
        line = Line(f"a run each, {each.method}", color, "--", list(zip(sizes, means, strict=True)))
        lines.append(line)
    label = f"{one.split} score" + ", mean" * (len(one.tasks) > 1)
    return Figure(
        name=f"ladders-{index}",
        caption=f"{', '.join(one.tasks)}, on {one.split} data: a point is the mean over seeds, a "
        "band goes from the lowest to the highest seed.",
        alt=f"Scores over kept parameters: {ends(lines, 'at', short)}.",
        draw=lambda: frontier(lines, overview.dense, label, wide=True),
    )


def _pairs(overview: Overview, found: Ladders) -> Table:
    rows = [
        [
            blocks.text(one.model.method),
            blocks.number(pair.point.parameters / overview.dense),
            blocks.statistic(pair.of_point),
            blocks.text(each.method),
            blocks.number(pair.separate.contender.parameters / overview.dense),
            blocks.statistic(pair.of_separate),
            blocks.number(pair.ratio),
            blocks.count(len(pair.seeds)),
        ]
        for one in found.found
        for each in one.separate
        for pair in each.pairs
    ]
    columns = [
        "one run", "density", "score", "a run each", "density each", "score each", "ratio", "seeds",
    ]  # fmt: skip
    caption = "Nearly the same size, from one run and from a run each"
    return Table(
        name="ladders-pairs", caption=caption, columns=columns, rows=rows, folded=len(rows) > 24
    )


def _cost(found: Ladders) -> Table:
    rows = []
    for one in found.found:
        seconds = seconds_of(one.model)
        trained = [(one.model.method, "every size from one run", 1, seconds)]
        if one.dense is not None:
            trained.append((one.dense.method, "dense alone", 1, seconds_of(one.dense)))
        trained += [
            (each.method, "a run for each size above", len(each.pairs), each.seconds)
            for each in one.separate
            if each.pairs
        ]
        rows += [_cost_row(*each, seconds) for each in trained]
    return Table(
        name="ladders-cost",
        caption="What training costs, the mean over seeds; machines may differ between runs",
        columns=["method", "what is trained", "runs", "wall s", "one run, times this"],
        rows=rows,
        sortable=False,
    )


def _cost_row(method: str, what: str, runs: int, seconds: float, of_one: float) -> list[Cell]:
    return [
        blocks.text(method),
        blocks.text(what),
        blocks.count(runs),
        blocks.number(seconds, 1),
        blocks.number(of_one / seconds, 2),
    ]


def _sizes(overview: Overview, found: Ladders) -> Table:
    tasks = sorted({task for one in found.found for task in one.tasks})
    rows = [
        [
            blocks.text(one.model.method),
            blocks.text(one.split),
            blocks.count(point.parameters),
            blocks.number(point.parameters / overview.dense),
            blocks.count(len(point.scores)),
            blocks.statistic(point.mean),
            *(blocks.statistic(point.score(t)) if t in one.tasks else blocks.EMPTY for t in tasks),
        ]
        for one in found.found
        for point in one.points
    ]
    columns = ["method", "data", "kept", "density", "seeds", "mean", *tasks]
    caption = "Every size of one run, with the lowest and highest seed"
    return Table(
        name="ladders-sizes", caption=caption, columns=columns, rows=rows, folded=len(rows) > 12
    )
