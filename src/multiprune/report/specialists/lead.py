"""What the curves of specialists say at one size, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report.specialists.curve import overlapping
from multiprune.report.specialists.files import WITHOUT_EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.findings.contender import Statistic
    from multiprune.report.specialists.curve import Curve
    from multiprune.report.specialists.overview import Specialists

    Scored = tuple[Curve, Statistic]


def lead(found: Specialists) -> str:
    """Say which method is best at the size nearest to half, and by how much over a baseline.

    No difference is claimed where ranges over draws overlap, or where a draw is the only one.
    """
    asked = found.common_half(found.shown)
    scored = [
        (curve, score)
        for curve in found.shown
        if (score := curve.score(found.setting, asked)) is not None
    ]
    best = max(scored, key=lambda one: one[1].mean)
    others = [one for one in scored if one is not best]
    near = [one for one in others if not _apart(best, one)]
    where = f"At {asked:,} of {found.dense:,} parameters ({found.of})"
    if found.setting is not None:
        where += f" and {found.setting}"
    words = f"{where}, {_scores(found, best, len(scored), is_ahead=bool(others) and not near)}"
    if far := [one for one in others if one not in near and one[0].method in WITHOUT_EXAMPLES]:
        ahead = [f"{best[1].mean - score.mean:.3f} more than {curve.label}" for curve, score in far]
        words += f": {_and(ahead)}"
    return f"{words}.{_not_told_apart(best, near)}"


def _scores(found: Specialists, best: Scored, compared: int, *, is_ahead: bool) -> str:
    curve, score = best
    over = f"mean over {len(found.tasks)} tasks" if len(found.tasks) > 1 else found.tasks[0]
    value = f"{score.mean:.3f} ({over}; the whole model {found.whole():.3f})"
    if compared == 1:
        return f"{curve.label} scores {value}"
    if is_ahead:
        return f"{curve.label} is the best of {compared} methods with {value}"
    return f"{curve.label} has the highest score of {compared} methods, {value}"


def _not_told_apart(best: Scored, near: Sequence[Scored]) -> str:
    if not near:
        return ""
    names = _and([curve.label for curve, _ in near])
    if _is_single(best):
        return f" It is of one draw, too few to tell it apart from {names}."
    single = [curve.label for curve, _ in filter(_is_single, near)]
    several = [curve.label for curve, _ in near if curve.label not in single]
    words = f" Its range over draws overlaps that of {_and(several)}." if several else ""
    if single:
        words += f" One draw is too few to tell it apart from {_and(single)}."
    return words


def _apart(best: Scored, other: Scored) -> bool:
    known = not _is_single(best) and not _is_single(other)
    return known and not overlapping(best[1], other[1])


def _is_single(one: Scored) -> bool:
    """Whether other draws might have scored otherwise, and there are none."""
    curve, score = one
    return score.seeds < 2 and not curve.is_fixed


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
