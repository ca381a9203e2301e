"""Differences that are paired by seed, against scipy and by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from run_folders import results, write
from scipy import stats

from multiprune.report.candidates import Candidate
from multiprune.report.compare import (
    MEAN,
    Difference,
    compare,
    paired_interval,
    sign_flip_p,
)
from multiprune.report.scores import Scores
from multiprune.runs.frame import read_frame, read_runs

if TYPE_CHECKING:
    from pathlib import Path


def scores(*by_seed: float) -> np.ndarray:
    """Return scores of one task on all examples, of shape (1, 1, seeds)."""
    return np.array([[by_seed]])


def candidate(folder: Path, **by_seed: dict[int, float]) -> Candidate:
    for task, values in by_seed.items():
        for seed, score in values.items():
            write(folder / f"{task}{seed}", results({task: score}, kept=10, seed=seed))
    runs = read_runs(folder).finished
    return Candidate(10, {task: [run for run in runs if run.tasks == (task,)] for task in by_seed})


@pytest.mark.parametrize("values", [(0.1, 0.3), (0.1, 0.2, 0.6)])
def test_interval_of_two_or_three_seeds_is_their_range(values: tuple[float, ...]) -> None:
    # All draws the same seed with a probability of 1/4 or 1/27, both above 2.5 %.
    low, high, _ = paired_interval(scores(*values), scores(*[0.1] * len(values)))
    assert (low, high) == pytest.approx((0.0, max(values) - 0.1))


def test_interval_of_many_seeds_is_that_of_scipy() -> None:
    generator = np.random.default_rng(3)
    ours, theirs = generator.normal(0.8, 0.1, 25), generator.normal(0.7, 0.1, 25)
    expected = stats.bootstrap(
        (ours - theirs,), np.mean, method="percentile", n_resamples=10_000, rng=7
    ).confidence_interval
    found = paired_interval(scores(*ours), scores(*theirs))
    assert found[:2] == pytest.approx((expected.low, expected.high), abs=0.003)


def test_what_both_sides_share_by_seed_cancels() -> None:
    noise = np.array([0.0, 0.5, -0.5, 0.2])
    low, high, _ = paired_interval(scores(*(0.6 + noise)), scores(*(0.5 + noise)))
    assert (low, high) == pytest.approx((0.1, 0.1))


def test_tasks_are_averaged_and_examples_resampled_with_seeds() -> None:
    # Two tasks, seeds without a difference: what is left is the resamples of examples.
    draws = np.linspace(0, 1, 101)
    ours = np.stack([draws, draws + 0.2], axis=1)[:, :, None] * np.ones(3)
    low, high, _ = paired_interval(ours, np.zeros((101, 2, 3)))
    assert (low, high) == pytest.approx((0.125, 1.075), abs=0.011)


def test_same_input_gives_the_same_interval() -> None:
    values = scores(*np.random.default_rng(0).normal(size=9))
    assert paired_interval(values, values * 2) == paired_interval(values, values * 2)


def test_scores_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape .* \(1, 1, 2\) and \(1, 1, 3\)"):
        paired_interval(scores(1, 2), scores(1, 2, 3))


@pytest.mark.parametrize("count", [3, 5, 9])
def test_p_over_seeds_is_that_of_the_permutation_test_of_scipy(count: int) -> None:
    differences = np.random.default_rng(count).normal(0.3, 1, count)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(list(differences)) == pytest.approx(expected.pvalue)


def test_p_of_many_seeds_is_drawn() -> None:
    differences = np.random.default_rng(0).normal(0.5, 1, 20)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=100_000, rng=1
    )
    assert sign_flip_p(list(differences)) == pytest.approx(expected.pvalue, abs=0.02)


def test_p_of_resampled_examples_is_twice_the_rarer_tail() -> None:
    draws = np.linspace(-0.2, 0.8, 101)[:, None, None]
    _, _, p = paired_interval(draws, np.zeros((101, 1, 1)))
    # 20 of 101 draws are below 0, and one is 0.
    assert p == pytest.approx(2 * 21 / 101, abs=0.01)


def test_compare_takes_any_columns_of_a_frame(tmp_path: Path) -> None:
    for pruner, base in (("Magnitude", 0.5), ("Fisher", 0.7)):
        for kept in (10, 20):
            for seed in (0, 1, 2):
                score = base + kept / 100 + seed * base / 10
                content = results(
                    {"a": score, "b": score + 0.1}, kept=kept, seed=seed, pruner=pruner
                )
                write(tmp_path / f"{pruner}-{kept}-{seed}", content)
    frame = read_frame(tmp_path)
    frame = frame[frame.is_score]
    found = compare(frame, frame.pruner == "Fisher", frame.pruner == "Magnitude", by=["kept"])
    assert list(found.kept) == [10, 20]
    # Seed 1 is 0.02 further apart, seed 2 is 0.04.
    assert list(found["mean"]) == pytest.approx([0.22, 0.22])
    assert list(found.low) == pytest.approx([0.20, 0.20])
    assert list(found.p) == [0.25, 0.25]
    by_size = compare(frame, frame.kept == 20, frame.kept == 10, by=["pruner", "task"])
    assert list(by_size["mean"]) == pytest.approx([0.1] * 4)
    assert list(by_size.seeds) == [3] * 4


def test_two_runs_of_one_seed_on_a_side_are_refused(tmp_path: Path) -> None:
    for name in ("first", "second", "other"):
        write(tmp_path / name, results({"a": 0.5}, kept=10))
    frame = read_frame(tmp_path)
    frame = frame[frame.is_score]
    other = frame.run.str.endswith("other")
    with pytest.raises(ValueError, match=r"Two runs have the same seed, 0: .*first, .*second"):
        compare(frame, ~other, other)


def difference(ours: Candidate, theirs: Candidate, split: str = "validation") -> Difference | None:
    runs = [run for side in (ours, theirs) for own in side.runs.values() for run in own]
    return Scores(runs).differences([(ours, theirs)], split)[0].get(MEAN)


def test_only_seeds_that_all_have_are_paired(tmp_path: Path) -> None:
    ours = candidate(tmp_path / "ours", easy={0: 0.9, 1: 0.7, 5: 0.1}, hard={0: 0.5, 1: 0.5})
    theirs = candidate(tmp_path / "theirs", easy={0: 0.8, 1: 0.8}, hard={1: 0.3, 0: 0.4, 2: 0.0})
    found = difference(ours, theirs)
    assert found is not None
    assert found.seeds == (0, 1)
    # Seed 0: (0.1 + 0.1) / 2, seed 1: (-0.1 + 0.2) / 2.
    assert found.mean == pytest.approx(0.075)
    assert found.low == pytest.approx(0.05)
    assert found.high == pytest.approx(0.1)


def test_one_seed_has_no_interval_and_none_no_difference(tmp_path: Path) -> None:
    ours = candidate(tmp_path / "ours", easy={0: 0.9})
    same = candidate(tmp_path / "same", easy={0: 0.8})
    other = candidate(tmp_path / "other", easy={1: 0.8})
    found = difference(ours, same)
    assert found is not None
    assert (found.low, found.high) == (None, None)
    assert difference(ours, other) is None
    assert difference(ours, same, "test") is None
