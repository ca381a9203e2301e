"""What is handed to constructors and is no number, or another object, is refused in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from torch import nn
from torch.optim import SGD

from multiprune.budget import CountBudget, FractionBudget
from multiprune.pruning.attribution import IntegratedGradients
from multiprune.pruning.attribution_pruner import AttributionPruner
from multiprune.pruning.dynamic_sparsification import DynamicSparsification
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.importance import GateFisher, RandomImportance
from multiprune.pruning.low_rank import LowRankGradual, LowRankL0
from multiprune.pruning.magnitude import Magnitude
from multiprune.pruning.movement import Movement
from multiprune.pruning.platon import Platon
from multiprune.pruning.schedule import CubicSchedule, OneShotSchedule
from multiprune.pruning.soft_movement import SoftMovement
from multiprune.pruning.structured import Structured
from multiprune.training import Pruning

if TYPE_CHECKING:
    from collections.abc import Callable

BUDGET: Any = FractionBudget(0.1)
SCHEDULE: Any = CubicSchedule(start=0.1, stop=0.7)
PRUNER: Any = Magnitude(budget=BUDGET)
TEXT: Any = "0.1"
NONE: Any = None

CASES: dict[str, Callable[[], object]] = {
    "`fraction` must be a number in (0, 1], but is '0.1'.": lambda: FractionBudget(TEXT),
    "`fraction` must be in (0, 1], but is nan.": lambda: FractionBudget(float("nan")),
    "`count` must be a whole number of at least 1, but is '0.1'.": lambda: CountBudget(TEXT),
    "`budget` must be a Budget such as FractionBudget(0.1), but is '0.1'.": lambda: Magnitude(
        budget=TEXT
    ),
    "`groups` must be a Groups such as Blocks(size=32), but is 4.": lambda: Magnitude(
        budget=BUDGET,
        groups=4,  # type: ignore[arg-type]
    ),
    "`start` must be a number in [0, 1], but is '0.1'.": lambda: CubicSchedule(
        start=TEXT, stop=0.7
    ),
    "`stop` must be a number in (0, 1], but is None.": lambda: CubicSchedule(start=0, stop=NONE),
    "`at` must be a number in (0, 1], but is None.": lambda: OneShotSchedule(at=NONE),
    "`schedule` must be a Schedule such as CubicSchedule(start=0.1, stop=0.7), but is '0.1'.": (
        lambda: Pruning(PRUNER, TEXT)
    ),
    "`pruner` must be a Pruner such as Magnitude, but is '0.1'.": lambda: GradualPruning(
        TEXT, SCHEDULE, total_steps=9
    ),
    "`total_steps` must be a whole number of at least 1, but is 9.5.": lambda: GradualPruning(
        PRUNER,
        SCHEDULE,
        total_steps=9.5,  # type: ignore[arg-type]
    ),
    "`every_n_steps` must be a whole number of at least 1, but is True.": lambda: Pruning(
        PRUNER, SCHEDULE, every_n_steps=True
    ),
    "`encoder` must be the path of a submodule of Sequential, which has 0, 1, but is 'encodr'.": (
        lambda: Pruning(PRUNER, SCHEDULE, encoder="encodr").prepare(
            nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        )
    ),
    "`encoder` must be the path of a submodule, as 'model.encoder', but is a Linear.": (
        lambda: Pruning(PRUNER, SCHEDULE, encoder=nn.Linear(2, 2))  # type: ignore[arg-type]
    ),
    "`encoder` must be a module, as model.bert, but is '0.1'.": (
        lambda: Magnitude(budget=BUDGET).prepare(nn.Linear(2, 2), TEXT)
    ),
    "The pruner is not prepared: call pruner.prepare(model) first.": (
        lambda: GradualPruning(Magnitude(budget=BUDGET), SCHEDULE, total_steps=9).attach(
            SGD(nn.Linear(2, 2).parameters())
        )
    ),
    "`score_learning_rate` must be a number above 0, but is '0.1'.": lambda: Movement(
        budget=BUDGET, score_learning_rate=TEXT
    ),
    "`magnitude_prior` must be a number of at least 0, but is None.": lambda: Movement(
        budget=BUDGET, score_learning_rate=0.1, magnitude_prior=NONE
    ),
    "`penalty` must be a number of at least 0, but is None.": lambda: SoftMovement(
        budget=BUDGET, score_learning_rate=0.1, threshold=0.5, penalty=NONE
    ),
    "`beta2` must be a number in [0, 1), but is '0.1'.": lambda: Platon(
        budget=BUDGET, beta1=0.5, beta2=TEXT
    ),
    "`gate_learning_rate` must be a number above 0, but is None.": lambda: LowRankL0(
        budget=BUDGET, drop_rate=0.1, gate_learning_rate=NONE, multiplier_learning_rate=1
    ),
    "`smoothing` must be a number in [0, 1), but is '0.1'.": lambda: LowRankGradual(
        budget=BUDGET, smoothing=TEXT
    ),
    "`smoothing` must be a number in [0, 1), but is None.": lambda: GateFisher(smoothing=NONE),
    "`seed` must be a whole number of at least 0, but is '0.1'.": lambda: RandomImportance(
        seed=TEXT
    ),
    "`steps` must be a whole number of at least 1, but is '0.1'.": lambda: IntegratedGradients(
        steps=TEXT
    ),
    "`importance` must be an Importance such as GateFisher(smoothing=0.998), but is '0.1'.": (
        lambda: Structured(budget=BUDGET, importance=TEXT)
    ),
    "`method` must be an Attribution such as Fisher(), but is '0.1'.": lambda: AttributionPruner(
        budget=BUDGET, method=TEXT
    ),
    "`temperature` must be a number above 0, but is '0.1'.": lambda: DynamicSparsification(
        budget=BUDGET, importance=RandomImportance(), temperature=TEXT
    ),
}


@pytest.mark.parametrize("sentence", CASES)
def test_wrong_argument_is_refused_in_a_sentence(sentence: str) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        CASES[sentence]()
    assert str(error.value) == sentence
