"""When the pruner is called: every so many optimizer steps, and at the schedule's end."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau
from typing_extensions import override

from multiprune.budget import CountBudget, FullBudget, ParameterLedger
from multiprune.budget.ledger import PARTS
from multiprune.pruning.gradual import GradualPruning, learning_rate_scale
from multiprune.pruning.magnitude import Magnitude
from multiprune.pruning.pruner import Pruner
from multiprune.pruning.schedule import LinearSchedule, OneShotSchedule


class Spy(Pruner):
    """Writes down what it is asked to do."""

    def __init__(self, excess: int = 1) -> None:
        super().__init__(budget=FullBudget())
        self.calls: list[str] = []
        self.scales: list[float] = []
        self.amounts: list[float] = []
        self._spare, self._excess = 0, excess

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        self.calls.append("prepare")

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        self.calls.append("before")
        self.scales.append(learning_rate_scale)

    @override
    def after_step(self) -> None:
        self.calls.append("after")

    @override
    def skip_step(self) -> None:
        self.calls.append("skip")

    @override
    def prune(self, amount: float) -> None:
        self.calls.append("prune")
        self.amounts.append(amount)

    @override
    def _make_permanent(self) -> None:
        self.calls.append("finalize")

    @override
    def masks(self) -> Mapping[str, Tensor]:
        return {}

    @override
    def ledger(self) -> ParameterLedger:
        return ParameterLedger.of(nn.Module())


def sgd(rate: float = 1.0) -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)


def driver_of(
    spy: Pruner, *, start: float = 0.0, stop: float, total_steps: int = 20, every_n_steps: int = 5
) -> GradualPruning:
    schedule = LinearSchedule(start=start, stop=stop)
    return GradualPruning(spy, schedule, total_steps=total_steps, every_n_steps=every_n_steps)


def ranked_at(driver: GradualPruning, steps: int) -> list[int]:
    optimizer, ranked = sgd(), []
    for step in range(1, steps + 1):
        driver.before_step(optimizer)
        if driver.after_step():
            ranked.append(step)
    return ranked


def test_ranks_every_n_steps_and_at_the_stop_and_never_afterwards() -> None:
    spy = Spy()
    assert ranked_at(driver_of(spy, start=0.25, stop=0.625), 20) == [5, 10, 13]
    # 12.5 rounds up to step 13; the ramp is from step 5 to 12.5.
    assert spy.amounts == pytest.approx([0.0, 5 / 7.5, 1.0])


def test_stop_that_is_a_multiple_of_n_ranks_once() -> None:
    spy = Spy()
    assert ranked_at(driver_of(spy, stop=0.5), 20) == [5, 10]
    assert spy.amounts == [0.5, 1.0]


def test_stop_at_the_last_step_is_reached() -> None:
    assert ranked_at(driver_of(Spy(), stop=1.0, total_steps=7), 7) == [5, 7]


def test_one_shot_between_two_rankings_prunes_at_its_step() -> None:
    spy = Spy()
    driver = GradualPruning(spy, OneShotSchedule(at=0.35), total_steps=20, every_n_steps=5)
    assert ranked_at(driver, 20) == [5, 7]
    assert spy.amounts == [0.0, 1.0]


def test_no_ranking_before_the_stop_has_the_whole_amount() -> None:
    spy = Spy()
    # 0.55 * 100 is 55.00000000000001 in floating point.
    driver = driver_of(spy, stop=0.55, total_steps=100)
    assert ranked_at(driver, 100) == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55]
    assert spy.amounts.count(1.0) == 1


def test_amount_and_end_are_those_of_the_step() -> None:
    driver = driver_of(Spy(), stop=0.5)
    optimizer, seen = sgd(), []
    for _ in range(12):
        driver.before_step(optimizer)
        driver.after_step()
        seen.append((driver.amount, driver.finished))
    assert seen == [(pytest.approx(i / 10), False) for i in range(1, 10)] + [(1.0, True)] * 3


def test_nothing_to_prune_is_finished_from_the_start() -> None:
    assert driver_of(Spy(excess=0), stop=0.5).finished
    assert not driver_of(Spy(excess=1), stop=0.5).finished


def test_skipped_steps_do_not_count() -> None:
    spy = Spy()
    driver, optimizer = driver_of(spy, stop=0.5, every_n_steps=2), sgd()
    driver.before_step(optimizer)
    driver.after_step()
    for _ in range(5):
        driver.before_step(optimizer)
        assert driver.pending
        driver.skip_step()
        assert not driver.pending
    assert driver.step == 1
    driver.before_step(optimizer)
    assert driver.after_step()
    assert spy.calls == ["before", "after", *["before", "skip"] * 5, "before", "after", "prune"]


def test_the_end_can_be_reached_without_the_steps_that_were_skipped() -> None:
    spy = Spy()
    driver = driver_of(spy, stop=1.0, total_steps=7)
    assert ranked_at(driver, 6) == [5]
    driver.finish()
    assert driver.finished
    assert spy.amounts == pytest.approx([5 / 7, 1.0])


class Sudden(Spy):
    """Keeps as much of 100 parameters as it is told, whatever is due."""

    kept = 100
    following: list[int]

    @override
    def prune(self, amount: float) -> None:
        super().prune(amount)
        self.kept = self.following.pop(0)

    @override
    def ledger(self) -> ParameterLedger:
        parts = dict.fromkeys(PARTS, 0)
        return ParameterLedger(
            parts | {"encoder_linear": 100}, parts | {"encoder_linear": self.kept}
        )


def test_a_ranking_that_takes_more_than_two_of_the_largest_steps_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    spy = Sudden(excess=80)
    # Rankings at 5, 10, 15 and 20 of 20 steps; 20 of 80 are planned each time.
    spy.following = [80, 41, 0, 0]
    ranked_at(driver_of(spy, stop=1.0), 20)
    assert [record.getMessage() for record in caplog.records] == [
        "Sudden removed 41 parameters at step 15, where the schedule plans at most 20 at once: the "
        "rest of the training may not heal that."
    ]
    caplog.clear()
    spy.following = [0]
    one_shot = GradualPruning(spy, OneShotSchedule(at=0.5), total_steps=4, every_n_steps=3)
    spy.kept = 100
    ranked_at(one_shot, 4)  # once, as planned
    spy.kept, spy.following, spy.is_gradual = 100, [100, 100, 100, 0], False
    ranked_at(driver_of(spy, stop=1.0), 20)
    assert not caplog.records


def layer_with_driver() -> tuple[nn.Linear, GradualPruning]:
    layer, pruner = nn.Linear(4, 4), Magnitude(budget=CountBudget(count=5))
    pruner.prepare(layer)
    return layer, driver_of(pruner, stop=0.65)


def test_position_is_resumed_with_the_state_of_the_model() -> None:
    layer, driver = layer_with_driver()
    assert ranked_at(driver, 7) == [5]
    other, resumed = layer_with_driver()
    nn.Sequential(other).load_state_dict(nn.Sequential(layer).state_dict())
    assert resumed.step == 7
    assert [7 + step for step in ranked_at(resumed, 13)] == [10, 13]


def test_state_loaded_without_prepare_names_what_to_do() -> None:
    layer, _ = layer_with_driver()
    with pytest.raises(RuntimeError, match=r"call prepare of the pruner before this state"):
        nn.Linear(4, 4).load_state_dict(layer.state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key.*pruning_step"):
        layer.load_state_dict(nn.Linear(4, 4).state_dict())


def test_a_schedule_that_would_silently_begin_anew_is_refused() -> None:
    layer, driver = layer_with_driver()
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(4)).sum().backward()
    optimizer.step()
    with pytest.raises(ValueError, match=r"at step 0: to resume, call pruner\.prepare\(model\) be"):
        driver.attach(optimizer)
    driver.attach(optimizer, late=True)
    optimizer.step()
    assert driver.step == 1
    driver.attach(optimizer)


class Wrapped(torch.optim.Optimizer):
    """As accelerate's: an optimizer by type, without what the constructor makes."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    @override
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        self.optimizer.step()


