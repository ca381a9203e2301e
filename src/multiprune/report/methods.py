"""Which runs may be compared: the same encoder, denominator and data; and what tells methods apart.

All of it is read off ``results.json``: the composed configuration, the ledger, the examples.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multiprune.runs.budget_outcome import PARTS
from multiprune.runs.lineage import described
from multiprune.runs.settings import NO_METHOD, is_below

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.runs.frame import FinishedRun
    from multiprune.runs.record import Stage

# Of a run before, what it has learned from counts as well: nothing else compares that.
_DATA = ("data.cap", "data.max_length", "data.mixing")
_NO_STAGE = tuple(key for key in NO_METHOD if key not in _DATA)


def check_comparable(
    runs: Sequence[FinishedRun], *, by_examples: bool = False, across_languages: bool = False
) -> None:
    """Check that all runs have the same encoder, denominator and, for the tasks they share, data.

    ``loss_weight`` may differ: it is how a task is trained, not what the task is. So may the place
    that data are read from (``data.mirror``), and the number of training examples if runs are
    compared ``by_examples``. ``across_languages`` the languages may differ, and so those numbers.

    Raises:
        ValueError: at the first difference (names the two runs and the key).
    """
    seen: dict[str, tuple[Any, FinishedRun]] = {}
    for run in runs:
        examples = {} if by_examples or across_languages else _examples(run)
        for name, value in (_subject(run, across_languages) | examples).items():
            known, before = seen.setdefault(name, (value, run))
            if known != value:
                key, ours, theirs = _difference(name, known, value)
                way = "; `multiprune report --by-examples` is for such runs" * (name in examples)
                raise ValueError(
                    f"Runs of one comparison must have the same {key}, but it is {ours} in "
                    f"{before.path} and {theirs} in {run.path}{way}."
                )


def methods(
    runs: Sequence[FinishedRun], *, ignore: Sequence[str] = ()
) -> dict[str, list[FinishedRun]]:
    """Group runs by method: all settings but those of ``NO_METHOD`` and ``ignore`` (and below).

    A method is called by its pruner's class and the settings in which methods of that class differ.
    What the encoder has gone through in earlier runs is a part of it, named where methods differ in
    it.
    """
    groups: dict[_Method, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(_method(run, ignore), []).append(run)
    named = {_name(one, list(groups)): alike for one, alike in groups.items()}
    return {name: named[name] for name in sorted(named)}


def history(stages: Sequence[Stage], ignore: Sequence[str] = ()) -> str:
    """Return, as JSON, the settings and steps that are the same in stages that differ in seeds."""
    found = {
        f"before.{index}.{key}": value
        for index, stage in enumerate(stages)
        for key, value in [
            *_without(stage.settings, (*_NO_STAGE, *ignore)).items(),
            ("steps", stage.steps),
        ]
    }
    return json.dumps(found, sort_keys=True)


def _subject(run: FinishedRun, across_languages: bool) -> dict[str, Any]:
    """Return what must be the same, by the name that a difference is reported under."""
    # Metrics are compared by what they are, not by where their code is.
    free = ("loss_weight", "metrics", *(["train_languages"] if across_languages else []))
    own = run.record.settings
    subject: dict[str, Any] = {
        "encoder": {key: one for key, one in _encoder(run).items() if one is not False},
        "budget.of": run.budget.scope,
        "data.max_length": own.get("data.max_length"),
        "data.language": None if across_languages else run.record.language,
    }
    # Each task brings its head, so that heads differ by tasks.
    subject |= {f"number of {part}": run.dense[part] for part in PARTS if part != "heads"}
    for task in run.tasks:
        subject[f"task.{task}"] = _without(_inside(own, f"task.{task}"), free)
        subject[f"first metric of {task}"] = run.metrics[task]
        if task in run.measures:
            subject[f"metric of {task}"] = run.measures[task]
    return subject


def _encoder(run: FinishedRun) -> dict[str, Any]:
    """Return the settings of the encoder that a chain has begun with, and those of its last run."""
    own = _inside(run.record.settings, "encoder")
    if len(run.record.chain) == 1:
        return own
    place = ("_target_", "path")
    first = _inside(run.record.chain[0].settings, "encoder")
    return first | {key: value for key, value in own.items() if key not in place}


def _inside(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the settings of a part of a configuration, by their keys within it."""
    start = f"{name}."
    return {key.removeprefix(start): one for key, one in settings.items() if key.startswith(start)}


def _examples(run: FinishedRun) -> dict[str, Any]:
    """Return the numbers of training examples, or the caps of a run that did not note them."""
    return dict(
        (f"number of training examples of {task}", run.record.examples[task])
        if task in run.record.examples
        else (f"data.cap.{task}", run.record.settings.get(f"data.cap.{task}"))
        for task in run.tasks
    )


def _difference(name: str, first: Any, second: Any) -> tuple[str, Any, Any]:
    """Return the dotted key of the first difference, and both values."""
    if not isinstance(first, dict) or not isinstance(second, dict):
        return name, _shown(first), _shown(second)
    # In the order of the configuration, where what matters most comes first.
    key = next(key for key in first | second if first.get(key) != second.get(key))
    return f"{name}.{key}", _shown(first.get(key)), _shown(second.get(key))


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else repr(value)


@dataclass(frozen=True)
class _Method:
    """What makes a method: its pruner's class, settings, and runs before with theirs (as JSON)."""

    pruner: str
    settings: str
    after: tuple[str, ...]
    before: str


def _method(run: FinishedRun, ignore: Sequence[str]) -> _Method:
    earlier = run.record.chain[:-1]
    own = _without(run.record.method.settings, tuple(ignore))
    before = history(earlier, ignore)
    return _Method(
        run.record.method.name,
        json.dumps(own, sort_keys=True),
        described(earlier, run.budget.asked),
        before,
    )


def _without(settings: Mapping[str, Any], ignore: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if not is_below(key, ignore)}


def _name(method: _Method, methods: Sequence[_Method]) -> str:
    same = [one for one in methods if one.pruner == method.pruner]
    words = [method.pruner, *_differing(method.settings, [one.settings for one in same])]
    if any(one.after != method.after for one in methods):
        words.append(f"after {' → '.join(method.after) or 'nothing'}")
    alike = [one.before for one in same if one.after == method.after]
    return " ".join([*words, *_differing(method.before, alike)])


def _differing(own: str, all: Sequence[str]) -> list[str]:
    """Say what a method has where not all have the same; settings are JSON."""
    settings, others = json.loads(own), [json.loads(one) for one in all]
    keys = sorted({key for one in others for key in one})
    return [
        f"{key}={settings.get(key, 'default')}"
        for key in keys
        if any(one.get(key) != settings.get(key) for one in others)
    ]
