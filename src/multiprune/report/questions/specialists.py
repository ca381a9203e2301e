"""One task's own model, cut out of a model of all: by method, size and number of examples."""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING

from multiprune.report.compare import Spread, spread
from multiprune.report.page.drawing import SERIES
from multiprune.report.page.plots import Level, Line, ends, frontier, heat_map, over_examples, short
from multiprune.report.page.section import (
    Figure,
    Section,
    Table,
    distinct,
    facts_table,
    joined,
    plural,
    skipped_table,
    slug,
    table,
)
from multiprune.report.specialists import SignedSpread, at, overlapping, spreads_over_draws
from multiprune.runs.specialist_file import WITHOUT_EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from multiprune.report.specialists import Specialists

WHOLE = "the whole model"
GOLD, PSEUDO = "gold", "pseudo"


def by_size(found: Specialists) -> Section:
    """Show all methods at one number of examples, mean over tasks and each task."""
    rows = found.own(found.setting)
    names: dict[str | None, str] = {None: "specialists"}
    if len(found.tasks) > 1:
        names |= {
            task: f"specialists-{place}-{slug(task)}" for place, task in enumerate(found.tasks)
        }
    return Section(
        name="specialists",
        title="One task's own model, without training",
        answer=_headline(found),
        text=_text(found),
        figures=[
            _curves(found, name, rows if task is None else rows[rows.task == task], task)
            for task, name in names.items()
        ],
        tables=[
            _scores(found, name, rows if task is None else rows[rows.task == task], task)
            for task, name in names.items()
        ],
    )


def by_number(found: Specialists) -> Section | None:
    """Show scores by number of calibration examples; None if no method has several."""
    if found.setting is None:
        return None
    labels = found.setting.labels
    own = found.frame[(found.frame.data == "") & (found.frame.labels == labels)]
    counts = own.groupby("curve").examples.nunique()
    curves = [curve for curve in found.curves if counts.get(curve, 0) > 1]
    if not curves:
        return None
    half = found.common_half(own[own.curve.isin(curves)])
    scores = spreads_over_draws(own, ["curve", "asked", "examples"])
    numbers = sorted(set(own[own.curve.isin(curves)].examples))
    return Section(
        name="number",
        title="How many examples are enough",
        answer=_enough_headline(found, curves[0], half, scores),
        text=[
            f"Mean scores over tasks with {labels} labels, by the number of calibration examples "
            "of each task. Enough is the number from which on the range over draws overlaps that "
            "of the most examples.",
        ],
        figures=[
            _of_methods(found, curves, half, numbers, scores),
            _of_sizes(found, curves[0], scores),
        ],
        tables=[_numbers(curves, numbers, scores)],
    )


def by_labels(found: Specialists) -> Section | None:
    """Show what the model's own answers are worth as labels; None if no draw has both."""
    own = found.frame[found.frame.data == ""]
    keys = ["curve", "examples", "asked", "seed"]
    means = own.groupby([*keys, "labels"]).score.mean().unstack()
    if not {GOLD, PSEUDO} <= set(means.columns):
        return None
    both = means[[GOLD, PSEUDO]].dropna()
    if both.empty:
        return None
    both["difference"] = both[PSEUDO] - both[GOLD]
    grouped = dict(iter(both.reset_index().groupby(["curve", "examples", "asked"])))
    order = sorted(grouped, key=lambda key: (found.curves.index(key[0]), *key[1:]))
    differences: dict[tuple[str, int, int], Spread] = {
        key: SignedSpread(*astuple(spread(grouped[key].difference))) for key in order
    }
    rows = (
        {"method": curve, "asked": asked, "examples": examples}
        | {labels: spread(grouped[curve, examples, asked][labels]) for labels in (GOLD, PSEUDO)}
        | {"pseudo - gold": difference, "draws": difference.seeds}
        for (curve, examples, asked), difference in differences.items()
    )
    caption = "Gold and pseudo labels, the same draws of examples"
    return Section(
        name="labels",
        title="Gold or pseudo labels",
        answer=_label_headline(list(differences.values())),
        text=["Pseudo labels are what the whole model answers itself. Pairs are of one draw."],
        figures=[_label_figure(found, differences)],
        tables=[table("labels", caption, rows)],
    )