def test_wrapped_optimizer_is_unwrapped() -> None:
    spy, wrapped = Spy(), Wrapped(sgd())
    driver_of(spy, stop=1.0).attach(Wrapped(wrapped))
    wrapped.step()
    assert spy.calls == ["before", "after"]
    with pytest.raises(TypeError, match=r"torch\.optim\.Optimizer.* but Linear is neither\.$"):
        driver_of(spy, stop=1.0).attach(nn.Linear(1, 1))  # type: ignore[arg-type]


def test_learning_rate_scale_remembers_the_peak_without_initial_lr() -> None:
    optimizer = sgd(0.5)
    plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    scales = []
    for _ in range(3):
        scales.append(learning_rate_scale(optimizer))
        plateau.step(1.0)
    assert scales == [1.0, 1.0, 0.5]
    resumed = sgd(0.5)
    resumed.load_state_dict(optimizer.state_dict())
    assert learning_rate_scale(resumed) == 0.25


def test_learning_rate_scale_of_a_cycle_is_of_its_maximum() -> None:
    optimizer = sgd()
    cycle = OneCycleLR(optimizer, 0.8, total_steps=5, pct_start=0.5, anneal_strategy="linear")
    scales = []
    for step in range(5):
        scales.append(learning_rate_scale(optimizer))
        optimizer.step()
        if step < 4:
            cycle.step()
    assert max(scales) <= 1.0
    assert scales[0] == pytest.approx(1 / 25)  # OneCycleLR's own default


