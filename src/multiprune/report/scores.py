"""The scores of candidates, looked up in the frame of all runs."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from multiprune.report.compare import MEAN, Difference, Spread, compare, spreads
from multiprune.report.resampled import ResampledScores
from multiprune.runs.frame import RUN_COLUMNS, SCORE_COLUMNS, FinishedRun, as_frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from multiprune.report.candidates import Candidate

    Pair = tuple[Candidate, Candidate]


class Scores:
    """The scores of some runs, over seeds, and differences of them, paired by seed."""

    def __init__(self, runs: Sequence[FinishedRun]) -> None:
        self._runs = runs
        self._resampled = ResampledScores()

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The score of each run, task and split, as :func:`multiprune.runs.frame.read_frame`."""
        frame = as_frame(self._runs)
        return frame.loc[frame.is_score, [*RUN_COLUMNS, *SCORE_COLUMNS]].reset_index(drop=True)

    @cached_property
    def _places(self) -> dict[tuple[str, str, str], int]:
        """Where the frame has the score of a run, task and split."""
        frame = self.frame
        keys = zip(frame.run, frame.task, frame.split, strict=True)
        return {key: place for place, key in enumerate(keys)}

    @cached_property
    def _values(self) -> list[float]:
        return list(self.frame.value)

    def rows(self, candidate: Candidate, split: str) -> pd.DataFrame:
        """Return the scores of a candidate, of the tasks that all of its runs have scores of."""
        return self.frame.iloc[[place for _, _, place in self._found(candidate, split)]]

    def by_task(self, candidate: Candidate, split: str) -> dict[str, dict[int, float]]:
        """Return the same values by task and seed."""
        values: dict[str, dict[int, float]] = {}
        for task, seed, place in self._found(candidate, split):
            values.setdefault(task, {})[seed] = self._values[place]
        return values

    def spreads(self, candidate: Candidate, split: str) -> dict[str, Spread]:
        """Return the scores of a candidate by task, and ``MEAN`` over those that are known."""
        return spreads(self.by_task(candidate, split))

    def _found(self, candidate: Candidate, split: str) -> Iterator[tuple[str, int, int]]:
        """Yield task, seed and place in the frame."""
        for task, runs in candidate.runs.items():
            own = [(run.seed, self._places.get((str(run.path), task, split))) for run in runs]
            if all(place is not None for _, place in own):
                yield from ((task, seed, place) for seed, place in own if place is not None)

    def differences(self, pairs: Sequence[Pair], split: str) -> list[dict[str, Difference]]:
        """Return how far the first of each pair is above the second, by task, and on the mean."""
        self._resampled.add(side for pair in pairs for side in pair)
        return [self._differences(pair, split) for pair in pairs]

    def _differences(self, pair: Pair, split: str) -> dict[str, Difference]:
        left, right = (self.rows(side, split) for side in pair)
        frame = self.frame.iloc[left.index.union(right.index)]
        sides = frame.index.isin(left.index), frame.index.isin(right.index)
        tasks = compare(frame, *sides, by=["task"], resampled=self._resampled)
        mean = compare(frame, *sides, resampled=self._resampled)
        named = [(task, one) for task, one in zip(tasks.task, tasks.difference, strict=True)]
        return dict([*named, *((MEAN, one) for one in mean.difference)])
