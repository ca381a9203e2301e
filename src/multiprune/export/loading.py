"""Load an exported folder: a single model, packed models, or a dynamic model."""

from __future__ import annotations

from pathlib import Path

import torch

from multiprune.export.checkpoint import is_packed, load_encoder, load_heads, model_folder
from multiprune.export.dynamic import SIZES, DynamicModel, load_dynamic
from multiprune.export.shipped import ShippedModel, load_tokenizer
from multiprune.export.switching import load_packed
from multiprune.export.text_to_text import shipped_text_to_text
from multiprune.runs.folder import SIZES_FOLDER


def load(path: str | Path, *, trust_remote_code: bool = False) -> ShippedModel:
    """Load the model of a finished run, or an exported one.

    Code that was published with its encoder is run with ``trust_remote_code`` only.
    Several that were packed are one ``multiprune.export.switching.PackedModel``, and one of many
    sizes is a ``multiprune.export.dynamic.DynamicModel``.

    Raises:
        FileNotFoundError: if there is no model.
        ValueError: if a file is damaged, or weights have not the shapes that ``config.json`` names.
    """
    if is_packed(Path(path)):
        return load_packed(Path(path))
    folder = model_folder(Path(path))
    if (folder / SIZES).is_file():
        return load_dynamic(folder)
    encoder = load_encoder(folder, trust_remote_code=trust_remote_code)
    if encoder.config.is_encoder_decoder:
        return shipped_text_to_text(folder, encoder)
    heads, meaning = load_heads(folder, encoder)
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    return ShippedModel(encoder, heads, meaning, tokenizer).eval()


def load_on(path: Path, *, density: float | None = None, device: str | None = None) -> ShippedModel:
    """Load a model onto a device, by default a GPU where there is one.

    With a ``density``, it is that of a model of many sizes, at the largest size not above it.

    Raises:
        FileNotFoundError: if there is no model, or, with a ``density``, none of many sizes.
        ValueError: if the model was not trained for that density, or there is no such device.
    """
    here = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    if device is not None and device not in here:
        raise ValueError(f"`device` must be one of {', '.join(here)}, but is {device!r}.")
    if density is None:
        model = load(path)
    else:
        model = load_sizes(path)
        model.set_density(density)
    return model.to(device or here[-1])


def load_sizes(run: Path) -> DynamicModel:
    """Load a run's model of many sizes, or an exported one.

    Raises:
        FileNotFoundError: if there is none.
    """
    folder = run / SIZES_FOLDER
    model = load(folder if folder.is_dir() else run)
    if not isinstance(model, DynamicModel):
        raise FileNotFoundError(
            f"{run} is not a dynamic model, of a run with pruner=dynamic_sparsification."
        )
    return model