def test_learning_rate_scale_is_1_without_a_scheduler() -> None:
    assert learning_rate_scale(sgd(0.3)) == 1.0
    assert learning_rate_scale(sgd(0.0)) == 1.0


def test_learning_rate_scale_is_the_fraction_of_the_peak() -> None:
    optimizer = sgd(0.25)
    scheduler = LambdaLR(optimizer, lambda step: [0.0, 0.5, 1.0, 0.75][step])
    scales = []
    for _ in range(4):
        scales.append(learning_rate_scale(optimizer))
        optimizer.step()
        if len(scales) < 4:
            scheduler.step()
    assert scales == [0.0, 0.5, 1.0, 0.75]


def test_pruner_is_told_the_learning_rate_scale_of_the_step() -> None:
    spy, optimizer = Spy(), sgd(0.25)
    scheduler = LambdaLR(optimizer, lambda step: 1 / (1 + step))
    driver_of(spy, stop=1.0).attach(optimizer)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert spy.scales == [1.0, 1 / 2, 1 / 3, 1 / 4]


def test_attached_to_a_plain_loop_and_detached_again() -> None:
    spy, optimizer = Spy(), sgd()
    handles = driver_of(spy, stop=0.5, every_n_steps=2, total_steps=4).attach(optimizer)
    optimizer.step()
    optimizer.step()
    assert spy.calls == ["before", "after", "before", "after", "prune"]
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert len(spy.calls) == 5


def test_plain_loop_ends_at_the_budget() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    pruner = Magnitude(budget=CountBudget(count=5))
    pruner.prepare(layer)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01)
    schedule = LinearSchedule(start=0.0, stop=0.5)
    driver = GradualPruning(pruner, schedule, total_steps=8, every_n_steps=1)
    driver.attach(optimizer)
    kept = []
    for _ in range(8):
        optimizer.zero_grad()
        layer(torch.randn(3, 4)).square().mean().backward()
        optimizer.step()
        kept.append(int(layer.weight.count_nonzero()))
    # 16 - floor(11 / 4), 16 - floor(11 / 2), 16 - floor(33 / 4), and the budget from then on
    assert kept == [14, 11, 8, 5, 5, 5, 5, 5]


@pytest.mark.parametrize(("total_steps", "every_n_steps"), [(0, 5), (20, 0)])
def test_counts_below_one_are_an_error(total_steps: int, every_n_steps: int) -> None:
    with pytest.raises(ValueError, match="_steps` must be a whole number of at least 1, but is 0"):
        driver_of(Spy(), stop=0.5, total_steps=total_steps, every_n_steps=every_n_steps)
