"""Mixing, plans of batches and parts of splits: nothing is left out, wherever one begins."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from strategies import names, refusal_with, seeds

from multiprune.data.batches import EncodedTask, EvaluationBatches, capped, drawn_rows
from multiprune.data.file_rows import part_of
from multiprune.data.mixing import (
    BatchPlan,
    FixedMixing,
    ProportionalMixing,
    TemperatureMixing,
    UniformMixing,
)
from multiprune.tasks.rows import EXAMPLE, Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

sizes = st.dictionaries(names, st.integers(1, 40), min_size=1, max_size=4)


def plan_of(
    rows: Mapping[str, int], batch_size: int, seed: int, window: int, *, uniform: bool = False
) -> BatchPlan:
    lengths = {
        name: np.random.default_rng([seed, count]).integers(1, 30, count)
        for name, count in rows.items()
    }
    batches = {name: -(-count // batch_size) for name, count in rows.items()}
    mixing = UniformMixing() if uniform else ProportionalMixing()
    return BatchPlan(
        lengths=lengths,
        probabilities=mixing.probabilities(batches),
        batch_size=batch_size,
        seed=seed,
        sort_window=window,
    )


def steps(
    batches: Iterator[tuple[str, NDArray[np.int64]]], count: int
) -> list[tuple[str, list[int]]]:
    return [(name, examples.tolist()) for name, examples in islice(batches, count)]


plans = st.tuples(sizes, st.integers(1, 9), seeds, st.integers(1, 3))


@given(plans, st.integers(0, 3))
def test_every_row_of_every_task_is_read_once_an_epoch(
    drawn: tuple[dict[str, int], int, int, int], epoch: int
) -> None:
    plan, batch_size = plan_of(*drawn), drawn[1]
    seen: Counter[tuple[str, int]] = Counter()
    for name, examples in steps(
        plan.batches(epoch * plan.batches_per_epoch), plan.batches_per_epoch
    ):
        assert 0 < len(examples) <= batch_size
        seen.update((name, one) for one in examples)
    expected = {(name, row) for name, count in drawn[0].items() for row in range(count)}
    assert seen == Counter(expected)


@given(plans, st.integers(0, 60), st.booleans())
def test_a_plan_goes_on_from_any_step_as_if_it_had_not_stopped(
    drawn: tuple[dict[str, int], int, int, int], start: int, uniform: bool
) -> None:
    straight = steps(plan_of(*drawn, uniform=uniform).batches(), start + 20)
    plan = plan_of(*drawn, uniform=uniform)
    assert steps(plan.batches(start), 20) == straight[start:]
    # Also one that has been somewhere else before.
    assert steps(plan.batches(0), 3) == straight[:3]


@given(plans)
def test_a_task_that_is_read_more_often_walks_through_all_its_rows_again(
    drawn: tuple[dict[str, int], int, int, int],
) -> None:
    plan = plan_of(*drawn, uniform=True)
    taken: dict[str, list[list[int]]] = {name: [] for name in drawn[0]}
    for name, examples in steps(plan.batches(), 3 * plan.batches_per_epoch):
        taken[name].append(examples)
    for name, batches in taken.items():
        each = plan.batches_per_walk[name]
        for first in range(0, len(batches) - each + 1, each):
            walk = [row for batch in batches[first : first + each] for row in batch]
            assert sorted(walk) == [*range(drawn[0][name])]


@given(
    st.dictionaries(names, st.integers(1, 10**6), min_size=1, max_size=5),
    st.floats(0.01, 100),
    st.integers(1, 60),
)
@example({"a": 10**6, "b": 10**6 - 1}, 0.01, 10)
def test_shares_are_those_of_the_formula_to_the_batch(
    counts: dict[str, int], temperature: float, batches: int
) -> None:
    weights = {name: float(place) for place, name in enumerate(counts, 1)}
    for mixing, exact in [
        (ProportionalMixing(), {name: Fraction(count) for name, count in counts.items()}),
        (UniformMixing(), dict.fromkeys(counts, Fraction(1))),
        (FixedMixing(weights=weights), {name: Fraction(one) for name, one in weights.items()}),
    ]:
        whole = sum(exact.values())
        found = mixing.probabilities(counts)
        assert list(found) == list(counts)
        assert found == pytest.approx({name: float(one / whole) for name, one in exact.items()})
    hot = TemperatureMixing(temperature=temperature).probabilities(counts)
    # Logarithms hold what powers do not.
    logs = {name: math.log(count) / temperature for name, count in counts.items()}
    scaled = {name: math.exp(one - max(logs.values())) for name, one in logs.items()}
    whole_scaled = sum(scaled.values())
    assert hot == pytest.approx(
        {name: one / whole_scaled for name, one in scaled.items()}, abs=1e-9
    )
    plan = BatchPlan(
        lengths={name: np.ones(batches, np.int64) for name in counts},
        probabilities=hot, batch_size=1, seed=0,
    )  # fmt: skip
    total = batches * len(counts)
    with refusal_with("would get none of"):
        share = plan.share
        assert sum(share.values()) == total
        assert all(abs(share[name] - hot[name] * total) < 1 + 1e-6 for name in counts)


@given(st.integers(1, 50), st.integers(1, 8), st.integers(1, 4))
def test_ranks_together_evaluate_every_row_once(rows: int, batch_size: int, ranks: int) -> None:
    assume(rows >= ranks)
    table = Dataset.from_dict({"input_ids": [[1]] * rows})
    no_task: Any = None
    task = EncodedTask(name="a", task=no_task, splits={"test": table}, truncated=0, padding_token=0)
    by_rank = [
        EvaluationBatches(task, "test", batch_size=batch_size, rank=rank, world_size=ranks)
        for rank in range(ranks)
    ]
    assert all(len(one) for one in by_rank)
    seen = [row for one in by_rank for batch in one._rows for row in batch]
    assert sorted(seen) == [*range(rows)]
    assert all(len(batch) <= batch_size for one in by_rank for batch in one._rows)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(0, 12), seeds)
def test_all_rows_of_so_many_examples_are_chosen(examples: list[int], most: int, seed: int) -> None:
    table = Dataset.from_dict({EXAMPLE: examples, "place": [*range(len(examples))]})
    chosen = drawn_rows(table, most, np.random.default_rng(seed))
    kept = {examples[row] for row in chosen}
    assert len(kept) == min(most, len({*examples}))
    assert chosen == [row for row, one in enumerate(examples) if one in kept]
    if most:
        assert capped(table, most, [seed])["place"][:] == capped(table, most, [seed])["place"][:]


@given(
    st.lists(st.sampled_from("aab"), min_size=4, max_size=40),
    st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.9]),
    st.integers(0, 99),
)
@settings(max_examples=max(10, settings().max_examples // 4))
@example(["a", "a", "a", "b"], 0.9, 0)
def test_what_is_set_aside_and_what_is_left_are_all_rows(
    classes: list[str], share: float, seed: int
) -> None:
    table = Dataset.from_dict({"class": classes, "row": [*range(len(classes))]})
    rows = Rows(table, "corpus", "x")
    parts: dict[bool, list[int]] = {}
    with refusal_with("leaves no rows"):
        for aside in (True, False):
            part = part_of(rows, share, seed=seed, classes="class", set_aside=aside)
            parts[aside] = part.table["row"][:]
    if len(parts) < 2:
        return
    assert sorted([*parts[True], *parts[False]]) == [*range(len(classes))]
    several = [name for name, count in Counter(classes).items() if count > 1]
    counted = sum(count for name, count in Counter(classes).items() if count > 1)
    assert abs(len(parts[True]) - share * counted) <= 0.5 + len(several) + 1e-9
    for name in {*classes}:
        mine = [row for row in parts[True] if classes[row] == name]
        assert abs(len(mine) - share * classes.count(name)) <= 1 + 1e-9 or name not in several
        assert any(classes[row] == name for row in parts[False])