def on_other_data(found: Specialists) -> Section | None:
    """Show scores on data that no example is from; None if there are none."""
    rows = at(found.frame[found.frame.data != ""], found.setting)
    if rows.empty:
        return None
    wheres = sorted(set(zip(rows.task, rows.data, strict=True)))
    sizes = _size_names(found, rows)
    figures, shown = [], []
    for index, (task, data) in enumerate(wheres):
        own = rows[(rows.task == task) & (rows.data == data)]
        whole, what = float(own.whole.iloc[0]), f"{task} on {data}"
        lines = _lines(found, own)
        figures.append(_by_size_figure(found, f"unseen-{index}", what, lines, whole, wide=False))
        scores = spreads_over_draws(own, ["curve", "asked"])
        shown += [
            {"cut out for": task, "answers": data, "method": curve, WHOLE: whole}
            | {name: scores.get((curve, size)) for size, name in sizes.items()}
            for curve in found.curves
            if curve in set(own.curve)
        ]
    caption = "Scores on other data, by asked parameters and density"
    return Section(
        name="unseen",
        title="Other data of the same kind",
        text=["The same specialists answer data of which they have seen no example."],
        figures=figures,
        tables=[table("unseen", caption, shown)],
    )


def shared_units(found: Specialists) -> Section | None:
    """Show which units the specialists of two tasks both keep; None if it is not known."""
    rows = at(found.overlap, found.setting)
    known = [curve for curve in found.curves if curve in set(rows.curve)]
    if not known:
        return None
    # Those of attribution are the first of all.
    curve = known[0]
    rows = rows[rows.curve == curve]
    asked = found.near_half(set(rows.asked))
    rows = rows[rows.asked == asked]
    kinds = list(dict.fromkeys(rows.kind))
    pairs = {key: spread(own.value) for key, own in rows.groupby(["task", "other", "kind"])}
    couples = sorted({(first, second) for first, second, _ in pairs})
    where = f"{curve} at {asked:,} parameters"
    shown = (
        {"task": first, "and": second} | {kind: pairs.get((first, second, kind)) for kind in kinds}
        for first, second in couples
    )
    caption = "Intersection over union of kept units, mean and range over draws"
    return Section(
        name="shared",
        title="What tasks share",
        text=[
            "How many units the specialists of two tasks both keep over how many either keeps: "
            f"{where}, the size nearest to half. At random, two that keep a share p each have "
            "p / (2 - p) in common: a third at half."
        ],
        figures=[_shared_figure(kind, couples, pairs, where) for kind in kinds],
        tables=[table("shared", caption, shown)],
    )


def jobs(found: Specialists) -> Section:
    """Show the setting, and list all jobs."""
    curve = dict(zip(found.frame.path, found.frame.curve, strict=True))
    facts = {
        "model": found.files[0].run,
        "budget counts": f"{found.scope}: {found.dense:,} parameters in the whole model",
        "calibrated on": "; ".join(map(str, found.settings)) or "nothing",
    }
    tasks = (
        {"task": task, "metric": found.files[0].metrics[task], "score": found.whole(task)}
        for task in found.tasks
    )
    rows = (
        {
            "job": str(file.path),
            "command": file.command or "",
            "method": curve.get(str(file.path), file.method),
            "examples": file.setting.examples if file.setting is not None else None,
            "labels": file.setting.labels if file.setting is not None else None,
            "seed": file.seed,
            "specialists": len(file.specialists),
            "seconds": file.seconds,
        }
        for file in found.files
    )
    hours = sum(file.seconds for file in found.files) / 3600
    digits = {"seconds": 1}
    return Section(
        name="jobs",
        title="Jobs",
        answer=f"{plural(len(found.files), 'job')} took {hours:,.2f} hours.",
        leads=False,
        tables=[
            facts_table("specialist-setting", facts),
            table("specialist-tasks", "Tasks, and the whole model", tasks),
            table("jobs", "Jobs", rows, fold=10**6, command="command", digits=digits),
            skipped_table("jobs-skipped", "Skipped jobs", found.skipped, of="job"),
        ],
    )


