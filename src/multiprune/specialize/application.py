"""Run ``multiprune specialize`` and ``python train.py -cn specialize`` by their settings."""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from multiprune.budget.budget import CountBudget, FractionBudget
from multiprune.config import plain
from multiprune.config_errors import call_sentence, composition_sentence
from multiprune.outcome import ended_by_sigterm, is_job, refusal, reported
from multiprune.quiet import quiet_libraries
from multiprune.redact import redacted
from multiprune.runs.settings import difference
from multiprune.runs.specialist_file import SPECIALISTS
from multiprune.runs.status import StatusFile
from multiprune.specialize import CONF
from multiprune.specialize.classifier import specialize_classifier
from multiprune.specialize.recipe import Recipe
from multiprune.specialize.request import Request
from multiprune.specialize.specialize import specialize
from multiprune.specialize.study import study, write_study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from omegaconf import DictConfig

    from multiprune.budget import Budget
    from multiprune.specialize.specialize import Outcome

log = logging.getLogger(__name__)

KindT = TypeVar("KindT", Recipe, Request)


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
            found = studied(
                settings, progress=lambda done, of: status.update(step=done, total_steps=of)
            )
        except (ValueError, TypeError, FileNotFoundError) as error:
            raise refusal(error) from error
        write_study(folder, found | {"config": redacted(settings)})
        status.end("finished")
    log.info("%d specialists in %.0f s: %s", len(found["specialists"]), found["seconds"], folder)
    return found


def studied(
    settings: Mapping[str, Any], *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Return what the study finds that a configuration describes.

    Raises:
        ValueError, TypeError: if a setting is wrong, or there is no such setting.
    """
    if settings["run"] == "???":
        raise ValueError("Set `run` to the finished run to extract specialists from.")
    left = _read({**settings, "budget": {"fraction": 1.0, **settings["budget"]}})
    del left["application"]
    request, recipe = _taken(Request, left), _taken(Recipe, left)
    return study(request, recipe, **left, progress=progress)


def composed(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a file in ``conf``, changed by overrides as ``train.py`` takes them.

    Raises:
        ValueError: if there is no such setting, one is left open, or an override is no such thing.
    """
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(name, list(overrides))
        missing = sorted(OmegaConf.missing_keys(config))
        settings = plain(config)
    except (HydraException, OmegaConfBaseException) as error:
        # What is added is no setting either.
        said = composition_sentence(error, overrides).partition(", or add it by +")[0]
        raise ValueError(f"{said.removesuffix('.')}.") from error
    if missing:
        names = ", ".join(f"`{one}`" for one in missing)
        raise ValueError(f"A {name} needs {names} as well: give it as in {missing[0]}=….")
    return settings


def made(
    place: str, settings: Mapping[str, Any], *, classifier: bool
) -> tuple[Recipe, Iterator[Outcome]]:
    """Return how a run or a classifier is cut, and what comes of it, one model after the other.

    Raises:
        ValueError: if a setting is wrong, or there is no such setting.
    """
    try:
        left = _read({**settings, "run": place})
        recipe = _taken(Recipe, left)
        if classifier:
            del left["run"]
            return recipe, iter([specialize_classifier(recipe, model=place, **left)])
        return recipe, specialize(_taken(Request, left), recipe, **left)
    except TypeError as error:
        raise ValueError(call_sentence(error, "")) from error


def _read(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with a budget in place of what describes it, and paths as such."""
    if not isinstance(size := settings["budget"], dict):
        raise ValueError(f"`budget` must be set as in budget.fraction=0.5, but is {size!r}.")
    paths = {
        name: Path(str(settings[name])).expanduser()
        for name in ("run", "data_of", "data", "validation", "out")
        if settings.get(name) is not None
    }
    return {**settings, **paths, "budget": budget(**size)}


def budget(*, of: str, fraction: float | None = None, count: int | None = None) -> Budget:
    """Return the budget that one of two numbers describes.

    Raises:
        ValueError: if neither or both are given, or it is out of range.
    """
    if (fraction is None) == (count is None):
        given = "neither is" if fraction is None else "both are"
        raise ValueError(f"Either `budget.fraction` or `budget.count` must be given, but {given}.")
    if fraction is None:
        assert count is not None
        return CountBudget(count, of=of)
    return FractionBudget(fraction, of=of)


def _taken(kind: type[KindT], settings: dict[str, Any]) -> KindT:
    """Return what settings of the names of its fields make, and take them out."""
    names = [one.name for one in fields(kind) if one.name in settings]
    return kind(**{name: settings.pop(name) for name in names})


def _found_before(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    if not (folder / SPECIALISTS).exists():
        return None
    found: dict[str, Any] = json.loads((folder / SPECIALISTS).read_bytes())
    return found if difference(found.get("config", {}), settings) is None else None
