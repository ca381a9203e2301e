"""Load the masks of a run or an exported encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.export.checkpoint import load_weights, model_folder, weights_file

if TYPE_CHECKING:
    from torch import Tensor


def kept_weights(run: str | Path | None) -> dict[str, Tensor]:
    """Return which weights of the encoder in the folder ``run`` are not zero.

    Boolean masks by path from the encoder, one a matrix. ``run`` is a finished run or an exported
    folder; None stands for one that nobody has named.

    Raises:
        FileNotFoundError: if there is no model.
        ValueError: if its weights are damaged, or nothing is named.
    """
    if run is None:
        raise ValueError(
            "Set `pruner.mask.run` to a run with masks, as the encoder does not come from one."
        )
    state = load_weights(weights_file(model_folder(Path(run).expanduser())))
    return {path: weight != 0 for path, weight in state.items() if weight.dim() == 2}
