from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from multiprune.data.mixing import (
    BatchPlan,
    FixedMixing,
    Mixing,
    ProportionalMixing,
    TemperatureMixing,
    UniformMixing,
)

SIZES = {"small": 1, "middle": 4, "large": 9}
ROWS = {"small": 7, "middle": 30, "large": 53}
BATCH_SIZE = 5

MIXINGS: dict[str, Mixing] = {
    "proportional": ProportionalMixing(),
    "temperature": TemperatureMixing(temperature=3.0),
    "uniform": UniformMixing(),
    "fixed": FixedMixing(weights={"small": 1.0, "middle": 0.0, "large": 1.7}),
}
all_mixings = pytest.mark.parametrize("mixing", MIXINGS.values(), ids=MIXINGS.keys())

Step = tuple[str, NDArray[np.int64]]


def plan_for(mixing: Mixing, *, seed: int = 0, sort_window: int = 1) -> BatchPlan:
    lengths = {
        name: np.random.default_rng(count).integers(3, 60, size=count)
        for name, count in ROWS.items()
    }
    sizes = {name: -(-count // BATCH_SIZE) for name, count in ROWS.items()}
    return BatchPlan(
        lengths=lengths,
        probabilities=mixing.probabilities(sizes),
        batch_size=BATCH_SIZE,
        seed=seed,
        sort_window=sort_window,
    )


def comparable(steps: Iterator[Step], count: int) -> list[tuple[str, list[int]]]:
    return [(name, examples.tolist()) for name, examples in islice(steps, count)]


def test_proportional_mixing_follows_the_sizes() -> None:
    expected = {"small": 1 / 14, "middle": 4 / 14, "large": 9 / 14}
    assert ProportionalMixing().probabilities(SIZES) == pytest.approx(expected)


def test_temperature_mixing_follows_the_root_of_the_sizes() -> None:
    expected = {"small": 1 / 6, "middle": 2 / 6, "large": 3 / 6}
    assert TemperatureMixing(temperature=2).probabilities(SIZES) == pytest.approx(expected)


def test_temperature_of_1_is_proportional_and_a_large_one_uniform() -> None:
    proportional = ProportionalMixing().probabilities(SIZES)
    assert TemperatureMixing(temperature=1).probabilities(SIZES) == pytest.approx(proportional)
    uniform = UniformMixing().probabilities(SIZES)
    hot = TemperatureMixing(temperature=1e9).probabilities(SIZES)
    assert hot == pytest.approx(uniform, abs=1e-6)


def test_uniform_mixing_ignores_the_sizes() -> None:
    expected = {"small": 1 / 3, "middle": 1 / 3, "large": 1 / 3}
    assert UniformMixing().probabilities(SIZES) == pytest.approx(expected)


def test_fixed_mixing_follows_the_stated_weights() -> None:
    mixing = FixedMixing(weights={"large": 3, "small": 1, "middle": 0})
    probabilities = mixing.probabilities(SIZES)
    assert probabilities == {"small": 0.25, "middle": 0.0, "large": 0.75}
    assert list(probabilities) == list(SIZES)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"`temperature` must be above 0"):
        TemperatureMixing(temperature=temperature)


@pytest.mark.parametrize(
    "weights",
    [
        {"small": 1.0, "middle": 1.0},
        {"small": 1.0, "middle": 1.0, "large": 1.0, "other": 1.0},
        {"small": 0.0, "middle": 0.0, "large": 0.0},
    ],
    ids=["too few", "too many", "all zero"],
)
def test_fixed_weights_must_fit_the_tasks(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"one weight of at least 0 for each task \(small, middle"):
        FixedMixing(weights=weights).probabilities(SIZES)


@pytest.mark.parametrize("weights", [{"small": float("nan")}, {"small": -1}, 3])
def test_weights_that_are_none_are_refused_by_name(weights: Any) -> None:
    with pytest.raises(ValueError, match=r"`weights(\.small)?` must be .*but is "):
        FixedMixing(weights=weights)


def test_fixed_weights_do_not_follow_later_changes_of_the_mapping() -> None:
    weights = dict.fromkeys(SIZES, 1.0)
    mixing = FixedMixing(weights=weights)
    weights.clear()
    assert mixing.probabilities(SIZES) == pytest.approx(dict.fromkeys(SIZES, 1 / 3))


@all_mixings
def test_shares_add_up_to_an_epoch(mixing: Mixing) -> None:
    plan = plan_for(mixing)
    assert plan.batches_per_epoch == 2 + 6 + 11
    assert sum(plan.share.values()) == plan.batches_per_epoch


@all_mixings
def test_share_is_within_one_batch_of_the_exact_number(mixing: Mixing) -> None:
    plan = plan_for(mixing)
    for name, probability in plan.probabilities.items():
        assert abs(plan.share[name] - probability * plan.batches_per_epoch) < 1


@all_mixings
def test_epoch_holds_each_task_as_often_as_its_share(mixing: Mixing) -> None:
    plan = plan_for(mixing)
    steps = comparable(plan.batches(), 3 * plan.batches_per_epoch)
    for epoch in range(3):
        first = epoch * plan.batches_per_epoch
        names = Counter(name for name, _ in steps[first : first + plan.batches_per_epoch])
        assert names == Counter(plan.share)


@pytest.mark.parametrize("sort_window", [1, 3])
def test_proportional_epoch_holds_every_example_once(sort_window: int) -> None:
    plan = plan_for(ProportionalMixing(), sort_window=sort_window)
    steps = plan.batches()
    for _ in range(3):
        seen: dict[str, list[int]] = {name: [] for name in ROWS}
        for name, examples in islice(steps, plan.batches_per_epoch):
            assert len(examples) <= BATCH_SIZE
            seen[name] += examples.tolist()
        assert {name: sorted(one) for name, one in seen.items()} == {
            name: list(range(count)) for name, count in ROWS.items()
        }


def test_task_sees_all_its_examples_before_one_repeats() -> None:
    plan = plan_for(UniformMixing())
    seen: dict[str, list[int]] = {name: [] for name in ROWS}
    for name, examples in islice(plan.batches(), 4 * plan.batches_per_epoch):
        seen[name] += examples.tolist()
    for name, count in ROWS.items():
        walks = [seen[name][first : first + count] for first in range(0, len(seen[name]), count)]
        assert len(walks) > 1
        for walk in walks[:-1]:
            assert sorted(walk) == list(range(count))
        assert len(set(walks[-1])) == len(walks[-1])


@all_mixings
@pytest.mark.parametrize("sort_window", [1, 3])
def test_plan_continues_anywhere(mixing: Mixing, sort_window: int) -> None:
    plan = plan_for(mixing, sort_window=sort_window)
    count = 4 * plan.batches_per_epoch
    straight = comparable(plan.batches(), count)
    for start in range(count):
        fresh = plan_for(mixing, sort_window=sort_window)
        assert (
            comparable(fresh.batches(start), min(7, count - start)) == straight[start : start + 7]
        )
    assert comparable(plan.batches(5), count - 5) == straight[5:]


def test_interleaved_iterators_do_not_disturb_each_other() -> None:
    plan = plan_for(UniformMixing())
    expected = comparable(plan.batches(), 80)
    one, other = plan.batches(), plan.batches(31)
    found = []
    for _ in range(80):
        found += comparable(one, 1)
        next(other)
    assert found == expected


def test_epochs_are_ordered_differently() -> None:
    plan = plan_for(ProportionalMixing())
    steps = comparable(plan.batches(), 2 * plan.batches_per_epoch)
    first, second = steps[: plan.batches_per_epoch], steps[plan.batches_per_epoch :]
    assert [name for name, _ in first] != [name for name, _ in second]
    assert [one for name, one in first if name == "large"] != [
        one for name, one in second if name == "large"
    ]


def test_tasks_of_equal_size_are_shuffled_differently() -> None:
    lengths = {name: np.full(20, 3) for name in ("a", "b")}
    plan = BatchPlan(lengths=lengths, probabilities={"a": 0.5, "b": 0.5}, batch_size=20, seed=0)
    steps = dict(comparable(plan.batches(), 2))
    assert steps["a"] != steps["b"]


def test_seed_decides_the_plan() -> None:
    one, same, other = (
        comparable(plan_for(UniformMixing(), seed=seed).batches(), 40) for seed in (3, 3, 4)
    )
    assert one == same
    assert one != other


def test_sort_window_reduces_padding() -> None:
    def padded_tokens(sort_window: int) -> int:
        plan = plan_for(ProportionalMixing(), sort_window=sort_window)
        steps = islice(plan.batches(), plan.batches_per_epoch)
        return sum(
            int(plan.lengths[name][examples].max()) * len(examples) for name, examples in steps
        )

    assert padded_tokens(20) < padded_tokens(3) < padded_tokens(1)


def test_sorted_batches_come_in_shuffled_order() -> None:
    plan = plan_for(ProportionalMixing(), sort_window=20)
    steps = islice(plan.batches(), plan.batches_per_epoch)
    longest = [plan.lengths[name][one].max() for name, one in steps if name == "large"]
    assert longest != sorted(longest)


def test_examples_of_a_streamed_task_are_consecutive_without_end() -> None:
    plan = BatchPlan(
        lengths={"walked": np.full(7, 3)},
        probabilities={"streamed": 0.6, "walked": 0.4},
        batch_size=BATCH_SIZE,
        seed=0,
        sort_window=3,
        streamed={"streamed": 11},
    )
    assert plan.batches_per_walk == {"walked": 2, "streamed": 3}
    steps = comparable(plan.batches(), 4 * 5)
    assert comparable(plan.batches(7), 13) == steps[7:]
    assert [name for name, _ in steps[:5]].count("streamed") == 3
    found = [example for name, examples in steps for example in examples if name == "streamed"]
    assert found == [*range(4 * 3 * BATCH_SIZE)]
