"""Masked language modelling as the tests state it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet

from multiprune.data.source import HubSource
from multiprune.metrics import Perplexity, TokenAccuracy, TokenLoss
from multiprune.tasks.masked_language import MaskedLanguage
from multiprune.tasks.packing import across_texts
from multiprune.tasks.synthetic import agreement

if TYPE_CHECKING:
    from pathlib import Path


def masked_task(**changes: Any) -> MaskedLanguage:
    """Return a task that knows no tokenizer yet, and whose source has no rows."""
    arguments: dict[str, Any] = {
        "text": ["text"],
        "probability": 0.15,
        "packing": across_texts,
        "metrics": {"accuracy": TokenAccuracy(), "perplexity": Perplexity(), "loss": TokenLoss()},
        "source": HubSource(path=None, mirror="nowhere"),
    }
    return MaskedLanguage(**arguments | changes)


def general_text(folder: Path) -> Path:
    """Write corpora of a few embedded sentences where ``conf/task/mlm.yaml`` looks for them."""
    for number, corpus in enumerate(("books", "wiki", "misc")):
        place = folder / "general_text" / corpus
        place.mkdir(parents=True)
        for split, count in (("train", 60), ("validation", 20)):
            texts = agreement(count, number)["sentence"]
            table = pyarrow.table({"text": texts, "source": [corpus] * count})
            pyarrow.parquet.write_table(table, place / f"{split}.parquet")
    return folder
