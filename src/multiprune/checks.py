"""Checks of a configuration that need neither data nor weights nor torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig

from multiprune.arguments import check_number
from multiprune.config import built
from multiprune.data.mirror import mirrored_folder
from multiprune.models.location import encoder_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The least that settings may be, all of them whole numbers.
_WHOLE = {
    "rank_every_n_steps": 1,
    "checkpoint.every_n_steps": 1,
    "data.batch_size": 1,
    "data.max_length": 1,
    "data.evaluation_batch_size": 1,
    "data.sort_window": 1,
    "data.workers": 0,
    "trainer.max_steps": -1,
    "trainer.max_epochs": -1,
    "trainer.accumulate_grad_batches": 0,
    "trainer.check_val_every_n_epoch": 0,
    "trainer.log_every_n_steps": 0,
    "trainer.num_sanity_val_steps": -1,
    "trainer.num_nodes": 1,
}

# Numbers or shares of batches.
_BATCHES = ("limit_train_batches", "limit_val_batches", "limit_test_batches")

# What names a class, each by itself or all of some.
_PARTS = (
    *("encoder", "data", "data.mixing", "budget", "pruner", "schedule", "optimizer"),
    *("distillation", "trainer"),
)
_COLLECTIONS = ("task", "retrieval", "logger")

# Settings of the Trainer without which there is no training, or no score.
_AT_LEAST_ONCE = (
    "max_steps", "max_epochs", "accumulate_grad_batches", "limit_train_batches",
    "limit_val_batches", "val_check_interval", "check_val_every_n_epoch",
)  # fmt: skip

_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")

# What a run gives to these parts itself.
_TAKEN = {
    "pruner": ("budget",),
    "data": ("tasks", "tokenizer", "seed"),
    "trainer": ("default_root_dir", "logger", "callbacks"),
}


def check(config: Mapping[str, Any]) -> None:
    """Refuse what can be known to be wrong.

    Raises:
        ValueError, TypeError, FileNotFoundError, HydraException: with one sentence.
    """
    check_tasks(config)
    check_complete(config)
    check_parts(config)
    for name, taken in _TAKEN.items():
        check_open(config[name], name, *taken)
    check_numbers(config)
    check_trainer(config["trainer"])
    # Their constructors refuse what is wrong, and import nothing large.
    for part in ("budget", "schedule", "optimizer"):
        built(config, part, _convert_="all")
    # What does not fit the tasks; their sizes are not known yet.
    mixing = built(config, "data.mixing", _convert_="all")
    mixing.probabilities(dict.fromkeys(config["task"], 1))
    check_places(config)


def check_tasks(config: Mapping[str, Any]) -> None:
    """Refuse a run of no task, or of one that is named twice."""
    if (tasks := config.get("task")) == "???" or not tasks:
        raise ValueError("A run needs at least one task, but `task` names none.")
    # Hydra merges a task that is chosen twice without a word.
    choices = [one for one in HydraConfig.get().overrides.task if one.startswith("task=[")]
    names = [
        name for one in choices for name in one[len("task=[") : -1].replace(" ", "").split(",")
    ]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"`task` names {', '.join(sorted(repeated))} more than once.")


def check_complete(config: Mapping[str, Any]) -> None:
    """Refuse a configuration that leaves a value open."""
    if missing := sorted(_missing(config)):
        raise ValueError(f"Missing values in the configuration: {', '.join(missing)}.")


def check_open(config: Mapping[str, Any], name: str, *taken: str) -> None:
    """Refuse settings that would have no effect, because the run makes them itself."""
    if given := sorted(set(config) & set(taken)):
        raise ValueError(
            f"`{name}.{given[0]}` is set by the run: remove it from the configuration."
        )


def check_parts(config: Mapping[str, Any]) -> None:
    """Refuse what should name a class, and does not."""
    parts = {name: value_of(config, name) for name in _PARTS}
    for name in _COLLECTIONS:
        found = config[name]
        if not isinstance(found, dict) and (found is not None or name != "retrieval"):
            raise ValueError(
                f"`{name}` must be a mapping from names to settings, but is {found!r}."
            )
        parts |= {f"{name}.{key}": value for key, value in (found or {}).items()}
    for name, part in parts.items():
        if not isinstance(part, dict) or not isinstance(part.get("_target_"), str):
            raise ValueError(f"`{name}` must have a class as `_target_`, but is {part!r}.")


def value_of(config: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """Return what stands under a dotted key."""
    found: Any = config
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            return default
        found = found[part]
    return found


def check_numbers(config: Mapping[str, Any]) -> None:
    """Refuse numbers that are out of range whatever the data are."""
    check_number("seed", config["seed"], at_least=0, at_most=2**32 - 1, whole=True)
    for key, least in _WHOLE.items():
        value = value_of(config, key, least)
        # The Trainer has values of its own where there is none.
        if value is not None or not key.startswith("trainer."):
            check_number(key, value, at_least=least, whole=True)
    for name in ("dropout", "head_dropout"):
        if (value := config["encoder"].get(name)) is not None:
            check_number(f"encoder.{name}", value, at_least=0, below=1)
    for name in _BATCHES:
        if (value := config["trainer"].get(name)) is not None:
            check_number(f"trainer.{name}", value, at_least=0)
    if isinstance(caps := config["data"].get("cap"), dict):
        for name, most in caps.items():
            check_number(f"data.cap.{name}", most, at_least=1, whole=True)


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Refuse settings with which nothing would be trained, scored or kept."""
    if trainer.get("max_epochs") in (None, -1) and trainer.get("max_steps", -1) == -1:
        raise ValueError(
            "Set `trainer.max_epochs` or `trainer.max_steps`: the length of training is not known."
        )
    if trainer.get("fast_dev_run"):
        raise ValueError(
            "`trainer.fast_dev_run` is not supported: use trainer.max_steps for a short run."
        )
    for name in _AT_LEAST_ONCE:
        if trainer.get(name) == 0:
            raise ValueError(
                f"`trainer.{name}` is 0, but a run needs training and validation batches."
            )
    if (clip := trainer.get("gradient_clip_val")) is not None:
        check_number("trainer.gradient_clip_val", clip, at_least=0)
    time = trainer.get("max_time")
    if not (time is None or isinstance(time, str | dict)):
        raise ValueError(
            "`trainer.max_time` must be days, hours, minutes and seconds, as by "
            f"trainer.max_time='00:12:00:00', but is {time}."
        )
    precision = trainer.get("precision")
    # One that is chosen by the device is one of them.
    if not isinstance(precision, dict) and precision not in (None, *_PRECISIONS):
        raise ValueError(
            f"`trainer.precision` must be one of {', '.join(_PRECISIONS)}, which hold weights in "
            f"single precision, but is {precision}."
        )


