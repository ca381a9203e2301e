"""The curve of one way to prune, over sizes, numbers of calibration examples and draws."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from multiprune.report.findings.contender import Statistic, statistic_of
from multiprune.report.records.frame import LeftOut
from multiprune.report.specialists.files import WITHOUT_EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.specialists.files import Setting, SpecialistFile

#: Ours first; what a method should beat last.
_FIRST, _LAST = "attribution", WITHOUT_EXAMPLES


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One way to prune: a method with its options, and whether what is left is repaired.

    Attributes:
        label: a short name, its own within a page.
        files: of all settings and draws; those of one draw have no size in common.
    """

    label: str
    method: str
    options: Mapping[str, Any]
    repair: str
    files: Sequence[SpecialistFile]

    @property
    def needs_examples(self) -> bool:
        """Whether it has been calibrated."""
        return self.files[0].setting is not None

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to draw, so that one value is all there is."""
        return not self.needs_examples and self.method != "random"

    @property
    def settings(self) -> list[Setting]:
        """The fewest examples first; none if it needs no examples."""
        return sorted({one.setting for one in self.files if one.setting is not None})

    @property
    def all_sizes(self) -> list[int]:
        """Asked for in any setting, the smallest first."""
        return sorted({size for one in self.files for size in one.sizes})

    def at(self, setting: Setting | None) -> list[SpecialistFile]:
        """Return the files of a setting; all if it needs no examples."""
        return [one for one in self.files if one.setting in (None, setting)]

    def sizes(self, setting: Setting | None) -> list[int]:
        """Return the sizes asked for in a setting, the smallest first."""
        return sorted({size for one in self.at(setting) for size in one.sizes})

    def by_draw(
        self, setting: Setting | None, asked: int, task: str | None = None
    ) -> dict[int, float]:
        """Return the score by seed, of one task or the mean over all."""
        return {
            file.seed: statistics.fmean(
                one.score
                for one in file.specialists
                if one.asked == asked and task in (None, one.task)
            )
            for file in self.at(setting)
            if asked in file.sizes
        }

    def score(
        self, setting: Setting | None, asked: int, task: str | None = None
    ) -> Statistic | None:
        """Return the score over draws, of one task or the mean over all; None if there is none."""
        values = list(self.by_draw(setting, asked, task).values())
        return statistic_of(values) if values else None

    def kept(self, setting: Setting | None, asked: int, task: str | None = None) -> int:
        """Return the mean number of parameters kept of what was asked."""
        return round(
            statistics.fmean(
                one.kept
                for file in self.at(setting)
                for one in file.specialists
                if one.asked == asked and task in (None, one.task)
            )
        )


def curves_of(files: Sequence[SpecialistFile]) -> tuple[list[Curve], list[LeftOut]]:
    """Tell curves apart, and leave out files that others repeat."""
    variants: dict[tuple[str, str, str], list[SpecialistFile]] = {}
    for file in files:
        options = json.dumps(file.options, sort_keys=True)
        variants.setdefault((file.method, options, file.repair), []).append(file)
    left_out: list[LeftOut] = []
    curves = []
    for key in sorted(variants, key=_rank):
        method, _, repair = key
        alike = [one[0] for other, one in variants.items() if other[0] == method]
        chosen, repeated = _one_a_draw(variants[key])
        left_out += repeated
        curves.append(
            Curve(
                label=_label(variants[key][0], alike),
                method=method,
                options=variants[key][0].options,
                repair=repair,
                files=chosen,
            )
        )
    return curves, left_out


def overlapping(one: Statistic, other: Statistic) -> bool:
    """Whether ranges over draws have a value in common; so they do where an end is unknown."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return True
    return one.low <= other.high and other.low <= one.high


def _rank(key: tuple[str, str, str]) -> tuple[int, int, str, str, str]:
    method, options, repair = key
    last = _LAST.index(method) + 1 if method in _LAST else 0
    return last, int(method != _FIRST), method, str(repair != "none"), options


def _label(file: SpecialistFile, alike: Sequence[SpecialistFile]) -> str:
    """Name a curve by its method and by what tells it from others of the method."""
    told = [
        _option(name, value)
        for name, value in sorted(file.options.items())
        if any(other.options.get(name) != value for other in alike)
    ]
    words = ", ".join([file.method, *(one for one in told if one)])
    if file.repair != "none":
        words += f" + {file.repair}"
    return words


def _option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"not {name}"
    if isinstance(value, (list, tuple)):
        return " and ".join(map(str, value))
    return "" if value is None else f"{name} {value}"


def _one_a_draw(
    files: Sequence[SpecialistFile],
) -> tuple[list[SpecialistFile], list[LeftOut]]:
    """Keep, of files of one draw that repeat each other, what the last by path has of each size."""
    drawn: dict[tuple[Setting | None, int], list[SpecialistFile]] = {}
    kept: list[SpecialistFile] = []
    left_out: list[LeftOut] = []
    for file in reversed(files):
        is_fixed = file.setting is None and file.method != "random"
        later = drawn.setdefault((file.setting, 0 if is_fixed else file.seed), [])
        new = _not_in(later, file)
        if new.specialists or new.unseen or new.overlap:
            kept.append(new)
        elif file.setting is not None:
            left_out.append(LeftOut(file.path, f"repeated by {later[-1].path}"))
        later.append(file)
    return kept[::-1], left_out[::-1]


def _not_in(later: Sequence[SpecialistFile], file: SpecialistFile) -> SpecialistFile:
    sizes = {size for one in later for size in one.sizes}
    shared = {size for one in later for size in one.overlap}
    elsewhere = {(one.task, one.data, one.asked) for other in later for one in other.unseen}
    return replace(
        file,
        specialists=[one for one in file.specialists if one.asked not in sizes],
        unseen=[one for one in file.unseen if (one.task, one.data, one.asked) not in elsewhere],
        overlap={size: one for size, one in file.overlap.items() if size not in shared},
    )
