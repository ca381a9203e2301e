"""Finetune one text encoder on many tasks while it is pruned to a parameter budget."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__version__ = version("multiprune")


def load(path: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Load the model of a finished run, or an exported one; see ``multiprune.export.loading``.

    What ``save`` wrote is loaded as what it was: a model of transformers.
    """
    # Imported late: whoever only asks for --help does not wait for torch.
    from multiprune.export.loading import load as load_model
    from multiprune.export.own_model import is_own, load_own

    if is_own(path):
        return load_own(path)
    return load_model(path, trust_remote_code=trust_remote_code)


def save(
    folder: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Save an encoder of transformers, with or without a head, pruned in one's own loop.

    A model that is still being pruned is saved as it would be if the pruning ended now; it goes on
    as it was.

    Raises:
        FileExistsError: if there is something in the folder.
        TypeError: if it is no model of transformers.
        UnfinishedPruningError: if it is being pruned, and has not come to its budget.
    """
    from multiprune.export.own_model import check_can_be_saved, save_own
    from multiprune.pruning.progress import finalized

    check_can_be_saved(folder, model)
    save_own(folder, finalized(model), tokenizer)
