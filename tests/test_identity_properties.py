"""What tells runs apart does not depend on how a configuration is written."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from strategies import names, seeds

from multiprune.runs.settings import INCIDENTAL, difference, is_below, settings_of

plain_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 9),
    st.floats(-1, 1),
    names,
    st.lists(st.integers(0, 3)),
)
trees = st.dictionaries(
    names,
    st.recursive(
        plain_values,
        lambda inner: st.dictionaries(names, inner, max_size=3) | st.lists(inner, max_size=2),
        max_leaves=6,
    ),
    max_size=4,
)


def shuffled(node: Any, generator: np.random.Generator) -> Any:
    """Return the same with the keys of every mapping in another order."""
    if isinstance(node, list):
        return [shuffled(one, generator) for one in node]
    if not isinstance(node, dict):
        return node
    names_there = list(node)
    order = generator.permutation(len(names_there))
    return {names_there[place]: shuffled(node[names_there[place]], generator) for place in order}


@given(trees, seeds)
def test_neither_the_order_of_keys_nor_json_makes_a_difference(
    config: dict[str, Any], seed: int
) -> None:
    other = shuffled(config, np.random.default_rng(seed))
    assert difference(config, other) is None
    assert difference(json.loads(json.dumps(config)), config) is None
    assert settings_of(config) == settings_of(other)


@given(trees, trees, st.sampled_from(["logger", "checkpoint", "mirror", "give_up"]), names)
def test_what_is_incidental_makes_none_whatever_it_is(
    config: dict[str, Any], anything: dict[str, Any], key: str, task: str
) -> None:
    here = {**config, key: anything, "data": {"mirror": "a", "cache": anything}}
    there = {"data": {"cache": 3}, "task": {task: {"workers": anything}}, **config}
    assert difference({**config, "data": {}}, here) is None
    assert difference({"data": {}, **config}, there) is None
    assert is_below(f"task.{task}.workers", INCIDENTAL)


@given(trees, st.lists(names, min_size=1, max_size=3), st.integers(10, 99))
def test_any_other_value_is_found_by_its_key(
    config: dict[str, Any], path: list[str], value: int
) -> None:
    changed: dict[str, Any] = {"pruner": {**config}}
    node = changed["pruner"]
    for name in path[:-1]:
        node[name] = {**node[name]} if isinstance(node.get(name), dict) else {}
        node = node[name]
    node[path[-1]] = value
    found = difference({"pruner": config}, changed)
    assert found is not None
    first = difference(changed, {"pruner": config})
    assert first is not None
    # The same key and values, the other way round.
    assert (found[0], found[1], found[2]) == (first[0], first[2], first[1])
    flat = settings_of(changed)
    assert flat[".".join(["pruner", *path])] == value


@given(trees, trees, trees)
def test_to_be_the_same_is_symmetric_and_carries_on(
    first: dict[str, Any], second: dict[str, Any], third: dict[str, Any]
) -> None:
    assert difference(first, first) is None
    assert (difference(first, second) is None) == (difference(second, first) is None)
    if difference(first, second) is None and difference(second, third) is None:
        assert difference(first, third) is None
