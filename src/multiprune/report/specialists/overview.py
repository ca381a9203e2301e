"""Specialists of one model: what is known of them, and what of it is shown."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.report.specialists.curve import curves_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from multiprune.report.records.frame import LeftOut
    from multiprune.report.specialists.curve import Curve
    from multiprune.report.specialists.files import Setting, SpecialistFile


@dataclass(frozen=True, kw_only=True)
class Specialists:
    """All that is known of the specialists of one model.

    Attributes:
        files: all that were read, by path.
        left_out: files that are damaged, or that others repeat.
        setting: the number of examples and kind of labels that curves over sizes are of; None if
            no method needs examples.
    """

    files: Sequence[SpecialistFile]
    left_out: Sequence[LeftOut]
    curves: Sequence[Curve]
    setting: Setting | None

    @property
    def of(self) -> str:
        """What is counted."""
        return self.files[0].of

    @property
    def dense(self) -> int:
        """The parameters of the whole model."""
        return self.files[0].dense

    @property
    def tasks(self) -> tuple[str, ...]:
        """By name."""
        return self.files[0].tasks

    @property
    def shown(self) -> list[Curve]:
        """Those that have been measured in the setting."""
        return [curve for curve in self.curves if curve.at(self.setting)]

    def whole(self, task: str | None = None) -> float:
        """Return the score of the whole model, of one task or the mean over all."""
        scores = self.files[0].whole
        return statistics.fmean(scores[name] for name in self.tasks if task in (None, name))

    def sizes(self, curve: Curve) -> list[int]:
        """Return the sizes of a curve in the setting that is shown."""
        return curve.sizes(self.setting)

    def near_half(self, sizes: Iterable[int]) -> int:
        """Return the size nearest to half of the whole model, the smaller of two."""
        return min(sorted(sizes), key=lambda size: abs(size / self.dense - 0.5))

    def common_half(self, curves: Sequence[Curve]) -> int:
        """Return the size nearest to half, of those that most curves have."""
        counted = Counter(size for curve in curves for size in self.sizes(curve))
        return self.near_half(size for size in counted if counted[size] == max(counted.values()))


def specialists(files: Sequence[SpecialistFile], damaged: Sequence[LeftOut] = ()) -> Specialists:
    """Compare what jobs have found; ``damaged`` is listed beside it.

    Raises:
        ValueError: if files are of different models or tasks.
    """
    _check(files)
    curves, repeated = curves_of(files)
    return Specialists(
        files=files,
        left_out=[*damaged, *repeated],
        curves=curves,
        setting=_most_measured(curves),
    )


def _check(files: Sequence[SpecialistFile]) -> None:
    first = files[0]
    for one in files:
        for what in ("run", "of", "dense"):
            ours, theirs = (getattr(file, what) for file in (first, one))
            if ours != theirs:
                raise ValueError(
                    f"Specialists on one page must be of one model, but `{what}` is {ours} in "
                    f"{first.path} and {theirs} in {one.path}."
                )
        if one.tasks != first.tasks:
            raise ValueError(
                "Scores are means over tasks, so that all files must be of the same, but "
                f"{first.path} is of {', '.join(first.tasks)}, and {one.path} of "
                f"{', '.join(one.tasks)}."
            )


def _most_measured(curves: Sequence[Curve]) -> Setting | None:
    """Return the setting of most curves; of several the one of most files, examples, and gold."""
    counted = Counter(setting for curve in curves for setting in curve.settings)
    files = Counter(one.setting for curve in curves for one in curve.files)
    return max(
        counted,
        key=lambda one: (counted[one], files[one], one.examples, one.labels == "gold"),
        default=None,
    )
