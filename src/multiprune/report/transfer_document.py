"""Chains of runs, from pretraining to tasks, as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from multiprune.report.findings.difference import MEAN
from multiprune.report.records.frame import SPLITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.findings.contender import Statistic
    from multiprune.report.findings.transfer import Chain, Transfer


def transfer_document(found: Transfer) -> dict[str, Any]:
    """Return what is known of chains, and of each stage of pretraining."""
    return {
        "tasks": list(found.tasks),
        "chains": [_chain(one, found.tasks) for one in found.chains],
        "pretraining": [asdict(one) for one in found.pretraining],
        "unequal_steps": {name: list(counts) for name, counts in found.unequal.items()},
    }


def _chain(chain: Chain, tasks: Sequence[str]) -> dict[str, Any]:
    scores: dict[str, dict[str, Any]] = {}
    for split, score in SPLITS.items():
        found = {task: chain.served.score(task, score) for task in chain.served.runs}
        found[MEAN] = chain.mean(tasks, score)
        scores[split] = {name: _statistic(one) for name, one in found.items()}
    return {
        "label": chain.label,
        "method": chain.method,
        "multitask": chain.multitask,
        "kept": chain.served.parameters,
        "density": chain.density,
        "stages": [{"on": name, "steps": steps} for name, steps in chain.stages],
        "steps_of_tasks": list(chain.last_steps),
        "steps": chain.total_steps,
        **scores,
    }


def _statistic(value: Statistic | None) -> dict[str, Any] | None:
    return None if value is None else asdict(value)
