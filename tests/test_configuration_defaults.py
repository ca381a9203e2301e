"""What stands in ``conf``: every keyword that a user may set, with the constructor's default."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import pytest
from application import composed
from hydra.errors import ConfigCompositionException
from hydra.utils import get_object
from omegaconf import OmegaConf
from test_conf import CONF, options

from multiprune.config import plain
from multiprune.config_errors import composition_sentence
from multiprune.job_name import job_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GROUPS = (
    "budget", "data", "data/mixing", "distillation", "encoder", "give_up", "logger", "optimizer",
    "pruner", "pruner/groups", "pruner/by_task", "schedule", "trainer",
)  # fmt: skip

#: Keywords that stand in no file, by class, and why.
LEFT_OUT = {
    "MultitaskDataModule": {
        **dict.fromkeys(("tasks", "tokenizer", "seed"), "the run passes them"),
        "language": "setting=per_language has it, and asks for it",
    },
    "Trainer": {
        **dict.fromkeys(("logger", "callbacks", "default_root_dir"), "the run passes them"),
        **dict.fromkeys(
            ("fast_dev_run", "barebones", "enable_checkpointing", "overfit_batches"),
            "a run must be trained on its data, and leave its files",
        ),
        **dict.fromkeys(
            (
                "limit_predict_batches", "inference_mode", "plugins", "sync_batchnorm",
                "reload_dataloaders_every_n_epochs", "enable_autolog_hparams", "model_registry",
            ),
            "a run has no use for it",
        ),
    },
    "ActivationGradient": dict.fromkeys(("tokens", "sites"), "functions"),
    "SoftMovement": {"groups": "only single weights are taken"},
}  # fmt: skip

#: The same of single files.
LEFT_OUT_OF_FILES = {
    "encoder/t5_small": {"head_dropout": "a text-to-text model has no heads"},
    "pruner/structured_magnitude": {"by_task": "only for importance that reads gradients"},
    "pruner/structured_random": {"by_task": "only for importance that reads gradients"},
}

#: Values that deliberately differ from the constructor's.
DIFFERING = {
    "MultitaskDataModule": {"cap": "a mapping to add names to, as good as None"},
    "Trainer": dict.fromkeys(
        (
            "devices", "precision", "max_epochs", "gradient_clip_val", "log_every_n_steps",
            "use_distributed_sampler", "num_sanity_val_steps", "enable_model_summary",
            "accumulate_grad_batches", "max_steps", "accelerator", "strategy",
        ),
        "conf/trainer has those of a run",
    ),
    "AttributionPruner": {"relative": "measures better, as the file says"},
}  # fmt: skip


def constructed(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the nodes that name a class or function."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from constructed(value)
    elif isinstance(node, list):
        for value in node:
            yield from constructed(value)


def of_option(group: str, name: str) -> list[dict[str, Any]]:
    """Return what an option constructs."""
    above = ["pruner=movement"] if group.startswith("pruner/") else []
    config = composed(*above, f"{group}={name}")
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, "given")
    node = OmegaConf.select(config, group.replace("/", "."))
    return [*constructed(OmegaConf.to_container(node, resolve=True))]


def keywords(target: str) -> Mapping[str, Any]:
    """Return the keywords of a constructor with their defaults, as JSON has them."""
    made = get_object(target)
    found = {
        name: one.default
        for name, one in inspect.signature(made).parameters.items()
        if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    }
    if is_dataclass(made):
        factories = {one.name: one.default_factory for one in fields(made)}
        found |= {name: make() for name, make in factories.items() if make is not MISSING}
    return found


CASES = [(group, name) for group in GROUPS for name in options(group)]


@pytest.mark.parametrize(("group", "name"), CASES, ids=["/".join(one) for one in CASES])
def test_a_file_has_every_keyword_with_its_default(group: str, name: str) -> None:
    nodes = of_option(group, name)
    assert nodes
    for node in nodes:
        target = node["_target_"]
        if target.startswith("hydra."):
            continue
        kind = target.rpartition(".")[2]
        left_out = {"budget"} if group.startswith("pruner") else set()
        left_out |= {*LEFT_OUT.get(kind, ()), *LEFT_OUT_OF_FILES.get(f"{group}/{name}", ())}
        known = keywords(target)
        assert not known.keys() - node.keys() - left_out, target
        assert not node.keys() - known.keys() - {"_target_", "_partial_"}, target
        for key, default in known.items():
            if default is inspect.Parameter.empty or key not in node:
                continue
            if key in DIFFERING.get(kind, ()):
                continue
            assert node[key] == json.loads(json.dumps(default)), f"{target}: {key}"


def test_what_is_left_out_is_a_keyword_that_is_not_there() -> None:
    built = [node for group, name in CASES for node in of_option(group, name)]
    for kind, left_out in LEFT_OUT.items():
        nodes = [one for one in built if one["_target_"].endswith(f".{kind}")]
        assert nodes
        for node in nodes:
            assert {*left_out} <= keywords(node["_target_"]).keys() - node.keys()


def test_keywords_of_tasks_are_described_in_the_example() -> None:
    text = (CONF / "task" / "example.yaml").read_text()
    for name in ("rte", "roles", "panx", "squad", "hoc", "stsb"):
        config: Any = OmegaConf.to_container(OmegaConf.load(CONF / "task" / f"{name}.yaml"))
        (task,) = config.values()
        for key in keywords(task["_target_"]).keys() - {"longest_question"} - task.keys():
            assert re.search(rf"\b{key}\b", text), f"{task['_target_']}: {key}"


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("data.cap.rte=5", "rte-5"),
        ("data.cap.each=5", "each-5"),
        ("task.rte.template=text", "template-text"),
        ("task.rte.metrics.auroc={_target_: multiprune.metrics.AUROC}", None),
        ("task.mine={_target_: mine.Task}", None),
    ],
)
def test_names_are_added_as_they_were_with_a_plus(override: str, name: str | None) -> None:
    config = composed("task=rte", override)
    assert plain(config) == plain(composed("task=rte", f"+{override}"))
    assert plain(config) != plain(composed("task=rte"))
    assert job_name([override], []) == job_name([f"+{override}"], [])
    assert name in (None, job_name([override], []))


@pytest.mark.parametrize("override", ["data.caps.rte=5", "data.mixing.rte=5", "pruner.rte=5"])
def test_elsewhere_a_name_that_is_not_there_is_refused(override: str) -> None:
    with pytest.raises(ConfigCompositionException, match="Could not override"):
        composed("task=rte", override)


def test_help_names_every_group() -> None:
    help_of_train: Any = OmegaConf.to_container(OmegaConf.load(CONF / "hydra/help/train.yaml"))
    template = help_of_train["template"]
    named = re.findall(r"^  ([a-z_/]+) {2,}\S", template, re.M)
    groups = {str(one.parent.relative_to(CONF)) for one in CONF.rglob("*/*.yaml")}
    assert sorted(named) == sorted(groups - {"hydra/help"} | {"specialize"})
    examples = re.findall(r"^python train.py ?(.*?)(?: {2,}#.*)?$", template, re.M)
    assert len(examples) == 5
    for words in map(str.split, examples):
        for one in words:
            if "/" not in one and "=" in one and "." not in one:
                group, _, chosen = one.partition("=")
                assert group == "seed" or {*chosen.strip("[]").split(",")} <= {*options(group)}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("+data.share_texts=true", "There is a setting `data.share_texts` already: override it wi"),
        ("+pruner/groups=rows", "There is a group `pruner/groups` already: choose its option wit"),
    ],
)
def test_a_plus_too_many_and_a_group_of_another_are_named(override: str, sentence: str) -> None:
    with pytest.raises(ConfigCompositionException) as caught:
        composed(override)
    assert composition_sentence(caught.value, [override]).startswith(sentence)
