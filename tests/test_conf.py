from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import wandb
from application import ROOT, composed, save_untrained
from hydra.errors import ConfigCompositionException
from hydra.utils import get_class, get_method, instantiate
from omegaconf import OmegaConf
from transformers import BertConfig, BertModel
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from multiprune.config import plain, register
from multiprune.models.encoder import Encoder
from multiprune.models.from_scratch import character_tokenizer
from multiprune.pruning.groups import Groups
from multiprune.pruning.pruner import Pruner
from multiprune.pruning.schedule import Schedule
from multiprune.specialize.application import studied
from multiprune.tasks.task import Task
from multiprune.training.distillation import LogitDistillation
from multiprune.training.objective import Objective

if TYPE_CHECKING:
    from pathlib import Path


CONF = ROOT / "conf"
WANDB_SWEEPS = sorted((ROOT / "sweep").glob("*.wandb.yaml"))


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


ALL_FILES = sorted(
    str(file.relative_to(CONF).with_suffix(""))
    for file in CONF.rglob("*.yaml")
    if file.parent != CONF
)


ONLY_THE_USER_KNOWS = {
    "budget.count", "encoder.path", "distillation.teacher", "data.language",
}  # fmt: skip


#: What has a group that the default choices have not.
CHOSEN_WITH = {"pruner/by_task": "pruner=movement"}


def test_every_group_has_options() -> None:
    assert len(ALL_FILES) >= 45
    for group in (
        "task", "encoder", "data", "data/mixing", "budget", "pruner", "pruner/groups",
        "pruner/by_task", "schedule",
        "optimizer", "distillation", "trainer", "logger", "experiment",
        "setting", "recipe",
    ):  # fmt: skip
        assert options(group), group


def test_specialists_need_nothing_but_a_run() -> None:
    config = composed(config_name="specialize")
    assert OmegaConf.missing_keys(config) == {"run"}
    assert callable(get_method(config.application))
    with pytest.raises(FileNotFoundError, match="nowhere must be the folder of a finished run"):
        studied(plain(composed("run=nowhere", config_name="specialize")))


@pytest.mark.parametrize("option", ALL_FILES)
def test_every_option_composes(option: str) -> None:
    group, _, name = option.rpartition("/")
    config = composed(f"{group}={name}", *filter(None, [CHOSEN_WITH.get(group)]))
    assert not OmegaConf.missing_keys(config) - ONLY_THE_USER_KNOWS


@pytest.mark.parametrize("name", options("task"))
def test_every_task_instantiates(name: str) -> None:
    config = composed(f"task={name}").task
    for one in config.values():
        if one.get("labels", ()) is None:
            # They are read from the data.
            one.labels = ["one", "other"]
    tasks = instantiate(config, _convert_="all")
    assert tasks
    for task in tasks.values():
        assert isinstance(task, Task)
        assert task.read_by(character_tokenizer()).output.description["kind"]
        assert task.score_name in task.metrics


def test_a_task_file_names_its_task() -> None:
    suites = {"demo", "glue", "glue_core", "english", "xtreme", "biomed"}
    singles = [name for name in options("task") if name not in suites]
    assert singles
    for name in singles:
        assert list(OmegaConf.load(CONF / "task" / f"{name}.yaml")) == [name]


