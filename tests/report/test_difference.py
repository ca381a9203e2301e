from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from run_folders import results, write
from scipy import stats

from multiprune.report.findings.contender import Contender
from multiprune.report.findings.difference import Difference, paired_interval, score_difference
from multiprune.report.findings.example_draws import ExampleDraws
from multiprune.report.records.frame import read_runs

if TYPE_CHECKING:
    from pathlib import Path


def scores(*by_seed: float) -> np.ndarray:
    """Return scores of one task on all examples, of shape (1, 1, seeds)."""
    return np.array([[by_seed]])


def contender(folder: Path, **by_seed: dict[int, float]) -> Contender:
    for task, values in by_seed.items():
        for seed, score in values.items():
            write(folder / f"{task}{seed}", results({task: score}, kept=10, seed=seed))
    rows = read_runs(folder).rows
    return Contender(10, {task: [one for one in rows if one.tasks == (task,)] for task in by_seed})


@pytest.mark.parametrize("values", [(0.1, 0.3), (0.1, 0.2, 0.6)])
def test_interval_of_two_or_three_seeds_is_their_range(values: tuple[float, ...]) -> None:
    # All draws the same seed with a probability of 1/4 or 1/27, both above 2.5 %.
    low, high = paired_interval(scores(*values), scores(*[0.1] * len(values)))
    assert (low, high) == pytest.approx((0.0, max(values) - 0.1))


def test_interval_of_many_seeds_is_that_of_scipy() -> None:
    generator = np.random.default_rng(3)
    ours, theirs = generator.normal(0.8, 0.1, 25), generator.normal(0.7, 0.1, 25)
    expected = stats.bootstrap(
        (ours - theirs,), np.mean, method="percentile", n_resamples=10_000, rng=7
    ).confidence_interval
    found = paired_interval(scores(*ours), scores(*theirs))
    assert found == pytest.approx((expected.low, expected.high), abs=0.003)


def test_what_both_sides_share_by_seed_cancels() -> None:
    noise = np.array([0.0, 0.5, -0.5, 0.2])
    low, high = paired_interval(scores(*(0.6 + noise)), scores(*(0.5 + noise)))
    assert (low, high) == pytest.approx((0.1, 0.1))


def test_tasks_are_averaged_and_examples_resampled_with_seeds() -> None:
    # Two tasks, seeds without a difference: what is left is the resamples of examples.
    draws = np.linspace(0, 1, 101)
    ours = np.stack([draws, draws + 0.2], axis=1)[:, :, None] * np.ones(3)
    low, high = paired_interval(ours, np.zeros((101, 2, 3)))
    assert (low, high) == pytest.approx((0.125, 1.075), abs=0.011)


def test_same_input_gives_the_same_interval() -> None:
    values = scores(*np.random.default_rng(0).normal(size=9))
    assert paired_interval(values, values * 2) == paired_interval(values, values * 2)


def test_scores_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape .* \(1, 1, 2\) and \(1, 1, 3\)"):
        paired_interval(scores(1, 2), scores(1, 2, 3))


def difference(ours: Contender, theirs: Contender, split: str = "validation") -> Difference | None:
    return score_difference(ours, theirs, list(ours.runs), split, ExampleDraws([ours, theirs]))


def test_only_seeds_that_all_have_are_paired(tmp_path: Path) -> None:
    ours = contender(tmp_path / "ours", easy={0: 0.9, 1: 0.7, 5: 0.1}, hard={0: 0.5, 1: 0.5})
    theirs = contender(tmp_path / "theirs", easy={0: 0.8, 1: 0.8}, hard={1: 0.3, 0: 0.4, 2: 0.0})
    found = difference(ours, theirs)
    assert found is not None
    assert found.seeds == (0, 1)
    # Seed 0: (0.1 + 0.1) / 2, seed 1: (-0.1 + 0.2) / 2.
    assert found.mean == pytest.approx(0.075)
    assert found.low == pytest.approx(0.05)
    assert found.high == pytest.approx(0.1)


def test_one_seed_has_no_interval_and_none_no_difference(tmp_path: Path) -> None:
    ours = contender(tmp_path / "ours", easy={0: 0.9})
    same = contender(tmp_path / "same", easy={0: 0.8})
    other = contender(tmp_path / "other", easy={1: 0.8})
    found = difference(ours, same)
    assert found is not None
    assert (found.low, found.high) == (None, None)
    assert difference(ours, other) is None
    assert difference(ours, same, "test") is None
