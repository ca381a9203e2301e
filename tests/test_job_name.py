"""Names of jobs: what varies, short, and safe for a shell and for Hydra."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from multiprune.job_name import job_name, short_keys
from multiprune.launching.names import JobNames


def test_a_job_is_called_after_what_varies_by_short_keys_in_their_order() -> None:
    jobs = ["pruner=magnitude", "seed=0", "budget.fraction=0.5"]
    assert job_name(jobs, []) == "fraction-0.5_pruner-magnitude_seed-0"
    assert job_name([*reversed(jobs)], []) == job_name(jobs, [])
    assert job_name(["task=[rte,mrpc]", "+data.cap.each=5"], []) == "each-5_task-rte+mrpc"
    assert short_keys(["a.start", "b.start", "c.stop"]) == ["a.start", "b.start", "stop"]


@pytest.mark.parametrize(
    "override",
    [
        "task=[rte, mrpc]",
        "task.rte.template='{sentence1} So {sentence2}?'",
        "encoder.path=runs/a b/$HOME",
        'data.cap={a: 1, "b": 2}',
        "pruner.name=über;rm",
        "pruner.name=" + "x" * 500,
    ],
)
def test_names_are_safe_in_a_shell_and_in_an_override_and_tell_values_apart(override: str) -> None:
    name = job_name([override, "seed=0"], [])
    assert shlex.quote(name) == name
    assert len(name) < 150
    parsed = OverridesParser.create().parse_override(f"encoder.path=runs/{name}")
    assert parsed.value() == f"runs/{name}"
    assert not re.search(r"[\s\[\]{}'\"$;,=]", name)
    assert name != job_name([f"{override}!", "seed=0"], [])


def test_what_all_jobs_share_is_four_digits_unless_it_is_incidental() -> None:
    def named(*shared: str) -> str:
        return job_name(["seed=1", *shared], [one.partition("=")[0] for one in shared])

    assert named() == named("data.mirror=there", "logger=[csv,wandb]") == "seed-1"
    assert re.fullmatch(r"seed-1_[0-9a-f]{4}", named("trainer=cpu"))
    assert named("trainer=cpu") != named("trainer=gpu")
    assert named("trainer=cpu", "labels=a") == named("labels=a", "trainer=cpu", "data.mirror=x")


def test_keys_of_the_sweeps_file_and_of_lists_vary() -> None:
    given: dict[str, Any] = {
        "overrides": {"hydra": [], "task": ["pruner=none", "+a.b=1,2", "+task@x=[c,d]", "~c"]},
        "sweeper": {"params": {"pruner": "magnitude,movement"}},
        "job": {"config": {"override_dirname": {"exclude_keys": ["mirror"]}}},
    }
    config = OmegaConf.create({"hydra": given})
    OmegaConf.set_readonly(config, True)
    JobNames().on_multirun_start(config)
    (added,) = config.hydra.overrides.hydra
    parsed = OverridesParser.create().parse_override(added)
    assert parsed.key_or_group == "hydra.job.config.override_dirname.exclude_keys"
    assert parsed.value() == ["mirror", "task@x", "c"]
