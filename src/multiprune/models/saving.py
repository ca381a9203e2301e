"""Save a pruned transformers model, with its layer shapes and code for them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multiprune.models import modeling_multiprune
from multiprune.models.modeling_multiprune import HEADS, KEY, PrunedEncoder
from multiprune.models.shrink import per_layer_config, shapes_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

#: The file that builds pruned shapes, of which each folder has a copy.
CODE = Path(modeling_multiprune.__file__)


def shape_entries(model: PreTrainedModel, encoder: PreTrainedModel) -> dict[str, Any]:
    """Return what ``config.json`` must say of the pruned shapes of a model's encoder.

    Empty if all layers have their dense shapes.
    """
    if not (shapes := shapes_of(encoder)):
        return {}
    built = {"pooler": getattr(encoder, "pooler", None) is not None}
    if (dense := _published_code(model.config)) is not None:
        built["code"] = dense
    entries: dict[str, Any] = {
        KEY: shapes | built,
        "auto_map": {
            auto: f"{CODE.stem}.{one.__name__}" for auto, one in _auto_map(model, encoder).items()
        },
    }
    if described := per_layer_config(encoder, shapes):
        entries["per_layer_config"] = described
    return entries


def _published_code(config: PretrainedConfig) -> Any:
    """Return what a configuration names of code that was published with the dense model."""
    shapes = getattr(config, KEY, None)
    if shapes is not None:
        return shapes.get("code")
    return (getattr(config, "auto_map", None) or {}).get("AutoModel")


def _auto_map(model: PreTrainedModel, encoder: PreTrainedModel) -> dict[str, type[PrunedEncoder]]:
    """Return by what of the code each automatic class of transformers loads a model.

    An encoder without a head can be given one, which begins at random.
    """
    import transformers

    if encoder.config.is_encoder_decoder:
        return {"AutoModelForSeq2SeqLM": PrunedEncoder}
    found: dict[str, type[PrunedEncoder]] = {"AutoModel": PrunedEncoder}
    for kind in HEADS:
        known = getattr(transformers, kind.auto)._model_mapping.get(type(model.config), None)
        if known is not None:
            found[kind.auto] = kind
    return found


class SaveWithShapes:
    """Takes the place of ``save_pretrained`` of a model that is pruned, wherever that is called.

    A Trainer calls it, and knows nothing of shapes that ``config.json`` does not have.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def __call__(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Save the model as its class does, with the shapes that it has now."""
        encoder: Any = self.model.base_model
        entries = shape_entries(self.model, encoder)
        folder, config = Path(save_directory), vars(self.model.config)
        if entries and kwargs.get("is_main_process", True):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CODE, folder / CODE.name)
        before = dict(config)
        for key, value in entries.items():
            setattr(self.model.config, key, value)
        try:
            type(self.model).save_pretrained(self.model, save_directory, *args, **kwargs)
        finally:
            config.clear()
            config.update(before)


def save_with_shapes(*models: nn.Module) -> None:
    """Let models of transformers be saved with the shapes that they have then."""
    from transformers import PreTrainedModel

    for model in models:
        if isinstance(model, PreTrainedModel):
            model.save_pretrained = SaveWithShapes(model)  # type: ignore[assignment, method-assign]
