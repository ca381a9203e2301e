"""What a page says of intervals, and how far to trust them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report.compare import FEW_SEEDS, RESAMPLES
from multiprune.report.page.section import plural
from multiprune.report.resampled import DRAWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.compare import Difference


def interval_text(differences: Sequence[Difference]) -> list[str]:
    """Say what the intervals of differences are over, and what they cover with so few seeds."""
    text = [_over(differences)]
    if any(len(one.seeds) == 1 for one in differences):
        text.append(_of_one_seed([one for one in differences if len(one.seeds) == 1]))
    several = [one for one in differences if len(one.seeds) > 1]
    for examples, coverage in ((True, _COVERAGE), (False, _COVERAGE_OF_SEEDS)):
        seeds = [len(one.seeds) for one in several if one.examples == examples]
        if seeds and min(seeds) in coverage:
            text.append(coverage[min(seeds)])
    return text


def _over(differences: Sequence[Difference]) -> str:
    reasons = [one.reason for one in differences if one.reason]
    if len(reasons) == len(differences):
        few = all(len(one.seeds) < FEW_SEEDS for one in differences)
        what = "the range over seeds" if few else f"95 % of {RESAMPLES:,} resamples of seeds"
        return (
            f"Differences are paired by seed; brackets hold {what}. Evaluation examples are not "
            f"resampled: {reasons[0]}."
        )
    if not reasons and all(len(one.seeds) == 1 for one in differences):
        return f"Brackets hold 95 % of {DRAWS:,} resamples of the evaluation examples."
    text = (
        f"Differences are paired by seed; brackets hold 95 % of {RESAMPLES:,} resamples of seeds "
        f"and {DRAWS:,} of evaluation examples, the same for both sides."
    )
    if reasons:
        text += (
            f" {len(reasons):,} of {plural(len(differences), 'interval')} are over seeds alone: "
            f"{reasons[0]}."
        )
    return text


def _of_one_seed(differences: Sequence[Difference]) -> str:
    if any(one.examples for one in differences):
        return "With 1 seed an interval is over examples only: it says nothing of other seeds."
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
    seeds: f"With {seeds} seeds such an interval held the true mean in {like} % of simulated cases "
    f"where seeds differ as much as resamples of examples, in {some[1]} % where they differ "
    f"{some[0]} times as much, and in {most[1]} % where {most[0]} times."
    for seeds, (like, some, most) in _SIMULATED.items()
}

# The range of n values misses the median of their distribution with 2 * 0.5^n; from 4 on, simulated
# for normal scores.
_COVERAGE_OF_SEEDS = {
    2: "The range of 2 seeds holds the true mean in 50 % of cases.",
    3: "An interval over 3 seeds alone is their range, which holds the true mean in 75 % of cases.",
    4: "An interval over 4 seeds alone holds the true mean in about 80 % of cases.",
    5: "An interval over 5 seeds alone holds the true mean in about 85 % of cases.",
}
