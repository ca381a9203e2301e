"""Save and load pruned transformers models of your own, with or without a head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from multiprune.export.checkpoint import MEANING, check_file, weights_file
from multiprune.export.exported_folder import exported_folder
from multiprune.models.bound import bounded
from multiprune.models.modeling_multiprune import KEY, pruned_class
from multiprune.models.remote_code import check_attention, check_shards
from multiprune.models.saving import SaveWithShapes

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def check_can_be_saved(folder: str | Path, model: object) -> None:
    """Refuse what ``save_own`` cannot write, or could not load again.

    Raises:
        FileExistsError: if there is something in the folder.
        TypeError: if it is no model of transformers.
    """
    import transformers

    folder = Path(folder)
    if not isinstance(model, transformers.PreTrainedModel):
        raise TypeError(
            "What is saved must be an encoder of transformers, with or without a head, but is a "
            f"{type(model).__name__}: save the encoder in it."
        )
    if not hasattr(transformers, name := type(model).__name__):
        raise TypeError(
            f"{name} is not a class of transformers: save its encoder, "
            f"model.{model.base_model_prefix}, and its head separately."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} already exists and is not empty; choose another folder.")


def save_own(
    folder: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Write a model, cut or not, to a new or empty folder, all of it or nothing."""
    with exported_folder(Path(folder)) as beside:
        SaveWithShapes(model)(beside)
        if tokenizer is not None:
            tokenizer.save_pretrained(beside)


def is_own(path: str | Path) -> bool:
    """Whether a folder holds a model of transformers, with no tasks of this package beside it."""
    folder = Path(path)
    return (folder / "config.json").is_file() and not (folder / MEANING).is_file()


def load_own(path: str | Path) -> PreTrainedModel:
    """Load what ``save_own`` or ``save_pretrained`` wrote; no code from the folder is run.

    Raises:
        ValueError: if weights are damaged, lie elsewhere, or do not match ``config.json``.
    """
    from transformers import AutoConfig

    folder = Path(path)
    check_file(file := weights_file(folder))
    check_shards(folder)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    check_attention(config, str(folder))
    with safe_open(file, "pt") as stored:
        count = len(stored.keys())
    with bounded(config, count, file):
        model, report = _class_of(config, folder).from_pretrained(
            folder, config=config, output_loading_info=True, ignore_mismatched_sizes=True
        )
    _check_report(report, folder)
    loaded: PreTrainedModel = model.eval()
    return loaded


def _class_of(config: PretrainedConfig, folder: Path) -> Any:
    import transformers

    name = next(iter(config.architectures or []), "")
    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise ValueError(
            f"{folder / 'config.json'} must name a model of transformers in `architectures`, but "
            f"names {name!r}."
        )
    return pruned_class(config, found) if hasattr(config, KEY) else found


def _check_report(report: dict[str, Any], folder: Path) -> None:
    """Refuse a model of which anything would be random or left out."""
    file = weights_file(folder)
    if unfinished := [key for key in report["unexpected_keys"] if "pruning_step" in key]:
        raise ValueError(
            f"{file} was written while its model was pruned (it holds {unfinished[0].split()[0]}): "
            "load it into a model on which pruner.prepare was called, or save the model with "
            "multiprune.save."
        )
    if mismatched := sorted(key for key, *_ in report["mismatched_keys"]):
        raise ValueError(
            f"{file} holds {len(mismatched)} tensors of other shapes than config.json describes, "
            f"such as {mismatched[0]}: save a model that was cut with multiprune.save."
        )
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{file} lacks {len(missing)} tensors that config.json describes, such as {missing[0]}."
        )
