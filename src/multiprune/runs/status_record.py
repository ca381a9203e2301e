"""The schema of ``status.json``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, NotRequired

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

State = Literal["waiting", "running", "finished", "failed", "interrupted", "given up", "lost"]


def _with_zone(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("must have a time zone")
    return text


Time = Annotated[str, AfterValidator(_with_zone)]
Steps = Annotated[int, Field(ge=0, lt=2**63)]


class StatusRecord(TypedDict):
    """What ``Status`` holds, as JSON."""

    state: NotRequired[State]
    reason: NotRequired[str]
    step: NotRequired[Steps]
    total_steps: NotRequired[Steps | None]
    density: NotRequired[float | None]
    score: NotRequired[float | None]
    seconds_per_step: NotRequired[Annotated[float, Field(ge=0, lt=1e9)] | None]
    started: Time
    updated: Time
    # What the system's calls take.
    pid: Annotated[int, Field(ge=0, lt=2**31)]
    host: str