def specialists_frame(found: Specialists) -> pd.DataFrame:
    """Return a row a specialist and data that it answered; no examples are an empty cell."""
    shown = found.frame.drop(columns=["draw"]).astype(object)
    shown = shown.assign(examples=shown.examples.where(found.frame.examples > 0, ""))
    return shown.assign(run=found.files[0].run, scope=found.scope, dense=found.dense)


def _headline(found: Specialists) -> str:
    """Say which method is best at the size nearest to half, and by how much over a baseline.

    No difference is claimed where ranges over draws overlap, or where a draw is the only one.
    """
    rows = found.own(found.setting)
    asked = found.common_half(rows)
    scores = spreads_over_draws(rows[rows.asked == asked], ["curve"])
    best = max((curve for curve in found.shown if curve in scores), key=lambda c: scores[c].mean)
    others = [curve for curve in found.shown if curve in scores and curve != best]
    near = [curve for curve in others if not _apart(found, scores, best, curve)]
    where = f"At {asked:,} of {found.dense:,} parameters ({found.scope})"
    where += f" and {found.setting}" if found.setting is not None else ""
    tasks = f"mean over {len(found.tasks)} tasks" if len(found.tasks) > 1 else found.tasks[0]
    value = f"{scores[best].mean:.3f} ({tasks}; the whole model {found.whole():.3f})"
    if not others:
        return f"{where}, {best} scores {value}."
    is_ahead = f"is the best of {len(scores)} methods with"
    is_level = f"has the highest score of {len(scores)} methods,"
    words = f"{where}, {best} {is_level if near else is_ahead} {value}"
    far = [
        f"{scores[best].mean - scores[curve].mean:.3f} more than {curve}"
        for curve in others
        if curve not in near and curve.split(",")[0].split(" ")[0] in WITHOUT_EXAMPLES
    ]
    words += f": {joined(far)}" if far else ""
    return f"{words}.{_not_told_apart(found, scores, best, near)}"


def _not_told_apart(
    found: Specialists, scores: dict[str, Spread], best: str, near: Sequence[str]
) -> str:
    if not near:
        return ""
    if _is_single(found, scores, best):
        return f" It is of one draw, too few to tell it apart from {joined(near)}."
    single = [curve for curve in near if _is_single(found, scores, curve)]
    several = [curve for curve in near if curve not in single]
    words = f" Its range over draws overlaps that of {joined(several)}." if several else ""
    if single:
        words += f" One draw is too few to tell it apart from {joined(single)}."
    return words


def _apart(found: Specialists, scores: dict[str, Spread], best: str, other: str) -> bool:
    known = not _is_single(found, scores, best) and not _is_single(found, scores, other)
    return known and not overlapping(scores[best], scores[other])


def _is_single(found: Specialists, scores: dict[str, Spread], curve: str) -> bool:
    """Whether other draws might have scored otherwise, and there are none."""
    return scores[curve].seeds < 2 and not found.is_fixed(curve)


def _text(found: Specialists) -> list[str]:
    text = [
        "Smaller models of one task each, cut out of one model of all tasks; scores on validation "
        "data. Ranges are over draws of the calibration examples alone, of one model."
    ]
    if found.setting is not None:
        why = " (of what was measured, that of most methods)" if len(found.settings) > 1 else ""
        text.append(f"Methods that need examples had {found.setting}{why}.")
    free = [curve for curve in found.curves if not found.needs_examples(curve)]
    if free and found.setting is not None:
        text.append(f"{joined(free)} {'needs' if len(free) == 1 else 'need'} none (dotted).")
    if hidden := [curve for curve in found.curves if curve not in found.shown]:
        text.append(f"Not measured so: {', '.join(hidden)}.")
    rows = found.own(found.setting)
    means = rows.groupby(["curve", "asked"]).kept.mean()
    shares = means / means.index.get_level_values("asked")
    text.append(
        f"Specialists kept from {min(shares):.1%} to {max(shares):.1%} of what was asked; figures "
        "are by what was kept, tables by what was asked."
    )
    return text


def _style(found: Specialists, curve: str) -> str:
    """Return how a curve is drawn: dotted without examples, else by its round of colours."""
    if not found.needs_examples(curve):
        return ":"
    return "-" if found.curves.index(curve) < len(SERIES) else "-."


