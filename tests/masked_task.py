"""Masked language modelling as the tests state it."""

from __future__ import annotations

from typing import Any

from multiprune.data.source import HubSource
from multiprune.tasks.masked_language import MaskedLanguage
from multiprune.tasks.metrics import perplexity, token_accuracy, token_loss
from multiprune.tasks.packing import across_texts


def masked_task(**changes: Any) -> MaskedLanguage:
    """Return a task that knows no tokenizer yet, and whose source has no rows."""
    arguments: dict[str, Any] = {
        "text": ["text"],
        "probability": 0.15,
        "packing": across_texts,
        "metrics": {"accuracy": token_accuracy, "perplexity": perplexity, "loss": token_loss},
        "source": HubSource(path=None, mirror="nowhere"),
    }
    return MaskedLanguage(**arguments | changes)
