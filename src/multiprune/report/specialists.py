"""Specialists of one model: what jobs have found, as one frame."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from multiprune.report.compare import Spread, spread
from multiprune.runs.frame import Skipped
from multiprune.runs.specialist_file import WITHOUT_EXAMPLES, Calibration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from multiprune.runs.specialist_file import SpecialistFile

#: Ours first; what a method should beat last.
_FIRST, _LAST = "attribution", WITHOUT_EXAMPLES

COLUMNS = (
    "path", "curve", "method", "options", "repair", "examples", "labels", "seed", "draw", "task",
    "data", "asked", "kept", "metric", "score", "whole",
)  # fmt: skip

#: What makes one specialist: the last file that has it counts.
_ONE = ["curve", "examples", "labels", "draw", "task", "data", "asked"]


@dataclass(frozen=True, kw_only=True)
class Specialists:
    """All that is known of the specialists of one model.

    Attributes:
        files: all that were read, by path.
        frame: a row a specialist and data that it answers, each once; ``data`` is empty for its
            task's own, ``examples`` is 0 for methods that need none.
        overlap: a row a draw, size, kind of unit and pair of tasks.
        curves: ways to prune, in the order that they are shown in.
        setting: the number of examples and kind of labels that curves over sizes are of; None if
            no method needs examples.
        skipped: files that are damaged, or that others repeat.
    """

    files: Sequence[SpecialistFile]
    frame: pd.DataFrame
    overlap: pd.DataFrame
    curves: Sequence[str]
    setting: Calibration | None
    skipped: Sequence[Skipped]

    @classmethod
    def from_files(
        cls, files: Sequence[SpecialistFile], damaged: Sequence[Skipped] = ()
    ) -> Specialists:
        """Compare what jobs have found; ``damaged`` is listed beside it.

        Of files of several models, or of other tasks, those that most are of are compared.
        """
        files, others = _of_one_model(files)
        curves = _curves(files)
        frame = pd.DataFrame(
            [row for file in files for row in _rows(file, curves[file.path])], columns=list(COLUMNS)
        )
        overlap = pd.DataFrame(
            [row for file in files for row in _overlaps(file, curves[file.path])],
            columns=["path", *_ONE[:4], "asked", "kind", "task", "other", "value"],
        )
        once = frame.drop_duplicates(_ONE, keep="last")
        last = overlap.drop_duplicates([*_ONE[:4], "asked", "kind", "task", "other"], keep="last")
        kept = {*once.path, *last.path}
        return cls(
            files=files,
            frame=once,
            overlap=last,
            curves=list(dict.fromkeys(curves.values())),
            setting=_most_measured([file for file in files if str(file.path) in kept], curves),
            skipped=[*damaged, *others, *_repeated(files, frame, kept)],
        )

    @property
    def scope(self) -> str:
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
    def settings(self) -> list[Calibration]:
        """Of all files, the fewest examples first."""
        return sorted({file.setting for file in self.files if file.setting is not None})

    def whole(self, task: str | None = None) -> float:
        """Return the score of the whole model, of one task or the mean over all."""
        scores = [self.files[0].whole[name] for name in self.tasks if task in (None, name)]
        return sum(scores) / len(scores)

    def own(self, setting: Calibration | None) -> pd.DataFrame:
        """Return the rows on tasks' own data in a setting, and of methods without examples."""
        return at(self.frame[self.frame.data == ""], setting)

    @property
    def shown(self) -> list[str]:
        """Curves that have been measured in the setting."""
        found = set(self.own(self.setting).curve)
        return [curve for curve in self.curves if curve in found]

    def needs_examples(self, curve: str) -> bool:
        """Whether a curve has been calibrated."""
        return bool((self.frame[self.frame.curve == curve].examples > 0).any())

    def is_fixed(self, curve: str) -> bool:
        """Whether there is nothing to draw, so that one value is all there is."""
        is_random = (self.frame[self.frame.curve == curve].method == "random").any()
        return not self.needs_examples(curve) and not is_random

    def near_half(self, sizes: Iterable[int]) -> int:
        """Return the size nearest to half of the whole model, the smaller of two."""
        return min(sorted(sizes), key=lambda size: abs(size / self.dense - 0.5))

    def common_half(self, rows: pd.DataFrame) -> int:
        """Return the size nearest to half, of those most often measured in ``rows``."""
        counted = Counter(rows[["curve", "examples", "asked"]].drop_duplicates().asked)
        return self.near_half(size for size in counted if counted[size] == max(counted.values()))


def at(frame: pd.DataFrame, setting: Calibration | None) -> pd.DataFrame:
    """Return the rows of a setting, and of what needs no examples."""
    free = frame.examples == 0
    if setting is None:
        return frame[free]
    same = (frame.examples == setting.examples) & (frame.labels == setting.labels)
    return frame[same | free]


