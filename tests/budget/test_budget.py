"""Budgets: how many parameters stay, and what cannot be met."""

import re
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from multiprune.budget import (
    Budget,
    CountBudget,
    FractionBudget,
    FullBudget,
    ParameterLedger,
)
from multiprune.budget.budget import parse_budget

FILES = sorted((Path(__file__).parents[2] / "conf" / "budget").glob("*.yaml"))

DENSE = {"embeddings": 1_000, "encoder_linear": 3_000, "encoder_other": 200, "heads": 50}
LEDGER = ParameterLedger(dense=DENSE, kept=DENSE, prunable={"encoder_linear": 3_000})


@pytest.mark.parametrize(
    ("fraction", "dense", "kept"),
    [(0.5, 7, 3), (0.3, 88, 26), (0.999, 1_000, 999), (0.34, 3, 1), (1.0, 7, 7), (1, 7, 7)],
)
def test_fraction_rounds_down(fraction: float, dense: int, kept: int) -> None:
    assert FractionBudget(fraction=fraction).parameters(dense) == kept


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.001, 20])
def test_fraction_out_of_bounds_is_an_error(fraction: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"in (0, 1], but is {fraction}.")):
        FractionBudget(fraction=fraction)


@pytest.mark.parametrize("count", [0, -5, 0.5, 2.0, True])
def test_count_that_is_no_positive_whole_number_is_an_error(count: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"but is {count}.")):
        CountBudget(count=count)


def test_count_stays_as_it_is() -> None:
    assert CountBudget(count=7).parameters(7) == 7
    assert CountBudget(count=1).parameters(7) == 1


def test_count_above_dense_is_an_error_with_both_numbers() -> None:
    with pytest.raises(
        ValueError, match="at most the 4,200 parameters that encoder has, but is 4,201"
    ):
        CountBudget(count=4_201, of="encoder").resolve(LEDGER)


@pytest.mark.parametrize("of", ["encoder_linear", "encoder", "total"])
def test_budget_counts_its_own_denominator(of: str) -> None:
    dense = {"encoder_linear": 3_000, "encoder": 4_200, "total": 4_250}[of]
    assert FractionBudget(fraction=0.5, of=of).resolve(LEDGER) == dense // 2
    assert CountBudget(count=1_500, of=of).resolve(LEDGER) == 1_500
    assert CountBudget(count=dense, of=of).resolve(LEDGER) == dense


def test_full_budget_keeps_everything() -> None:
    assert FullBudget().parameters(7) == 7
    assert FullBudget().resolve(LEDGER) == 3_000
    untouchable = ParameterLedger(dense=DENSE, kept=DENSE)
    assert FullBudget().resolve(untouchable) == 3_000


def test_budget_smaller_than_what_is_never_pruned_says_the_numbers() -> None:
    message = (
        "A budget of 840 of 4,200 parameters (encoder) must hold what is never pruned, "
        "but that is 1,200: embeddings 1,000, encoder_other 200. The smallest budget is 1,200, a "
        "fraction of 0.286; pruners of weights (magnitude, say) can prune these, too, if `parts` "
        "names them, and those of units if `granularity` has `hidden`."
    )
    assert FractionBudget(fraction=0.286, of="encoder").resolve(LEDGER) == 1_201
    with pytest.raises(ValueError, match=re.escape(message)):
        FractionBudget(fraction=0.2, of="encoder").resolve(LEDGER)


def test_budget_of_just_what_is_never_pruned_can_be_met() -> None:
    assert CountBudget(count=1_250, of="total").resolve(LEDGER) == 1_250
    with pytest.raises(ValueError, match="1,250: embeddings 1,000, encoder_other 200, heads 50"):
        CountBudget(count=1_249, of="total").resolve(LEDGER)
    with pytest.raises(ValueError, match=r"The smallest budget is 2,000, a fraction of 0\.471; "):
        CountBudget(count=1_249, of="total").resolve(LEDGER, 2_000)


@pytest.mark.parametrize("of", ["linear", "", "encoder_other"])
def test_unknown_denominator_is_an_error(of: str) -> None:
    with pytest.raises(ValueError, match=f"encoder_linear, encoder, total, but is '{of}'"):
        FractionBudget(fraction=0.5, of=of)


@pytest.mark.parametrize(
    ("text", "count"), [("12", 12), ("1_000", 1_000), ("1", 1), ("count=12", 12)]
)
def test_whole_number_is_a_count(text: str, count: int) -> None:
    budget = parse_budget(text, of="total")
    assert isinstance(budget, CountBudget)
    assert (budget.count, budget.of) == (count, "total")


@pytest.mark.parametrize(
    ("text", "fraction"),
    [("0.2", 0.2), ("1.0", 1.0), ("5e-2", 0.05), ("fraction=0.2", 0.2), ("fraction=1", 1.0)],
)
def test_any_other_number_is_a_fraction(text: str, fraction: float) -> None:
    budget = parse_budget(text)
    assert isinstance(budget, FractionBudget)
    assert (budget.fraction, budget.of) == (fraction, "encoder_linear")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "half",
        "5%",
        "0",
        "-3",
        "1.5",
        "-0.1",
        "inf",
        "1,000",
        "count=0.5",
        "fraction=2",
        "size=3",
        "=1",
    ],
)
def test_what_is_neither_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_budget(text)


def test_every_file_of_the_configuration_is_a_budget() -> None:
    assert FILES, "conf/budget holds no file"
    for file in FILES:
        config = OmegaConf.load(file)
        if OmegaConf.is_missing(config, "count"):
            OmegaConf.update(config, "count", 100)
        assert isinstance(instantiate(config), Budget)


@pytest.mark.parametrize("dense", [3, 99, 100, 265_420, 10**9 + 7])
def test_fraction_that_keeps_nothing_is_refused_with_the_smallest_that_keeps_something(
    dense: int,
) -> None:
    with pytest.raises(
        ValueError, match="but 1e-12 keeps none; the smallest that does is "
    ) as error:
        FractionBudget(fraction=1e-12).parameters(dense)
    smallest = float(str(error.value).split()[-1].rstrip("."))
    assert FractionBudget(fraction=smallest).parameters(dense) == 1
    assert smallest < 1.1 / dense or dense < 10


def test_outcome_tells_what_was_asked_from_what_was_kept() -> None:
    kept = DENSE | {"encoder_linear": 1_400, "embeddings": 900}
    ledger = ParameterLedger(dense=DENSE, kept=kept, prunable={"encoder_linear": 3_000})
    linear = FractionBudget(fraction=0.5).outcome(ledger)
    assert (linear.scope, linear.dense, linear.asked, linear.kept) == (
        *("encoder_linear", 3_000),
        *(1_500, 1_400),
    )
    assert linear.density == 1_400 / 3_000
    assert CountBudget(count=2_500, of="encoder").outcome(ledger).kept == 900 + 1_400 + 200
