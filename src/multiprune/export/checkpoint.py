"""Write and read exported folders: encoder, heads, tokenizer, in safetensors and JSON."""

from __future__ import annotations

import copy
import json
import shutil
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from multiprune.export.bitmask import load_bitmask, save_bitmask
from multiprune.export.digests import check_digest
from multiprune.export.exported_folder import exported_folder
from multiprune.export.tied import assign_state, stored_state, whole_state
from multiprune.message import first_line
from multiprune.models.bound import bounded
from multiprune.models.encoder import Encoder, encoder_class, has_pooler
from multiprune.models.modeling_multiprune import KEY, register_code
from multiprune.models.remote_code import check_attention
from multiprune.models.saving import CODE, shape_entries
from multiprune.models.task_heads import TaskHeads
from multiprune.tasks.outputs.described import output_from

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from multiprune.models.multitask import MultitaskModel
    from multiprune.tasks.task import Task

WEIGHTS, HEADS, MEANING = "model.safetensors", "heads.safetensors", "heads.json"
#: Holds the weights in place of ``WEIGHTS`` where zeros are not stored.
BITMASK_WEIGHTS = "model.bitmask.safetensors"
#: Holds the weights that several models share, stored likewise; no model has all of them.
SHARED_WEIGHTS = "shared.bitmask.safetensors"


def save_model(
    folder: Path,
    model: MultitaskModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Mapping[str, Task],
    max_length: int | None = None,
    *,
    claim: Callable[[Path], None] | None = None,
) -> None:
    """Write a finalized model to ``folder``, all of it or nothing.

    ``config.json``, ``model.safetensors`` and the tokenizer are the encoder's; an encoder with
    dense shapes loads with plain ``AutoModel.from_pretrained(folder)``, one that was cut with
    ``trust_remote_code=True`` or with ``load_model``. ``heads.safetensors`` holds
    ``<task>.output.weight``, of shape (outputs, hidden), and ``.bias`` (a head over the vocabulary
    has other layers, and not the embeddings that it shares), and ``heads.json`` says what their
    outputs mean (of a number, -1 and 1 stand for its ``bounds``). ``sha256.json`` holds
    digests of the weights. An encoder-decoder has no weights of heads, and loads by
    ``AutoModelForSeq2SeqLM``; ``heads.json`` says how its tasks are put in words. ``max_length`` is
    that of texts in training, in tokens; by default, as many as there are positions for.
    ``claim`` is that of :func:`exported_folder`.
    """
    length = Encoder(model.encoder, tokenizer).max_length if max_length is None else max_length
    meaning = meaning_of(tasks, length)
    with exported_folder(folder, claim=claim) as beside:
        save_encoder(beside, model.encoder)
        tokenizer.save_pretrained(beside)
        save_heads(beside, model.heads, meaning)


def meaning_of(tasks: Mapping[str, Task], max_length: int) -> dict[str, dict[str, Any]]:
    """Return what is said of tasks beside their heads: ``heads.json``."""
    return {name: {**task.description, "max_length": max_length} for name, task in tasks.items()}


def check_is_new(out: Path) -> None:
    """Raise a FileExistsError if there is something at ``out``."""
    if out.exists():
        raise FileExistsError(f"`--out` folder {out} already exists; choose another.")


def save_encoder(folder: Path, encoder: PreTrainedModel, *, bitmask: bool = False) -> None:
    """Write an encoder's weights and its configuration, with the shapes that were pruned.

    With ``bitmask``, zeros are not stored.
    """
    if bitmask:
        save_bitmask(stored_state(encoder), folder / BITMASK_WEIGHTS)
    else:
        # By the names of the modules, which files of several architectures do not have.
        encoder.save_pretrained(folder, save_original_format=False)
    save_config(folder, encoder)


def save_config(folder: Path, encoder: PreTrainedModel) -> None:
    """Write an encoder's configuration, and the code that builds shapes that were pruned."""
    write_config(folder, encoder, encoder)


def write_config(
    folder: Path, model: PreTrainedModel, encoder: PreTrainedModel, *, with_code: bool = True
) -> None:
    """Write the configuration of a model, and the code that builds its encoder's shapes."""
    config = copy.deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], model.dtype
    if entries := shape_entries(model, encoder):
        if with_code:
            shutil.copyfile(CODE, folder / CODE.name)
        else:
            del entries["auto_map"]
        for key, value in entries.items():
            setattr(config, key, value)
    config.save_pretrained(folder)