def spreads_over_draws(frame: pd.DataFrame, by: Sequence[str]) -> dict[Any, Spread]:
    """Return scores by some columns: the mean over tasks, and its range over draws."""
    by_draw = frame.groupby([*by, "seed"]).score.mean().reset_index()
    return {
        key if len(by) > 1 else key[0]: spread(own.score) for key, own in by_draw.groupby(list(by))
    }


@dataclass(frozen=True)
class SignedSpread(Spread):
    """A difference over draws."""

    def __str__(self) -> str:
        ends = "" if self.seeds == 1 else f" ({self.low:+.3f} to {self.high:+.3f})"
        return f"{self.mean:+.3f}{ends}"


def overlapping(one: Spread, other: Spread) -> bool:
    """Whether ranges over draws have a value in common; so they do where an end is unknown."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return True
    return one.low <= other.high and other.low <= one.high


def _rows(file: SpecialistFile, curve: str) -> list[list[Any]]:
    setting = file.setting or Calibration(0, "")
    options = json.dumps(file.options, sort_keys=True)
    job: list[Any] = [str(file.path), curve, file.method, options, file.repair]
    job += [setting.examples, setting.labels, file.seed, _draw(file)]
    found = [(one, "", file.whole[one.task]) for one in file.specialists]
    found += [(one, one.data, one.whole) for one in file.unseen]
    return [
        [*job, one.task, data, one.asked, one.kept, file.metrics[one.task], one.score, whole]
        for one, data, whole in found
    ]


def _overlaps(file: SpecialistFile, curve: str) -> list[list[Any]]:
    setting = file.setting or Calibration(0, "")
    job: list[Any] = [str(file.path), curve, setting.examples, setting.labels, _draw(file)]
    return [
        [*job, asked, kind, first, second, value]
        for asked, one in file.overlap.items()
        for kind, pairs in one.shared.items()
        for (first, second), value in pairs.items()
        if first < second
    ]


def _draw(file: SpecialistFile) -> int:
    """Return the seed, if there is anything to draw."""
    return 0 if file.setting is None and file.method != "random" else file.seed


def _repeated(
    files: Sequence[SpecialistFile], frame: pd.DataFrame, kept: set[str]
) -> list[Skipped]:
    """List files of which nothing is left, as later ones have it, too."""
    skipped = []
    for file in files:
        if str(file.path) in kept or file.setting is None:
            continue
        first = frame[frame.path == str(file.path)].iloc[0]
        same = (frame[_ONE] == first[_ONE]).all(axis=1)
        skipped.append(Skipped(file.path, f"repeated by {frame[same].path.iloc[-1]}"))
    return skipped


def _of_one_model(
    files: Sequence[SpecialistFile],
) -> tuple[list[SpecialistFile], list[Skipped]]:
    """Return the files of the model and tasks that most are of, and why others are skipped."""
    keys = [(file.run, file.of, file.dense, file.tasks) for file in files]
    most = max(keys, key=keys.count)
    names = ("run", "of", "dense", "tasks")
    skipped = []
    for file, key in zip(files, keys, strict=True):
        if key != most:
            name, own, other = next(
                one for one in zip(names, key, most, strict=True) if one[1] != one[2]
            )
            reason = f"its `{name}` is {own}, but that of most jobs is {other}"
            skipped.append(Skipped(file.path, reason))
    return [file for file, key in zip(files, keys, strict=True) if key == most], skipped


def _most_measured(
    files: Sequence[SpecialistFile], curves: Mapping[Any, str]
) -> Calibration | None:
    """Return the setting of most curves; of several the one of most files, examples, and gold."""
    counted = Counter(setting for setting, _ in {(one.setting, curves[one.path]) for one in files})
    of_files = Counter(file.setting for file in files)
    return max(
        (setting for setting in counted if setting is not None),
        key=lambda one: (counted[one], of_files[one], one.examples, one.labels == "gold"),
        default=None,
    )


def _curves(files: Sequence[SpecialistFile]) -> dict[Any, str]:
    """Name the curve of each file by its method and what tells it from others of the method."""
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for file in files:
        if file.options not in alike.setdefault(file.method, []):
            alike[file.method].append(file.options)
    ordered = sorted(files, key=_rank)
    return {file.path: _label(file, alike[file.method]) for file in ordered}


def _rank(file: SpecialistFile) -> tuple[int, int, str, bool, str]:
    last = _LAST.index(file.method) + 1 if file.method in _LAST else 0
    options = json.dumps(file.options, sort_keys=True)
    return last, int(file.method != _FIRST), file.method, file.repair != "none", options


def _label(file: SpecialistFile, alike: Sequence[Mapping[str, Any]]) -> str:
    told = [
        _option(name, value)
        for name, value in sorted(file.options.items())
        if any(other.get(name) != value for other in alike)
    ]
    words = ", ".join([file.method, *(option for option in told if option)])
    return words + f" + {file.repair}" * (file.repair != "none")


def _option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"not {name}"
    if isinstance(value, (list, tuple)):
        return " and ".join(map(str, value))
    return "" if value is None else f"{name} {value}"