def check_places(config: Mapping[str, Any]) -> None:
    """Refuse folders that are named and do not exist, or do not hold what they must."""
    if (path := config["encoder"].get("path")) is not None:
        encoder_source(str(path))
    runs = {"distillation.teacher": config["distillation"].get("teacher")}
    runs["pruner.mask.run"] = (config["pruner"].get("mask") or {}).get("run")
    for key, found in runs.items():
        for run in found.values() if isinstance(found, dict) else [found]:
            folder = f"`{key}` must be the folder of a finished run or of an exported model, but "
            if not isinstance(run, str | None):
                raise ValueError(f"{folder}is {run!r}.")
            if run is not None and not Path(run).expanduser().exists():
                raise FileNotFoundError(f"{folder}{run} does not exist.")
    if (root := config["data"].get("mirror")) is not None:
        if not isinstance(root, str):
            raise ValueError(f"`data.mirror` must be a folder, but is {root!r}.")
        for below in _mirrored([config["task"], config["retrieval"]]):
            mirrored_folder(Path(root), below)


def _mirrored(node: Any) -> Iterator[str]:
    """Yield the folders below ``data.mirror`` that sources read."""
    if isinstance(node, dict):
        if node.get("_target_") == "multiprune.data.source.HubSource" and node.get("mirror"):
            yield node["mirror"]
        node = list(node.values())
    if isinstance(node, list):
        for one in node:
            yield from _mirrored(one)


def _missing(node: Any, key: str = "") -> Iterator[str]:
    """Yield the keys of values that are left open."""
    if node == "???":
        yield key
    elif isinstance(node, dict):
        for name, value in node.items():
            yield from _missing(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for position, value in enumerate(node):
            yield from _missing(value, f"{key}[{position}]")
