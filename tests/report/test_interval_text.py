from __future__ import annotations

from multiprune.report.findings.difference import Difference
from multiprune.report.page.interval_text import interval_text


def difference(seeds: int, reason: str | None = None) -> Difference:
    return Difference(0.1, tuple(range(seeds)), 0.0, 0.2, reason is None, reason)


def test_intervals_over_examples_say_so_and_what_they_cover() -> None:
    over, coverage = interval_text([difference(2), difference(9)])
    assert "over seeds and evaluation examples" in over
    assert "only" not in over
    assert coverage.startswith("With 2 seeds an interval over seeds and examples held")


def test_many_seeds_need_no_caveat() -> None:
    assert len(interval_text([difference(9), difference(8, "no file")])) == 1


def test_intervals_over_seeds_only_give_the_reason() -> None:
    over, coverage = interval_text([difference(3, "there is no file"), difference(3, "another")])
    assert "over seeds only" in over
    assert "not resampled: there is no file." in over
    assert coverage.startswith("With 3 seeds an interval over seeds only is their range")


def test_some_intervals_over_seeds_only_are_counted() -> None:
    over, both, seeds = interval_text([difference(2), difference(2), difference(2, "no file")])
    assert over.endswith(
        "1 of 3 intervals are over seeds only, and say nothing of the evaluation data: no file."
    )
    assert "over seeds and examples held" in both
    assert "over seeds only is their range" in seeds


def test_one_seed_stands_for_itself() -> None:
    over, alone = interval_text([difference(1)])
    assert "interval over evaluation examples (1,000" in over
    assert [alone] == [
        "With 1 seed an interval is over examples only: it holds for this seed, and says nothing "
        "of others."
    ]
    assert interval_text([difference(1, "no file")])[1:] == ["With 1 seed there is no interval."]
