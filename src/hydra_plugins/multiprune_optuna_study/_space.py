"""Convert Hydra's sweep syntax to Optuna's distributions, and samples to overrides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydra.core.override_parser.types import Override
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class SearchSpace:
    """What is searched, by key as in an override, and the overrides that all runs have."""

    distributions: Mapping[str, BaseDistribution]
    fixed: Sequence[str]

    def overrides(self, parameters: Mapping[str, Any]) -> list[str]:
        """Return the overrides of one run."""
        return [*self.fixed, *(f"{key}={parameters[key]}" for key in self.distributions)]


def search_space(overrides: Sequence[Override]) -> SearchSpace:
    """Read ``interval``, ``range`` and ``choice`` as what is searched; of one key, the last counts.

    Raises:
        ValueError: if nothing is searched, or a range cannot be.
    """
    last = {one.get_key_element(): one for one in overrides}
    distributions = {
        key: _distribution(one) for key, one in last.items() if one.is_sweep_override()
    }
    if not distributions:
        raise ValueError(
            "A study has nothing to search, as all overrides are single values: give one "
            "such as optimizer.learning_rate='tag(log, interval(1e-5, 1e-3))'."
        )
    fixed = [one.input_line for key, one in last.items() if key not in distributions]
    return SearchSpace(distributions, [line for line in fixed if line is not None])


def _distribution(override: Override) -> BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    value: Any = override.value()
    log = "log" in getattr(value, "tags", ())
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(float(value.start), float(value.end), log=log)
    if isinstance(value, RangeSweep):
        numbers = value.range()
        if isinstance(numbers, range) and len(numbers) > 0 and numbers.step > 0:
            return IntDistribution(numbers[0], numbers[-1], step=numbers.step)
    raise ValueError(
        f"{override.input_line} is not supported: a study searches interval(low, high), "
        "choice(...) or an ascending range(low, high, step) of integers."
    )
