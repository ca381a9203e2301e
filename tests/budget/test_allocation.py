"""The best allocation of a budget, against all allocations there are."""

from __future__ import annotations

import itertools
import random
import re
from fractions import Fraction

import pytest

from multiprune.budget.allocation import (
    Option,
    best_split,
    fit_shares,
    proportional_shares,
    uniform_shares,
)

Curves = dict[str, list[Option]]


def curves(**sizes: dict[int, float]) -> Curves:
    return {name: [Option(*pair) for pair in one.items()] for name, one in sizes.items()}


def sizes_of(chosen: dict[str, Option]) -> dict[str, int]:
    return {name: one.size for name, one in chosen.items()}


def best_of_all(options: Curves, budget: int) -> dict[str, Option] | None:
    """Try every combination; ties as documented: fewest parameters, then task by task."""
    names = sorted(options)
    fitting = [
        combination
        for combination in itertools.product(*(options[name] for name in names))
        if sum(one.size for one in combination) <= budget
    ]
    if not fitting:
        return None
    best = min(
        fitting,
        key=lambda combination: (
            -sum(Fraction(one.score) for one in combination),
            sum(one.size for one in combination),
            [one.size for one in combination],
        ),
    )
    return dict(zip(names, best, strict=True))


def drawn(generator: random.Random, *, scores: int) -> Curves:
    """Draw up to five tasks of up to six sizes each; few different scores give many ties."""
    names = generator.sample("abcdefg", generator.randint(1, 5))
    largest = generator.choice([8, 1_000, 10**9])
    return {
        name: [
            Option(generator.randint(0, largest), generator.randint(-scores, scores) / 8)
            for _ in range(generator.randint(1, 6))
        ]
        for name in names
    }


@pytest.mark.parametrize("scores", [1, 4, 1_000])
def test_no_allocation_is_better(scores: int) -> None:
    generator = random.Random(scores)
    feasible = 0
    for _ in range(400):
        options = drawn(generator, scores=scores)
        whole = sum(max(one.size for one in candidates) for candidates in options.values())
        budget = generator.randint(0, whole)
        expected = best_of_all(options, budget)
        if expected is None:
            with pytest.raises(ValueError, match="must hold a trained size of each"):
                best_split(options, budget)
            continue
        feasible += 1
        assert best_split(options, budget) == expected
    assert feasible > 200


def test_scores_that_no_short_fraction_equals_are_summed_exactly_enough() -> None:
    generator = random.Random(7)
    for _ in range(30):
        options = {
            name: [Option(generator.randint(1, 10**8), generator.gauss(0.6, 0.2)) for _ in range(7)]
            for name in "abcd"
        }
        budget = generator.randint(10**8, 3 * 10**8)
        expected = best_of_all(options, budget)
        if expected is not None:
            assert best_split(options, budget) == expected


def test_many_tasks_are_more_than_one_number_can_rank() -> None:
    # 40 tasks with 20 sizes each: 20 to the power of 40 combinations. With equal curves, the best
    # is as many large sizes as the budget holds.
    options = {f"t{n:02}": [Option(10 + k, 0.5 + k / 100) for k in range(20)] for n in range(40)}
    chosen = best_split(options, 40 * 10 + 190)
    assert sum(one.size for one in chosen.values()) == 590
    assert sum(one.score for one in chosen.values()) == pytest.approx(40 * 0.5 + 1.9)
    # Ties give the fewest parameters to the first task, then to the second.
    assert [one.size for one in chosen.values()] == [10] * 30 + [29] * 10


def test_a_size_that_helps_one_task_more_goes_to_it() -> None:
    options = curves(easy={10: 0.9, 50: 0.92}, hard={10: 0.5, 50: 0.8})
    assert sizes_of(best_split(options, 60)) == {"easy": 10, "hard": 50}
    assert sizes_of(best_split(options, 100)) == {"easy": 50, "hard": 50}
    assert sizes_of(best_split(options, 20)) == {"easy": 10, "hard": 10}


def test_ties_take_the_fewest_parameters() -> None:
    options = curves(a={10: 0.5, 20: 0.5}, b={10: 0.5, 30: 0.5})
    assert sizes_of(best_split(options, 100)) == {"a": 10, "b": 10}


