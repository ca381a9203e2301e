"""``python train.py -cn specialize``: a study of specialists, as Hydra composes it."""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.core.hydra_config import HydraConfig

from multiprune.arguments import check_number
from multiprune.budget.budget import FractionBudget
from multiprune.config import plain
from multiprune.outcome import ended_by_sigterm, is_job, refusal, reported
from multiprune.quiet import quiet_libraries
from multiprune.redact import redacted
from multiprune.report.specialists.files import SPECIALISTS
from multiprune.runs.settings import difference
from multiprune.runs.status import StatusFile
from multiprune.specialize.calibration_set import Draw
from multiprune.specialize.methods import Choice
from multiprune.specialize.specialist import Recipe
from multiprune.specialize.study import Plan, study, write_study

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omegaconf import DictConfig

log = logging.getLogger(__name__)

Options = TypeVar("Options", Choice, Draw)


def run(config: DictConfig) -> float:
    """Measure what ``config`` describes; return the mean score over tasks and sizes.

    Writes ``specialists.json`` into Hydra's output folder. A job of a sweep that has done so, with
    the same configuration, is not run again.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    settings = plain(config)
    found = _found_before(folder, settings) if is_job() else None
    if found is None:
        found = _measured(folder, settings)
    else:
        log.info("%s is finished already.", folder)
    scores = [next(iter(one["metrics"].values())) for one in found["specialists"]]
    return float(sum(scores) / len(scores))


def _measured(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    quiet_libraries()
    status = StatusFile(folder)
    with reported(status), ended_by_sigterm():
        status.begin()
        try:
            plan = planned(settings)
            found = study(plan, progress=lambda done, of: status.update(step=done, total_steps=of))
        except (ValueError, FileNotFoundError) as error:
            raise refusal(error) from error
        write_study(folder, found | {"config": redacted(settings)})
        status.end("finished")
    log.info("%d specialists in %.0f s: %s", len(found["specialists"]), found["seconds"], folder)
    return found


def planned(settings: dict[str, Any]) -> Plan:
    """Return what a configuration describes.

    Raises:
        ValueError: if a setting is wrong.
    """
    if settings["run"] == "???":
        raise ValueError("Specialists are cut out of a finished run, but `run` names none.")
    densities = settings["densities"]
    if not isinstance(densities, list):
        raise ValueError(f"`densities` must be a list of numbers, but is {densities!r}.")
    for position, density in enumerate(densities):
        check_number(f"densities[{position}]", density, above=0, at_most=1)
    return Plan(
        run=Path(settings["run"]),
        tasks=settings["tasks"],
        densities=densities,
        recipe=Recipe(
            budget=FractionBudget(fraction=1.0, of=settings["of"]),
            method=settings["method"],
            choice=_from(Choice, settings),
            granularity=settings["granularity"],
            relative=settings["relative"],
            repair=settings["repair"],
        ),
        draw=_from(Draw, settings),
        unseen=settings["unseen"],
        others=settings["others"],
        validation_rows=settings["validation_rows"],
        mirror=settings["mirror"],
        allow_targets=settings["allow_targets"],
    )


def _from(kind: type[Options], settings: Mapping[str, Any]) -> Options:
    """Return a dataclass whose fields are settings of the same names."""
    return kind(**{one.name: settings[one.name] for one in fields(kind)})


def _found_before(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    if not (folder / SPECIALISTS).exists():
        return None
    found: dict[str, Any] = json.loads((folder / SPECIALISTS).read_bytes())
    return found if difference(found.get("config", {}), settings) is None else None
