"""``benchmarks/kill_and_resume.py`` on a small scale; its own figures are of all pruners."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import pytest
from kill_and_resume import outcomes_of, plans
from small_runs import pruners
from watched_run import PARTS

if TYPE_CHECKING:
    from pathlib import Path

#: Of weights, of gates that are drawn at random, and of several passes a step.
KILLED = ["magnitude", "structured_l0", "dynamic_sparsification"]


def test_a_seed_kills_every_pruner_in_every_part_and_always_the_same_ones() -> None:
    names = pruners()
    planned = list(islice(plans(names, 0, commands=True), len(names) * len(PARTS)))
    first = {(plan.pruner, plan.moments[0].part) for plan in planned}
    assert first == {(name, part) for name in names for part in PARTS}
    assert {len(plan.moments) for plan in planned} == {1, 2}
    assert {plan.by_command for plan in planned} == {True, False}
    again = list(islice(plans(names, 0, commands=True), len(planned)))
    assert again == planned
    assert next(plans(names, 1, commands=True)) != planned[0]


@pytest.mark.slow
def test_runs_that_were_killed_end_as_those_that_were_not(tmp_path: Path) -> None:
    outcomes = list(outcomes_of(tmp_path, plans(KILLED, 1, commands=False), kills=10))
    assert [outcome for outcome in outcomes if outcome.different] == []
    kills = [killed for outcome in outcomes for killed in outcome.kills]
    assert len(kills) >= 10
    assert len({killed.part for killed in kills}) >= 3
