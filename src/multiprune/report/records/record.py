"""The schema of ``results.json``: of what is read of it."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

Count = Annotated[int, Field(ge=0, lt=2**53)]
Seconds = Annotated[float, Field(ge=0, lt=1e12)]
Share = Annotated[float, Field(ge=0, le=1)]
Scores = dict[str, dict[str, float]]


class Task(TypedDict):
    """The configuration of a task."""

    metrics: dict[str, dict[str, Any]]
    languages: NotRequired[list[str] | None]
    train_languages: NotRequired[list[str] | None]
    loss_weight: NotRequired[float | None]


class EarlierTask(TypedDict):
    """That of an earlier run, whose scores are not compared."""

    metrics: NotRequired[dict[str, Any]]


class Data(TypedDict):
    """The configuration of data."""

    cap: NotRequired[dict[str, Count | None] | None]
    mixing: NotRequired[dict[str, Any] | None]
    language: NotRequired[str | None]


class Encoder(TypedDict):
    """The configuration of an encoder."""

    path: NotRequired[str | None]
    freeze_embeddings: NotRequired[bool | None]


class Pruner(TypedDict):
    """The configuration of a pruner."""

    _target_: str


class Config(TypedDict):
    """The composed configuration."""

    task: dict[str, Task]
    data: NotRequired[Data]
    encoder: Encoder
    budget: NotRequired[dict[str, Any]]
    pruner: Pruner


class EarlierConfig(TypedDict):
    """That of an earlier run."""

    task: dict[str, EarlierTask]
    encoder: NotRequired[Encoder]


class Budget(TypedDict):
    """What was counted."""

    of: str
    dense: Annotated[Count, Field(ge=1)]
    asked: Count
    kept: Count


class EarlierBudget(TypedDict):
    """That of an earlier run."""

    dense: Annotated[Count, Field(ge=1)]
    asked: Count
    kept: Count


class Part(TypedDict):
    """A row of the ledger."""

    part: str
    dense: Count
    kept: Count


class Earlier(TypedDict):
    """A run that the encoder has gone through before."""

    budget: EarlierBudget
    validation: Scores
    mask_sha256: str
    steps: Count
    seed: Count
    config: EarlierConfig


class ResultsRecord(TypedDict):
    """What is read of ``results.json``."""

    config: Config
    budget: Budget
    ledger: list[Part]
    validation: Scores
    test: Scores
    examples: NotRequired[dict[str, Count]]
    density: dict[str, Share]
    mask_sha256: str
    steps: Count
    wall_seconds: Seconds
    seed: Count
    lineage: NotRequired[list[Earlier]]
    metrics: NotRequired[dict[str, dict[str, dict[str, Any]]]]