@pytest.mark.parametrize("name", options("encoder"))
def test_every_encoder_instantiates(name: str, tmp_path: Path) -> None:
    config = composed(f"encoder={name}")
    if "path" in config.encoder.keys():  # noqa: SIM118 - one that is missing is a key, but not in it
        # The hub cannot be reached from a test; a folder goes the same way.
        small = BertConfig(
            vocab_size=200,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
        BertModel(small).save_pretrained(tmp_path)
        character_tokenizer().save_pretrained(tmp_path)
        config.encoder.path = str(tmp_path)
    encoder = instantiate(config.encoder)
    assert isinstance(encoder, Encoder)
    assert encoder.model.training


def test_another_encoder_has_the_learning_rates_of_the_optimizer_not_those_of_the_embedded() -> (
    None
):
    # Its own file names no learning rates, so that they are those of the optimizer's.
    theirs, other = composed("encoder=minilm").optimizer, composed("encoder.path=some/model")
    assert other.optimizer == theirs
    assert other.encoder == composed("encoder=minilm", "encoder.path=some/model").encoder
    ours = composed().optimizer
    assert (ours.learning_rate, ours.head_learning_rate) == (1e-3, 1e-3)
    asked = composed("encoder.path=some/model", "optimizer.learning_rate=7e-4").optimizer
    assert (asked.learning_rate, asked.head_learning_rate) == (7e-4, theirs.head_learning_rate)


@pytest.mark.parametrize(
    ("name", "budget"),
    [(one, "fraction") for one in options("pruner")]
    + [("magnitude", one) for one in options("budget") if one != "fraction"],
)
def test_every_pruner_takes_a_budget_and_every_budget_is_taken(
    name: str, budget: str, tmp_path: Path
) -> None:
    overrides = [f"pruner={name}", f"budget={budget}"]
    config = composed(*overrides, *(["budget.count=10"] if budget == "count" else []))
    if "mask" in config.pruner:
        config.pruner.mask.run = str(save_untrained(tmp_path))
    pruner = instantiate(config.pruner, _partial_=True)(budget=instantiate(config.budget))
    assert isinstance(pruner, Pruner)


def test_notes_of_a_finished_run_are_not_written_again(tmp_path: Path) -> None:
    register()
    folders: Any = OmegaConf.load(CONF / "folders.yaml")
    folders.hydra.runtime = {"output_dir": str(tmp_path)}
    assert folders.hydra.output_subdir == ".hydra"
    (tmp_path / "results.json").touch()
    assert folders.hydra.output_subdir is None


@pytest.mark.parametrize("name", options("distillation"))
def test_every_distillation_instantiates(name: str) -> None:
    config = composed(f"distillation={name}")
    names_teacher = "teacher" in [*config.distillation]
    assert names_teacher == (name not in ("none", "self"))
    if names_teacher:
        config.distillation.teacher = {"rte": "one", "sst2": "another"}
    distillation = instantiate(config.distillation, _convert_="all")
    assert isinstance(distillation, Objective)
    if names_teacher:
        assert isinstance(distillation, LogitDistillation)
        assert distillation.teacher == {"rte": "one", "sst2": "another"}


@pytest.mark.parametrize("name", options("pruner/groups"))
@pytest.mark.parametrize("pruner", ["magnitude", "movement", "platon"])
def test_every_kind_of_groups_reaches_the_pruner(pruner: str, name: str) -> None:
    config = composed(f"pruner={pruner}", f"pruner/groups={name}")
    # As ``assembly.py`` does it.
    method = instantiate(config.pruner, _partial_=True, _convert_="all")
    groups = method(budget=instantiate(config.budget)).groups
    assert isinstance(groups, Groups)
    assert type(groups) is get_class(config.pruner.groups._target_)


@pytest.mark.parametrize("name", options("pruner/by_task"))
@pytest.mark.parametrize(
    "pruner",
    [
        *("fisher", "movement", "frozen_movement", "platon", "low_rank_gradual", "attribution"),
        *("structured", "structured_gradient", "dynamic_sparsification"),
    ],
)
def test_tasks_are_kept_apart_by_every_pruner_that_reads_gradients(pruner: str, name: str) -> None:
    config = composed(f"pruner={pruner}", f"pruner/by_task={name}")
    method = instantiate(config.pruner, _partial_=True, _convert_="all")
    by_task = method(budget=instantiate(config.budget)).by_task
    assert type(by_task) is get_class(config.pruner.by_task._target_)


def test_size_and_pattern_of_groups_are_set_on_the_command_line() -> None:
    config = composed("pruner/groups=blocks", "pruner.groups.size=8")
    assert instantiate(config.pruner.groups).size == 8
    config = composed("pruner.groups.m=8", "pruner/groups=n_of_m", "pruner.groups.n=1")
    groups = instantiate(config.pruner.groups)
    assert (groups.n, groups.m) == (1, 8)


@pytest.mark.parametrize("name", options("schedule"))
def test_every_schedule_goes_from_nothing_to_everything(name: str) -> None:
    schedule = instantiate(composed(f"schedule={name}").schedule)
    assert isinstance(schedule, Schedule)
    assert schedule(0.0) == 0.0
    assert schedule(1.0) == 1.0


@pytest.mark.parametrize("name", options("data/mixing"))
def test_every_mixing_gives_probabilities(name: str) -> None:
    weights = ["data.mixing.weights={a: 1, b: 3}"] if name == "fixed" else []
    mixing = instantiate(composed(f"data/mixing={name}", *weights).data.mixing, _convert_="all")
    assert sum(mixing.probabilities({"a": 10, "b": 30}).values()) == pytest.approx(1)


def test_setting_per_language_asks_for_the_language_and_the_shared_one_has_none() -> None:
    for choice in ([], ["setting=shared"]):
        assert "language" not in composed("task=panx", *choice).data
        with pytest.raises(ConfigCompositionException, match="language"):
            composed("task=panx", "data.language=de", *choice)
    asked = composed("task=panx", "setting=per_language")
    assert OmegaConf.missing_keys(asked) == {"data.language"}
    assert composed("task=panx", "setting=per_language", "data.language=de").data.language == "de"


@pytest.mark.parametrize("name", options("optimizer"))
def test_every_optimizer_builds(name: str) -> None:
    recipe = instantiate(composed(f"optimizer={name}").optimizer)
    optimizer, schedule = recipe.build(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), 10)
    assert schedule.optimizer is optimizer
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


