"""Which runs may be compared: the same encoder, denominator and data; and what tells methods apart.

All of it is read off ``results.json``: the composed configuration, the ledger, the examples.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multiprune.budget.ledger import PARTS
from multiprune.report.records.chain import described

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.records.chain import Link
    from multiprune.report.records.frame import Row

# Settings that make no other method: what is learned and from what (that must be the same, or is
# what a comparison varies), how tasks of a multitask run are mixed, the runs that a teacher or a
# mask come from, and where and how a run runs.
NO_METHOD = (
    "task", "encoder", "budget", "seed", "logger", "checkpoint", "give_up", "retrieval",
    "distillation.teacher", "pruner.mask",
    "data.mirror", "data.cache", "data.cap", "data.max_length", "data.mixing",
    "trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.use_distributed_sampler",
    "trainer.log_every_n_steps", "trainer.num_sanity_val_steps", "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
)  # fmt: skip

# Of a run before, what it has learned from counts as well: nothing else compares that.
_DATA = ("data.cap", "data.max_length", "data.mixing")
_NO_LINK = tuple(key for key in NO_METHOD if key not in _DATA)


def comparable(
    rows: Sequence[Row], *, by_examples: bool = False, across_languages: bool = False
) -> None:
    """Check that all runs have the same encoder, denominator and, for the tasks they share, data.

    ``loss_weight`` may differ: it is how a task is trained, not what the task is. So may the place
    that data are read from (``data.mirror``), and the number of training examples if runs are
    compared ``by_examples``. ``across_languages`` the languages may differ, and so those numbers.

    Raises:
        ValueError: at the first difference (names the two runs and the key).
    """
    seen: dict[str, tuple[Any, Row]] = {}
    for row in rows:
        examples = {} if by_examples or across_languages else _examples(row)
        for name, value in (_subject(row, across_languages) | examples).items():
            known, before = seen.setdefault(name, (value, row))
            if known != value:
                key, ours, theirs = _difference(name, known, value)
                way = "; `multiprune report --by-examples` is for such runs" * (name in examples)
                raise ValueError(
                    f"Runs of one comparison must have the same {key}, but it is {ours} in "
                    f"{before.path} and {theirs} in {row.path}{way}."
                )


def methods(rows: Sequence[Row], *, ignore: Sequence[str] = ()) -> dict[str, list[Row]]:
    """Group runs by method: all settings but those of ``NO_METHOD`` and ``ignore`` (and below).

    A method is called by its pruner's class and the settings in which methods of that class differ.
    What the encoder has gone through in earlier runs is a part of it, named where methods differ in
    it.
    """
    groups: dict[_Method, list[Row]] = {}
    for row in rows:
        groups.setdefault(_method(row, ignore), []).append(row)
    named = {_name(one, list(groups)): alike for one, alike in groups.items()}
    return {name: named[name] for name in sorted(named)}


def history(links: Sequence[Link], ignore: Sequence[str] = ()) -> str:
    """Return, as JSON, the settings and steps that are the same in links that differ in seeds."""
    settings = {
        f"before.{index}.{key}": value
        for index, link in enumerate(links)
        for key, value in [
            *_settings(link.config, (*_NO_LINK, *ignore)).items(),
            ("steps", link.steps),
        ]
    }
    return json.dumps(settings, sort_keys=True)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        deeper = isinstance(value, dict)
        leaves |= flat(value, f"{prefix}{key}.") if deeper else {f"{prefix}{key}": value}
    return leaves


def _subject(row: Row, across_languages: bool) -> dict[str, Any]:
    """Return what must be the same, by the name that a difference is reported under."""
    free = ("loss_weight", "train_languages") if across_languages else ("loss_weight",)
    data = row.config.get("data", {})
    subject: dict[str, Any] = {
        "encoder": {
            key: one for key, one in _encoder(row).items() if one is not None and one is not False
        },
        "budget.of": row.of,
        "data.max_length": data.get("max_length"),
        "data.language": None if across_languages else row.language,
    }
    # Each task brings its head, so that heads differ by tasks.
    subject |= {f"number of {part}": row.ledger.dense[part] for part in PARTS if part != "heads"}
    for task in row.tasks:
        definition = row.config["task"][task].items()
        subject[f"task.{task}"] = {key: one for key, one in definition if key not in free}
    return subject


def _encoder(row: Row) -> dict[str, Any]:
    """Return the settings of the encoder that a chain has begun with, and those of its last run."""
    own: dict[str, Any] = row.config["encoder"]
    if len(row.chain) == 1:
        return own
    place = ("_target_", "path")
    first: dict[str, Any] = row.chain[0].config["encoder"]
    return first | {key: value for key, value in own.items() if key not in place}


def _examples(row: Row) -> dict[str, Any]:
    """Return the numbers of training examples, or the caps of a run that did not note them."""
    cap = row.config.get("data", {}).get("cap") or {}
    return dict(
        (f"number of training examples of {task}", row.examples[task])
        if task in row.examples
        else (f"data.cap.{task}", cap.get(task))
        for task in row.tasks
    )


def _difference(name: str, first: Any, second: Any) -> tuple[str, Any, Any]:
    """Return the dotted key of the first difference, and both values."""
    if not isinstance(first, dict) or not isinstance(second, dict):
        return name, _shown(first), _shown(second)
    ours, theirs = flat(first), flat(second)
    # In the order of the configuration, where what matters most comes first.
    key = next(key for key in ours | theirs if ours.get(key) != theirs.get(key))
    return f"{name}.{key}", _shown(ours.get(key)), _shown(theirs.get(key))


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


def _method(row: Row, ignore: Sequence[str]) -> _Method:
    earlier = row.chain[:-1]
    settings = json.dumps(_settings(row.config, (*NO_METHOD, *ignore)), sort_keys=True)
    return _Method(row.pruner, settings, described(earlier, row.asked), history(earlier, ignore))


def _settings(config: Mapping[str, Any], ignore: Sequence[str]) -> dict[str, Any]:
    return {
        key: value
        for key, value in flat(config).items()
        if value is not None and not _below(key, ignore)
    }


def _name(method: _Method, methods: Sequence[_Method]) -> str:
    same = [one for one in methods if one.pruner == method.pruner]
    words = [method.pruner, *_differing(method.settings, [one.settings for one in same])]
    if any(one.after != method.after for one in methods):
        words.append(f"after {' → '.join(method.after) or 'nothing'}")
    alike = [one.before for one in same if one.after == method.after]
    return " ".join([*words, *_differing(method.before, alike)])


def _below(key: str, prefixes: Sequence[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def _differing(own: str, all: Sequence[str]) -> list[str]:
    """Say what a method has where not all have the same; settings are JSON."""
    settings, others = json.loads(own), [json.loads(one) for one in all]
    keys = sorted({key for one in others for key in one})
    return [
        f"{key}={settings.get(key, 'default')}"
        for key in keys
        if any(one.get(key) != settings.get(key) for one in others)
    ]