def _lines(found: Specialists, rows: pd.DataFrame) -> list[Line]:
    """Return the scores of each curve over kept parameters."""
    scores = spreads_over_draws(rows, ["curve", "asked"])
    kept = rows.groupby(["curve", "asked"]).kept.mean()
    lines = []
    for index, curve in enumerate(found.curves):
        points = [
            (round(kept[key]), score) for key, score in sorted(scores.items()) if key[0] == curve
        ]
        if points:
            lines.append(Line(curve, index, _style(found, curve), points))
    return lines


def _curves(found: Specialists, name: str, rows: pd.DataFrame, task: str | None) -> Figure:
    what = task or _mean_over(found)
    lines = _lines(found, rows)
    wide = task is None
    return _by_size_figure(found, name, what, lines, found.whole(task), wide=wide)


def _mean_over(found: Specialists) -> str:
    return f"Mean over {len(found.tasks)} tasks" if len(found.tasks) > 1 else found.tasks[0]


def _by_size_figure(
    found: Specialists, name: str, what: str, lines: Sequence[Line], whole: float, *, wide: bool
) -> Figure:
    return Figure(
        name=name,
        caption=f"{what}, by kept parameters; dashed: {WHOLE}.",
        alt=f"{what}, by kept parameters: {ends(lines, 'at', short)}; {WHOLE} {whole:.3f}.",
        draw=lambda: frontier(lines, found.dense, what, levels=[Level(WHOLE, whole)], wide=wide),
        wide=wide,
    )


def _scores(found: Specialists, name: str, rows: pd.DataFrame, task: str | None) -> Table:
    sizes = _size_names(found, rows)
    scores = spreads_over_draws(rows, ["curve", "asked"])
    shown = []
    for curve in found.shown:
        own = {name: scores.get((curve, size)) for size, name in sizes.items()}
        draws = max(one.seeds for one in own.values() if one is not None)
        shown.append({"method": curve, **own, "draws": None if found.is_fixed(curve) else draws})
    whole = f"{WHOLE} has {found.whole(task):.3f}"
    caption = f"{task or _mean_over(found)}, by asked parameters and density; {whole}"
    fold = 0 if task is not None and len(found.tasks) > 3 else 24
    return table(name, caption, shown, fold=fold)


def _size_names(found: Specialists, rows: pd.DataFrame) -> dict[int, str]:
    """Name sizes by their parameters and density."""
    sizes = sorted(set(rows.asked))
    names = distinct(f"{short(size)} ({size / found.dense:.3g})" for size in sizes)
    return dict(zip(sizes, names, strict=True))


def _of_methods(
    found: Specialists,
    curves: Sequence[str],
    half: int,
    numbers: Sequence[int],
    scores: dict[tuple[str, int, int], Spread],
) -> Figure:
    free = spreads_over_draws(at(found.frame[found.frame.data == ""], None), ["curve", "asked"])
    lines = []
    for index, curve in enumerate(found.curves):
        points = [(n, scores[curve, half, n]) for n in numbers if (curve, half, n) in scores]
        if not found.needs_examples(curve) and (curve, half) in free:
            points = [(number, free[curve, half]) for number in numbers]
        elif curve not in curves:
            continue
        lines.append(Line(curve, index, _style(found, curve), points))
    return _number_figure(found, "number-methods", f"All methods at {half:,} parameters", lines)


def _of_sizes(found: Specialists, curve: str, scores: dict[tuple[str, int, int], Spread]) -> Figure:
    by_size: dict[int, list[tuple[int, Spread]]] = {}
    for (own, size, number), score in sorted(scores.items(), key=lambda one: one[0]):
        if own == curve:
            by_size.setdefault(size, []).append((number, score))
    lines = [
        Line(f"{short(size)} ({size / found.dense:.3g})", index, "-", points)
        for index, (size, points) in enumerate(by_size.items())
    ]
    return _number_figure(found, "number-sizes", f"{curve} at all sizes", lines)


