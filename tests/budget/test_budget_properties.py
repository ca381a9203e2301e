"""Budgets, their allocation and the ledger, beside exact fractions, all choices and sets."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from strategies import names, refusal_with, seeds, texts
from torch import nn

from multiprune.budget.allocation import (
    Option,
    best_split,
    fit_shares,
    proportional_shares,
    uniform_shares,
)
from multiprune.budget.budget import CountBudget, FractionBudget, parse_budget
from multiprune.budget.ledger import PARTS, ParameterLedger, owned_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Tenths and eighths, which tie often, or any.
scores = st.sampled_from([-0.5, 0.0, 0.1, 0.2, 0.3, 0.25, 0.5]) | st.floats(-1, 1)
sizes = st.integers(0, 6) | st.integers(0, 10**9)
curves = st.dictionaries(
    names,
    st.lists(st.builds(Option, sizes, scores), min_size=1, max_size=4),
    min_size=1,
    max_size=5,
)


@given(curves, st.data())
def test_no_choice_of_sizes_scores_more_within_the_budget(
    options: dict[str, list[Option]], data: st.DataObject
) -> None:
    most = sum(max(one.size for one in own) for own in options.values())
    budget = data.draw(st.integers(0, most))
    fitting = [
        chosen
        for chosen in itertools.product(*options.values())
        if sum(one.size for one in chosen) <= budget
    ]
    if not fitting:
        with pytest.raises(ValueError, match="must hold a trained size of each"):
            best_split(options, budget)
        return
    found = best_split(options, budget)
    assert list(found) == list(options)
    assert all(one in options[name] for name, one in found.items())
    assert sum(one.size for one in found.values()) <= budget
    best = max(sum(Fraction(one.score) for one in chosen) for chosen in fitting)
    # Scores are compared in steps of 1e-12.
    assert best - sum(Fraction(one.score) for one in found.values()) <= 5e-12
    near = [
        sum(one.size for one in chosen)
        for chosen in fitting
        if best - sum(Fraction(one.score) for one in chosen) == 0
    ]
    assert sum(one.size for one in found.values()) <= min(near)


@given(curves, seeds, st.data())
def test_the_order_of_tasks_and_sizes_makes_no_difference(
    options: dict[str, list[Option]], seed: int, data: st.DataObject
) -> None:
    least = sum(min(one.size for one in own) for own in options.values())
    most = sum(max(one.size for one in own) for own in options.values())
    budget = data.draw(st.integers(least, most))
    generator = np.random.default_rng(seed)
    shuffled = {
        name: [options[name][place] for place in generator.permutation(len(options[name]))]
        for name in generator.permutation(list(options)).tolist()
    }
    found, expected = best_split(shuffled, budget), best_split(options, budget)
    assert {name: one.size for name, one in found.items()} == {
        name: one.size for name, one in expected.items()
    }
    # Scores are equal if they are to the twelfth digit.
    assert all(one.score == pytest.approx(expected[name].score) for name, one in found.items())


@given(curves, st.data())
def test_more_budget_never_scores_less(
    options: dict[str, list[Option]], data: st.DataObject
) -> None:
    least = sum(min(one.size for one in own) for own in options.values())
    budgets = sorted(data.draw(st.lists(st.integers(least, least + 10**9), min_size=2, max_size=4)))
    found = [sum(one.score for one in best_split(options, budget).values()) for budget in budgets]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(found))


@given(curves, st.integers(0, 10**9))
def test_each_share_holds_the_best_that_fits(options: dict[str, list[Option]], budget: int) -> None:
    shares = uniform_shares(list(options), budget)
    assert 0 <= budget - sum(shares.values()) < len(options)
    fitting = {
        name: [one for one in own if one.size <= shares[name]] for name, own in options.items()
    }
    if not all(fitting.values()):
        with pytest.raises(ValueError, match="must hold a trained size of its task"):
            fit_shares(options, shares)
        return
    for name, one in fit_shares(options, shares).items():
        assert one in fitting[name]
        assert one.score == max(other.score for other in fitting[name])


@given(st.dictionaries(names, st.integers(1, 10**9), min_size=1), st.integers(0, 10**12))
def test_proportional_shares_are_exact_and_leave_less_than_one_a_task(
    examples: Mapping[str, int], budget: int
) -> None:
    shares = proportional_shares(examples, budget)
    whole = sum(examples.values())
    for name, count in examples.items():
        assert shares[name] == math.floor(Fraction(budget * count, whole))
    assert 0 <= budget - sum(shares.values()) < len(examples)


@given(st.integers(1, 10**6), st.integers(1, 10**10))
@example(29, 100)
def test_a_fraction_as_it_is_written_rounds_down(millionths: int, dense: int) -> None:
    text = f"{millionths / 10**6:.6f}"
    exact = Fraction(millionths, 10**6)
    budget = FractionBudget(float(text))
    if exact * dense < 1:
        with pytest.raises(ValueError, match="must keep a parameter") as caught:
            budget.parameters(dense)
        # What it names as the smallest does.
        named = float(str(caught.value).rpartition(" ")[2].rstrip("."))
        assert FractionBudget(named).parameters(dense) >= 1
        return
    assert budget.parameters(dense) == math.floor(exact * dense)


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 10**12))
def test_any_budget_is_read_as_what_it_was_written(fraction: float, count: int) -> None:
    for text in (repr(fraction), f"fraction={fraction}"):
        found = parse_budget(text)
        assert isinstance(found, FractionBudget)
        assert found.fraction == fraction
    for text in (str(count), f"count={count}", f"{count:_}"):
        found = parse_budget(text)
        assert isinstance(found, CountBudget)
        assert found.count == count


@given(texts | st.text(st.sampled_from("0123456789.e-+_= countfraction"), max_size=9))
def test_any_text_is_a_budget_or_a_sentence(text: str) -> None:
    with refusal_with(" must be "):
        assert isinstance(parse_budget(text), (CountBudget, FractionBudget))


@st.composite
def trees(draw: st.DrawFn) -> tuple[nn.Module, nn.Module]:
    """Draw a model and the part of it that is the encoder, with tied and shared parts."""

    def layer() -> nn.Module:
        inner, outer = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        kinds: list[nn.Module] = [
            nn.Linear(inner, outer, bias=draw(st.booleans())),
            nn.Embedding(inner, outer),
            nn.LayerNorm(inner),
            nn.Sequential(nn.Linear(inner, inner), nn.Linear(inner, outer)),
        ]
        return kinds[draw(st.integers(0, 3))]

    made = [layer() for _ in range(draw(st.integers(1, 4)))]
    # The same module twice, and the same matrix in two modules.
    again = draw(st.lists(st.sampled_from(made), max_size=2))
    embedding, output = nn.Embedding(3, 2), nn.Linear(2, 3)
    if draw(st.booleans()):
        output.weight = embedding.weight
    encoder = nn.Sequential(*made, *again, embedding)
    heads = nn.ModuleList([output, *draw(st.lists(st.sampled_from(made), max_size=1))])
    return nn.ModuleDict({"encoder": encoder, "heads": heads}), encoder


@given(trees(), seeds)
def test_the_ledger_counts_every_parameter_once_and_what_masks_keep(
    drawn: tuple[nn.Module, nn.Module], seed: int
) -> None:
    model, encoder = drawn
    unique = {id(one): one for one in model.parameters()}
    inside = {id(one): one for one in encoder.parameters()}
    owned = list(owned_parameters(model, encoder))
    assert len({one.path for one in owned}) == len(owned) == len(unique)
    assert {id(model.get_parameter(one.path)) for one in owned} == set(unique)
    generator = torch.Generator().manual_seed(seed)
    masks = {
        one.path: torch.rand(one.parameter.shape, generator=generator) < 0.5
        for one in owned[:: 1 + seed % 3]
    }
    ledger = ParameterLedger.of(model, encoder, masks=masks)
    whole = sum(one.numel() for one in unique.values())
    assert ledger.dense_in("total") == sum(ledger.dense.values()) == whole
    assert ledger.dense_in("encoder") == sum(one.numel() for one in inside.values())
    removed = sum(int((~mask).sum()) for mask in masks.values())
    assert whole - ledger.kept_in("total") == removed
    scope = sum(mask.numel() for mask in masks.values())
    assert ledger.fixed_in("total") == whole - scope
    assert ledger.density == pytest.approx(1 - removed / scope if scope else 1.0)
    assert [row.part for row in ledger.rows()] == list(PARTS)
    for part in PARTS:
        assert 0 <= ledger.dense[part] - ledger.kept[part] <= ledger.prunable[part]


@given(
    st.fixed_dictionaries({part: st.integers(0, 10**6) for part in PARTS}),
    st.fixed_dictionaries({part: st.integers(0, 10**6) for part in PARTS}),
    st.sampled_from(["encoder_linear", "encoder", "total"]),
    st.integers(1, 1000),
)
def test_a_budget_is_what_may_stay_or_names_one_that_can_be_met(
    dense: Mapping[str, int], fixed: Mapping[str, int], of: str, thousandths: int
) -> None:
    prunable = {part: max(0, dense[part] - fixed[part]) for part in PARTS}
    ledger = ParameterLedger(dense, dense, prunable)
    assume(ledger.dense_in(of) > 1000)
    budget = FractionBudget(thousandths / 1000, of=of)
    try:
        asked = budget.resolve(ledger)
    except ValueError as error:
        words = str(error)
        smallest = float(words.partition("a fraction of ")[2].partition(";")[0])
        assert FractionBudget(smallest, of=of).resolve(ledger) >= ledger.fixed_in(of)
        assert smallest > thousandths / 1000
    else:
        assert ledger.fixed_in(of) <= asked <= ledger.dense_in(of)


def test_curves_of_one_size_each_leave_no_choice() -> None:
    options: Mapping[str, Sequence[Option]] = {"a": [Option(0, 0.0)], "b": [Option(3, -1.0)]}
    assert {name: one.size for name, one in best_split(options, 3).items()} == {"a": 0, "b": 3}