def save_heads(folder: Path, heads: TaskHeads, meaning: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the heads, if they have weights, and what their outputs mean."""
    if state := heads.weights():
        save_file({key: one.contiguous() for key, one in state.items()}, folder / HEADS)
    (folder / MEANING).write_text(json.dumps(meaning, indent=2) + "\n")


def model_folder(path: Path) -> Path:
    """Return the folder with the model in it: ``path``, or ``model`` in the folder of a run.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if there are several, packed.
    """
    if is_packed(path):
        raise ValueError(
            f"{path} holds several models that share weights: pass one run, or its export."
        )
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file() and (folder / MEANING).is_file():
            return folder
    raise FileNotFoundError(
        f"{path} must be the folder of a finished run or of an exported model, but it has no "
        f"config.json with {MEANING} beside it, and no model folder with them."
    )


def is_packed(folder: Path) -> bool:
    """Whether a folder holds several models that share weights."""
    return (folder / SHARED_WEIGHTS).is_file()


def weights_file(folder: Path) -> Path:
    """Return where a shipped folder holds the weights of its encoder."""
    files = [folder / name for name in (SHARED_WEIGHTS, BITMASK_WEIGHTS)]
    return next((file for file in files if file.is_file()), folder / WEIGHTS)


def load_encoder(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load the encoder of a shipped folder.

    Code that was published with the encoder is run with ``trust_remote_code`` only.

    Raises:
        ValueError: if weights are damaged, or have not the shapes that ``config.json`` names.
    """
    from transformers import AutoConfig

    file = weights_file(folder)
    state = load_weights(file)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        if not isinstance(getattr(config, KEY, {}), dict):
            raise ValueError(f"`{KEY}` must be the shapes of layers, but is none.")
        check_attention(config, str(folder))
        if trust_remote_code:
            register_code(config, str(folder))
        with_pooler = "pooler.dense.weight" in state
        with torch.device("meta"), bounded(config, len(state), file):
            outline = _build(config, with_pooler=with_pooler)
    except Exception as error:
        # A wrong number may fail anywhere in the libraries; their first line says most.
        reason = first_line(error)
        if "trust_remote_code" in str(error):
            reason = "it is built by code of its own, which needs `trust_remote_code=True`."
        raise ValueError(
            f"The encoder in {folder / 'config.json'} cannot be built: {reason}"
        ) from error
    # Nothing is allocated that the file does not have.
    _check_shapes(outline.state_dict(), whole_state(outline, state), file, "config.json")
    built = _build(config, with_pooler=with_pooler)
    # The tensors that were read take the place of those that were built: no second copy.
    assign_state(built, state)
    encoder: PreTrainedModel = built.eval()  # type: ignore[no-untyped-call]
    return encoder


def load_heads(
    folder: Path, encoder: PreTrainedModel
) -> tuple[TaskHeads, dict[str, dict[str, Any]]]:
    """Load the heads of a shipped folder on an encoder, and what their outputs mean.

    Raises:
        ValueError: if heads are damaged or missing, or of another size.
    """
    meaning = load_meaning(folder)
    file = folder / HEADS
    state = load_weights(file)
    loaded = TaskHeads()
    for task, one in meaning.items():
        if not any(name.startswith(f"{task}.") for name in state):
            raise ValueError(f"{file} has no head for {task}.")
        loaded[task] = output_from(one).head(encoder)
    _check_shapes(loaded.weights(), state, file, f"config.json and {MEANING}")
    loaded.assign_weights(state)
    return loaded.eval(), meaning


def load_meaning(folder: Path) -> dict[str, dict[str, Any]]:
    """Read what the outputs of each task mean.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        meaning = json.loads((folder / MEANING).read_text())
        if not isinstance(meaning, dict):
            raise ValueError("it is not an object")
        # Also those of an earlier version say all that the present one writes.
        return {task: dict(one, **output_from(one).description) for task, one in meaning.items()}
    except ValueError as error:
        reason = str(error).removesuffix(".")
        raise ValueError(
            f"{folder / MEANING} must say in JSON what the outputs of each task mean, but: "
            f"{reason}."
        ) from error


def load_weights(file: Path) -> dict[str, Tensor]:
    """Read tensors; a damaged file is refused in one sentence."""
    check_file(file)
    if file.name in (BITMASK_WEIGHTS, SHARED_WEIGHTS):
        return load_bitmask(file)
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is not a complete safetensors file: {error}.") from error


def check_file(file: Path) -> None:
    """Raise a ValueError, one sentence, if a file of weights is missing or damaged."""
    if not file.is_file():
        raise ValueError(f"{file.parent} has no {file.name}.")
    check_digest(file)


def _build(config: PretrainedConfig, *, with_pooler: bool) -> PreTrainedModel:
    from transformers.initialization import no_init_weights

    options = {"add_pooling_layer": with_pooler} if has_pooler(config) else {}
    with no_init_weights():
        built: PreTrainedModel = encoder_class(config)(config, **options)
    built.tie_weights()  # which is a part of giving them their first values
    return built


def _check_shapes(
    model: Mapping[str, Tensor], state: Mapping[str, Tensor], file: Path, source: str
) -> None:
    expected = {key: tuple(one.shape) for key, one in model.items()}
    found = {key: tuple(one.shape) for key, one in state.items()}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise ValueError(
                f"{file} must hold the shapes that {source} ask for, but {key} is "
                f"{found.get(key, 'missing')} and should be {expected.get(key, 'absent')}."
            )
