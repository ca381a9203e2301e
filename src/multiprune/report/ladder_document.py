"""A model of many sizes beside separate ones, as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from multiprune.report.findings.ladder_pairs import seconds_of

if TYPE_CHECKING:
    from multiprune.report.findings.ladder_pairs import Separate, SizePair
    from multiprune.report.findings.ladders import ManySizes


def ladder_document(one: ManySizes) -> dict[str, Any]:
    """Return what is known of one model of many sizes."""
    return {
        "method": one.model.method,
        "split": one.split,
        "tasks": list(one.tasks),
        "wall_seconds": seconds_of(one.model),
        "wall_seconds_dense": None if one.dense is None else seconds_of(one.dense),
        "sizes": [
            {"kept": point.parameters, "score": asdict(point.mean)}
            | {"scores": {task: asdict(point.score(task)) for task in one.tasks}}
            for point in one.points
        ],
        "separate": [_separate(each) for each in one.separate],
    }


def _separate(separate: Separate) -> dict[str, Any]:
    return {
        "method": separate.method,
        "ratio": separate.ratio,
        "wall_seconds": separate.seconds,
        "pairs": [_pair(one) for one in separate.pairs],
    }


def _pair(pair: SizePair) -> dict[str, Any]:
    return {
        "kept": pair.point.parameters,
        "kept_separate": pair.separate.contender.parameters,
        "seeds": list(pair.seeds),
        "score": asdict(pair.of_point),
        "score_separate": asdict(pair.of_separate),
        "ratio": pair.ratio,
    }