def _number_figure(found: Specialists, name: str, caption: str, lines: Sequence[Line]) -> Figure:
    lines = [line for line in lines if line.points]
    level = Level(WHOLE, found.whole())
    xlabel = "calibration examples of each task"
    return Figure(
        name=name,
        caption=f"{caption}, by number of calibration examples; dashed: {WHOLE}.",
        alt=f"Scores over calibration examples: {ends(lines, 'with', '{:,}'.format)}.",
        draw=lambda: over_examples(lines, "mean score", xlabel=xlabel, levels=[level]),
    )


def _numbers(
    curves: Sequence[str], numbers: Sequence[int], scores: dict[tuple[str, int, int], Spread]
) -> Table:
    rows = []
    for curve in curves:
        for size in sorted({size for own, size, _ in scores if own == curve}):
            found = {n: scores[curve, size, n] for n in numbers if (curve, size, n) in scores}
            by_number = {f"{number:,}": found.get(number) for number in numbers}
            rows.append({"method": curve, "asked": size, **by_number, "enough": _enough(found)})
    caption = "Mean scores and ranges over draws by number of calibration examples"
    return table("number", caption, rows)


def _enough(scores: dict[int, Spread]) -> int | None:
    """Return the number from which on ranges overlap that of the largest number."""
    if len(scores) < 2 or any(one.seeds < 2 for one in scores.values()):
        return None
    most = enough = max(scores)
    for number in sorted(scores, reverse=True):
        if not overlapping(scores[number], scores[most]):
            break
        enough = number
    return enough


def _enough_headline(
    found: Specialists, curve: str, half: int, scores: dict[tuple[str, int, int], Spread]
) -> str:
    own = {n: score for (name, size, n), score in scores.items() if (name, size) == (curve, half)}
    enough = _enough(own)
    if enough is None:
        return ""
    return (
        f"{plural(enough, 'example')} a task are enough for {curve} at {half:,} of {found.dense:,} "
        f"parameters: {own[enough]}; with {max(own):,}, {own[max(own)]}."
    )


def _label_headline(differences: Sequence[Spread]) -> str:
    several = [one for one in differences if one.seeds > 1]
    if not several:
        return "Each difference is of one draw: whether others would agree is not known."
    better = sum(one.low is not None and one.low > 0 for one in several)
    worse = sum(one.high is not None and one.high < 0 for one in several)
    return (
        f"Of {plural(len(several), 'difference')} with several draws, pseudo labels are better in "
        f"every draw in {better:,}, worse in every draw in {worse:,}, and neither in "
        f"{len(several) - better - worse:,}."
    )


def _label_figure(found: Specialists, differences: dict[tuple[str, int, int], Spread]) -> Figure:
    numbers = {number for _, number, _ in differences}
    setting = found.setting
    number = setting.examples if setting and setting.examples in numbers else max(numbers)
    lines = []
    for index, curve in enumerate(found.curves):
        points = [
            (asked, value)
            for (own, examples, asked), value in differences.items()
            if own == curve and examples == number
        ]
        if points:
            lines.append(Line(curve, index, _style(found, curve), points))
    level = Level("no difference", 0.0)
    return Figure(
        name="labels",
        caption=f"Pseudo - gold labels, {plural(number, 'example')} a task, by asked parameters.",
        alt=f"Differences over parameters: {ends(lines, 'at', short)}.",
        draw=lambda: frontier(lines, found.dense, "pseudo - gold", levels=[level]),
    )


def _shared_figure(
    kind: str,
    couples: Sequence[tuple[str, str]],
    pairs: dict[tuple[str, str, str], Spread],
    where: str,
) -> Figure:
    tasks = sorted({task for couple in couples for task in couple})
    values = [
        [
            1.0
            if first == second
            else (
                found.mean
                if (found := pairs.get((min(first, second), max(first, second), kind)))
                else None
            )
            for second in tasks
        ]
        for first in tasks
    ]
    seen = [f"{one} and {two} {pairs[one, two, kind].mean:.2f}" for one, two in couples]
    return Figure(
        name=f"shared-{kind}",
        caption=f"Intersection over union of kept {kind}: {where}.",
        alt=f"Matrix of overlaps of {kind}: {'; '.join(seen)}.",
        draw=lambda: heat_map(tasks, tasks, values, highest=1.0),
        wide=False,
    )


QUESTIONS = (by_size, by_number, by_labels, on_other_data, shared_units, jobs)
