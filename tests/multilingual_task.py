"""A task in several languages, without data."""

from __future__ import annotations

from typing import Any

from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.tasks.classification import Classification


def task(**changes: Any) -> Classification:
    """Return a task of three languages with some of its settings changed."""
    arguments: dict[str, Any] = {
        "text": ["sentence"],
        "label": "label",
        "labels": ["bad", "good"],
        "metrics": {"accuracy": Accuracy()},
        "source": HubSource(path=None, mirror="nowhere"),
        "languages": ["en", "de", "sw"],
    }
    return Classification(**arguments | changes)