def test_ties_of_the_same_size_do_not_depend_on_the_order_of_tasks() -> None:
    options = curves(a={10: 0.5, 20: 0.7}, b={10: 0.5, 20: 0.7})
    other = {name: list(reversed(options[name])) for name in reversed(options)}
    assert sizes_of(best_split(options, 30)) == {"a": 10, "b": 20}
    assert best_split(other, 30) == best_split(options, 30)
    assert list(best_split(other, 30)) == ["b", "a"]


def test_noise_of_summation_decides_no_tie() -> None:
    # 0.1 + 0.2 is 0.30000000000000004 in floating point.
    options = {"a": [Option(5, 0.3), Option(6, 0.1 + 0.2)]}
    assert best_split(options, 6)["a"].size == 5
    # 0.7 + 0.1 is 0.7999999999999999, less than 0.5 + 0.3.
    options = curves(a={1: 0.1, 3: 0.3}, b={1: 0.5, 3: 0.7})
    assert sizes_of(best_split(options, 4)) == {"a": 1, "b": 3}


def test_worse_at_a_larger_size_is_not_taken() -> None:
    options = curves(a={10: 0.7, 20: 0.6, 30: 0.9})
    assert best_split(options, 25)["a"].size == 10


def test_tasks_may_have_different_sizes() -> None:
    options = curves(a={7: 0.2, 13: 0.9}, b={11: 0.5}, c={3: 0.1, 5: 0.2, 17: 0.3})
    assert sizes_of(best_split(options, 29)) == {"a": 13, "b": 11, "c": 5}


def test_exactly_the_smallest_sizes_fit_and_one_less_does_not() -> None:
    options = curves(a={70: 0.2, 90: 0.9}, b={30: 0.5})
    assert sizes_of(best_split(options, 100)) == {"a": 70, "b": 30}
    message = (
        "A budget of 99 parameters must hold a trained size of each of 2 tasks, but the smallest "
        "sum to 100: the largest of them is that of a, whose even share is 49 and its nearest "
        "trained sizes are 70 and 90."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        best_split(options, 99)


def test_nothing_beyond_the_trained_sizes_is_chosen() -> None:
    options = curves(a={10: 0.2, 20: 0.9}, b={10: 0.5})
    chosen = best_split(options, 10**12)
    assert chosen["a"] is options["a"][1]
    assert chosen["b"] is options["b"][0]


def test_shares_take_the_best_size_that_fits() -> None:
    options = curves(a={10: 0.7, 20: 0.6, 30: 0.9}, b={5: 0.1, 25: 0.1})
    assert sizes_of(fit_shares(options, {"a": 29, "b": 25})) == {"a": 10, "b": 5}
    assert sizes_of(fit_shares(options, {"a": 30, "b": 5})) == {"a": 30, "b": 5}


def test_share_below_every_size_names_the_task_and_the_nearest_sizes() -> None:
    options = curves(a={30: 0.9, 10: 0.7, 20: 0.6}, b={5: 0.1})
    message = "that of a is 9 parameters and its nearest trained sizes are 10 and 20."
    with pytest.raises(ValueError, match=re.escape(message)):
        fit_shares(options, {"a": 9, "b": 5})
    with pytest.raises(
        ValueError, match="that of b is 4 parameters and its only trained size is 5"
    ):
        fit_shares(options, {"a": 10, "b": 4})


def test_shares_round_down() -> None:
    assert uniform_shares(["a", "b", "c"], 100) == {"a": 33, "b": 33, "c": 33}
    assert proportional_shares({"a": 1, "b": 2, "c": 4}, 100) == {"a": 14, "b": 28, "c": 57}
    with pytest.raises(ValueError, match="must have training examples"):
        proportional_shares({"a": 1, "b": 0}, 100)


@pytest.mark.parametrize(
    ("size", "score", "seeds"),
    [(-1, 0.5, 1), (True, 0.5, 1), (1.5, 0.5, 1), (1, float("nan"), 1), (1, float("inf"), 1),
     (1, 0.5, 0)],
)  # fmt: skip
def test_option_that_is_no_size_or_score_is_an_error(size: int, score: float, seeds: int) -> None:
    with pytest.raises(ValueError, match="must"):
        Option(size, score, seeds)


def test_task_without_sizes_and_no_task_are_errors() -> None:
    with pytest.raises(ValueError, match="but b has none"):
        best_split({"a": [Option(1, 0.5)], "b": []}, 10)
    with pytest.raises(ValueError, match="at least one task"):
        best_split({}, 10)
    with pytest.raises(ValueError, match="at least 0 parameters, but is -1"):
        best_split({"a": [Option(0, 0.5)]}, -1)