@pytest.mark.parametrize("name", options("trainer"))
def test_every_trainer_instantiates(name: str, tmp_path: Path) -> None:
    config = composed(f"trainer={name}").trainer
    if name == "gpu" and not torch.cuda.is_available():
        config.accelerator = "cpu"
    if name == "ddp":
        config.accelerator = "cpu"
    trainer = instantiate(config, default_root_dir=str(tmp_path), logger=False)
    assert trainer.max_epochs == config.max_epochs


@pytest.mark.parametrize("name", options("logger"))
def test_every_logger_instantiates(name: str, tmp_path: Path) -> None:
    store = [f"logger.mlflow.store={tmp_path}"] if name == "mlflow" else []
    config = composed(f"logger={name}", *store, folder=tmp_path)
    if name == "mlflow":
        pytest.importorskip("mlflow", reason="MLflow is large, and an extra of its own")
    (logger,) = instantiate(config.logger).values()
    logger.log_metrics({"loss": 1.0}, step=3)
    logger.save()
    logger.finalize("success")
    wandb.finish()
    assert any(tmp_path.rglob("*"))


def test_loggers_combine(tmp_path: Path) -> None:
    config = composed("logger=[csv,tensorboard]", folder=tmp_path)
    assert set(config.logger) == {"csv", "tensorboard"}


def test_there_are_sweeps() -> None:
    assert set((ROOT / "sweep").glob("*.yaml")) > set(WANDB_SWEEPS) > set()


@pytest.mark.parametrize("file", WANDB_SWEEPS, ids=lambda file: file.stem)
def test_every_sweep_of_wandb_names_only_known_keys(file: Path) -> None:
    # As W&B's agent makes the command of a run, from what the server gives it.
    sweep: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    assert (ROOT / sweep["program"]).is_file()
    assert "${args_no_hyphens}" in sweep["command"]
    fixed = [one for one in sweep["command"] if "=" in one and not one.startswith("hydra.")]
    for key, parameter in sweep["parameters"].items():
        for value in parameter["values"]:
            given = {"args": {key: {"value": value}}}
            arguments = create_sweep_command_args(given)["args_no_hyphens"]
            config = composed(*fixed, *arguments)
            assert "wandb" in config.logger
            assert "." not in key or OmegaConf.select(config, key) == value


@pytest.mark.parametrize("key", ["colour=red", "pruner.colour=red", "data.mixing.colour=red"])
def test_unknown_keys_are_refused_at_any_depth(key: str) -> None:
    with pytest.raises(ConfigCompositionException, match="colour"):
        composed(key)


def test_an_experiment_wins_over_the_files_it_overlays() -> None:
    config = composed("experiment=glue_core_minilm")
    assert config.optimizer.learning_rate == 1e-4
    assert set(config.task) == {"cola", "sst2", "mrpc", "stsb", "rte"}


@pytest.mark.parametrize(
    ("recipe", "where"),
    [("strong", "schedule.start=0.25"), ("strong_at_once", "schedule.at=0.25")],
)
def test_a_recipe_rewinds_where_its_schedule_starts(recipe: str, where: str) -> None:
    config = composed(f"recipe={recipe}", where, "experiment=glue_core_minilm")
    assert config.optimizer.rewinds == [0.25]
    assert instantiate(config.schedule).start == 0.25
    assert config.distillation._target_.endswith(".SelfDistillation")
    assert config.optimizer.learning_rate == 1e-4


def test_the_command_line_wins_over_an_experiment() -> None:
    config = composed("experiment=glue_core_minilm", "optimizer.learning_rate=0.5", "task=rte")
    assert config.optimizer.learning_rate == 0.5
    assert set(config.task) == {"rte"}
