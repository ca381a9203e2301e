"""The root of the configuration, whose schema refuses misspelt keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf

from multiprune.job_name import job_name
from multiprune.models.location import EMBEDDED
from multiprune.runs.folder import has_results

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class Checkpoint:
    """How often a run writes the checkpoint that it can be resumed from."""

    every_n_steps: Any = 500


@dataclass
class Train:
    """One run. Groups hold ``_target_`` and the keywords of its constructor.

    Numbers have no type here: ``checks`` says more plainly what is none.

    Attributes:
        task: tasks by name.
        encoder: the encoder and its tokenizer.
        data: the data module.
        budget: how much may stay.
        pruner: what stays.
        schedule: when the rest goes.
        rank_every_n_steps: how often the pruner ranks anew, in optimizer steps.
        optimizer: of the weights.
        compile: backend of ``torch.compile`` that runs the encoder, as inductor; null is none.
        distillation: what is learned from a teacher, beside the labels.
        trainer: the Lightning Trainer.
        logger: one logger or several, by name.
        checkpoint: what a run is resumed from.
        retrieval: what the encoder is evaluated on beside the tasks, by name; null is nothing.
        give_up: when a job of a sweep ends itself; null is never.
        seed: of everything random.
    """

    task: Any = MISSING
    encoder: Any = MISSING
    data: Any = MISSING
    budget: Any = MISSING
    pruner: Any = MISSING
    schedule: Any = MISSING
    rank_every_n_steps: Any = 10
    optimizer: Any = MISSING
    compile: str | None = None
    distillation: Any = MISSING
    trainer: Any = MISSING
    logger: Any = MISSING
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    retrieval: Any = None
    give_up: Any = None
    seed: Any = 0


#: In the ``defaults`` of a file ``any_key@NODE``: keys of that node are names that a user gives, so
#: that Hydra adds one to it, or to what is below it, without ``+``.
ANY_KEY = DictConfig({}, flags={"struct": False})


def register() -> None:
    """Make known to Hydra the schema, what a command has too, and what is written ``${name:…}``."""
    ConfigStore.instance().store(name="schema", node=Train)
    ConfigStore.instance().store(name="any_key", node=ANY_KEY)
    recipe = Path(__file__).parent / "specialize" / "conf" / "recipe.yaml"
    ConfigStore.instance().store(
        group="specialize", name="recipe", node=OmegaConf.load(recipe), package="_global_"
    )
    OmegaConf.register_new_resolver("if_embedded", _if_embedded, replace=True)
    OmegaConf.register_new_resolver("job_name", _job_name, replace=True)
    OmegaConf.register_new_resolver("unless_finished", _unless_finished, replace=True)


def _if_embedded(ours: Any, other: Any, *, _root_: DictConfig) -> Any:
    """Choose by the encoder: that of this package, or another that ``encoder.path`` names."""
    return ours if OmegaConf.select(_root_, "encoder.path") == EMBEDDED else other


def _job_name(*, _root_: DictConfig) -> str:
    hydra = _root_.hydra
    return job_name([*hydra.overrides.task], [*hydra.job.config.override_dirname.exclude_keys])


def _unless_finished(folder: str, name: str) -> str | None:
    """Return ``name``, but nothing for a folder with results: who reads them reads its notes."""
    return None if has_results(Path(folder)) else name


def plain(config: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration as plain dictionaries and lists.

    Done once, when a run begins: what follows reads this.
    """
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def built(config: Mapping[str, Any], key: str, **options: Any) -> Any:
    """Return what Hydra makes of a part of a plain configuration; what it refuses names the key.

    Raises:
        HydraException: if that cannot be made.
    """
    root = key.partition(".")[0]
    return instantiate(OmegaConf.select(OmegaConf.create({root: config[root]}), key), **options)
