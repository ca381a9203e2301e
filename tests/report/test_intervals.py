"""What a page says of intervals."""

from __future__ import annotations

from multiprune.report.compare import Difference
from multiprune.report.page.intervals import interval_text


def difference(seeds: int, reason: str | None = None) -> Difference:
    return Difference(0.1, 0.0, 0.2, None, tuple(range(seeds)), reason is None, reason)


def test_intervals_over_examples_say_so_and_what_they_cover() -> None:
    over, coverage = interval_text([difference(2), difference(9)])
    assert "resamples of seeds and 1,000 of evaluation examples" in over
    assert coverage.startswith("With 2 seeds such an interval held the true mean in 98 %")


def test_many_seeds_need_no_caveat() -> None:
    assert len(interval_text([difference(9), difference(8, "no file")])) == 1


def test_intervals_over_seeds_only_give_the_reason() -> None:
    over, coverage = interval_text([difference(3, "there is no file"), difference(3, "another")])
    assert "95 % of 10,000 resamples of seeds." in over
    assert "not resampled: there is no file." in over
    assert coverage.startswith("An interval over 3 seeds alone is their range")


def test_two_seeds_have_a_range() -> None:
    over, coverage = interval_text([difference(2, "no file")])
    assert "brackets hold the range over seeds." in over
    assert coverage == "The range of 2 seeds holds the true mean in 50 % of cases."
    assert difference(2, "no file").is_range
    assert not difference(3, "no file").is_range
    assert not difference(2).is_range


def test_some_intervals_over_seeds_only_are_counted() -> None:
    over, both, seeds = interval_text([difference(2), difference(2), difference(2, "no file")])
    assert over.endswith("1 of 3 intervals are over seeds alone: no file.")
    assert "such an interval held" in both
    assert "The range of 2 seeds" in seeds


def test_one_seed_stands_for_itself() -> None:
    over, alone = interval_text([difference(1)])
    assert over == "Brackets hold 95 % of 1,000 resamples of the evaluation examples."
    assert alone == "With 1 seed an interval is over examples only: it says nothing of other seeds."
    assert interval_text([difference(1, "no file")])[1:] == ["With 1 seed there is no interval."]
