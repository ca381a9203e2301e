"""What a page says of intervals, and how far to trust them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report.findings.difference import RESAMPLES
from multiprune.report.findings.resampling import DRAWS
from multiprune.report.page.blocks import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.findings.difference import Difference


def interval_text(differences: Sequence[Difference]) -> list[str]:
    """Say what the intervals of differences are over, and what they cover with so few seeds."""
    text = [_over(differences)]
    if alone := [one for one in differences if len(one.seeds) == 1]:
        text.append(_of_one_seed(alone))
    several = [one for one in differences if len(one.seeds) > 1]
    for examples, coverage in ((True, _COVERAGE), (False, _COVERAGE_OF_SEEDS)):
        seeds = [len(one.seeds) for one in several if one.examples == examples]
        if seeds and min(seeds) in coverage:
            text.append(coverage[min(seeds)])
    return text


def _over(differences: Sequence[Difference]) -> str:
    reasons = [one.reason for one in differences if one.reason]
    bracket = "Brackets hold a 95 % percentile bootstrap interval over"
    if len(reasons) == len(differences):
        return (
            f"{bracket} seeds only ({RESAMPLES:,} resamples): it says how much depends on the "
            f"seed, not on the evaluation data. Examples are not resampled: {reasons[0]}."
        )
    if not reasons and all(len(one.seeds) == 1 for one in differences):
        return f"{bracket} evaluation examples ({DRAWS:,} resamples, the same for both sides)."
    text = (
        f"{bracket} seeds and evaluation examples ({RESAMPLES:,} resamples of seeds, {DRAWS:,} of "
        "examples, the same for both sides and all seeds)."
    )
    if reasons:
        text += (
            f" {len(reasons):,} of {plural(len(differences), 'interval')} are over seeds only, and "
            f"say nothing of the evaluation data: {reasons[0]}."
        )
    return text


def _of_one_seed(differences: Sequence[Difference]) -> str:
    if any(one.examples for one in differences):
        return (
            "With 1 seed an interval is over examples only: it holds for this seed, and says "
            "nothing of others."
        )
    return "With 1 seed there is no interval."


# Simulated: 1,000 worlds a number, with 1,000 examples of which both sides get 79 % right. First
# where the difference varies as much between seeds as between resamples of the examples, then where
# it varies so many times as much.
_SIMULATED = {
    2: (98, (3, 78), (11, 59)),
    3: (99, (4, 85), (15, 76)),
    4: (98, (4, 88), (17, 81)),
}
_COVERAGE = {
    seeds: f"With {seeds} seeds an interval over seeds and examples held the true mean in {like} % "
    "of simulated cases where the difference varied as much between seeds as between resamples of "
    f"the examples, in {some[1]} % where it varied {some[0]} times as much, and in {most[1]} % "
    f"where {most[0]} times; not in 95 %."
    for seeds, (like, some, most) in _SIMULATED.items()
}

# The range of n values misses the median of their distribution with 2 * 0.5^n; from 4 on, simulated
# for normal scores.
_COVERAGE_OF_SEEDS = {
    2: "With 2 seeds an interval over seeds only is their range, which holds the true mean in 50 % "
    "of cases, not 95 %.",
    3: "With 3 seeds an interval over seeds only is their range, which holds the true mean in 75 % "
    "of cases, not 95 %.",
    4: "With 4 seeds an interval over seeds only holds the true mean in about 80 % of cases, not "
    "95 %.",
    5: "With 5 seeds an interval over seeds only holds the true mean in about 85 % of cases, not "
    "95 %.",
}
