"""Pack several runs with shared weights into one folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.export.bitmask import save_bitmask
from multiprune.export.card import write_packed_card
from multiprune.export.checkpoint import (
    SHARED_WEIGHTS,
    check_is_new,
    load_encoder,
    model_folder,
    save_config,
    save_heads,
)
from multiprune.export.exported_folder import exported_folder
from multiprune.export.loading import load
from multiprune.export.packed import MASKS, save_masks
from multiprune.export.packed_sizes import Apart, size_tables
from multiprune.export.shared import SharedWeights
from multiprune.export.shipped import load_tokenizer
from multiprune.export.text_to_text import check_is_encoder
from multiprune.models.task_heads import TaskHeads

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any


def pack(runs: Sequence[Path], out: Path) -> str:
    """Write the models of ``runs``, finished or exported, to the new folder ``out``.

    The folder holds once each weight that any of them keeps, a mask for each run, and all heads.
    Returns tables of what that takes.

    Raises:
        FileExistsError: if ``out`` exists.
        ValueError: if the runs do not share weights, or a task is in two of them.
    """
    check_is_new(out)
    if len(runs) < 2:
        raise ValueError(f"Pass at least two runs to pack, not {len(runs)}.")
    folders = [model_folder(run) for run in runs]
    shared, heads, apart = SharedWeights(), TaskHeads(), []
    meaning: dict[str, dict[str, Any]] = {}
    for run, folder in zip(runs, folders, strict=True):
        model = load(folder)
        check_is_encoder(model, "What is packed")
        shared.add(str(run), model)
        heads.update(dict(model.heads.items()))
        meaning |= {task: dict(one) for task, one in model.meaning.items()}
        apart.append(Apart.of(model))
    encoder = load_encoder(folders[0])
    encoder.load_state_dict(shared.weights)
    with exported_folder(out) as folder:
        save_bitmask(shared.weights, folder / SHARED_WEIGHTS)
        mask_bytes = save_masks(shared.models, shared.weights, folder / MASKS)
        save_config(folder, encoder)
        save_heads(folder, heads, meaning)
        load_tokenizer(folders[0]).save_pretrained(folder)
        tables = size_tables(folder, encoder, shared.models, mask_bytes, apart)
        write_packed_card(folder, meaning, tables)
    return tables
